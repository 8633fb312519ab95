"""The session: tinygrad's model over a row of cells, in passes of few fixed sizes."""

from __future__ import annotations

import gc
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.cells import LEAST_FREE, CellSession
from evalkit.errors import ConfigError
from evalkit.gguf_tokenizers import gguf_tokenizer
from evalkit.model import Model
from evalkit.tokenizers import HFTokenizer, load_template, load_tokenizer
from evalkit_tinygrad.engine import Tinygrad
from evalkit_tinygrad.load import (
    choose_device,
    free_kept_memory,
    load_model,
    rotary_angles,
    using,
    weights_dtype,
)
from evalkit_tinygrad.passes import Passes

DEFAULT_LENGTH = 4096
SMALL_PASSES = (4, 8, 16, 24, 32, 48, 64)
"""Tokens of the passes that generation takes: each costs seconds to compile, at first use, and a step less padding."""
DRAFTED_PASS = 32
HIDDEN = np.float32(-1e30)
"""What is added to the scores of what a token does not see: finite, because a padded token sees nothing."""
END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


class TinygradSession(CellSession):
    """A loaded model, and cells for as many tokens as the work at hand needs."""

    rows = 16
    drafted_pass = DRAFTED_PASS

    def __init__(self, engine: Tinygrad, model: Model) -> None:
        self.engine = engine
        with using(engine.device):
            self.device = choose_device(engine)
            self.dtype = weights_dtype(engine, model, self.device)
            self.model, header, factors = load_model(model, self.device, self.dtype)
        tokenizer = _tokenizer(model, header)
        trained = int(self.model.max_context)
        super().__init__(
            tokenizer,
            max_length=model.max_length or engine.n_ctx or min(trained, DEFAULT_LENGTH),
            batch_tokens=engine.batch_tokens,
        )
        if tokenizer.vocab_size > self.model.output.weight.shape[0]:
            raise ConfigError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, but the model {self.model.output.weight.shape[0]}. "
                "Check --model-arg tokenizer_path="
            )
        self.architecture = str(header["general.architecture"])
        self.draft_tokens = engine.draft_tokens
        largest = engine.batch_tokens
        # Each is compiled once, when it is first needed. With only the largest, most tokens would be padding.
        quarters = (-(-part * largest // 4) for part in (2, 3, 4))
        self._sizes = sorted({*(size for size in SMALL_PASSES if size < largest), *quarters})
        self._angles = rotary_angles(self.model.blk[0].config, self.max_length, factors)
        self._passes: Passes | None = None
        self._capacity = 0
        self._used = 0

    # ── the primitive ───────────────────────────────────────────────────────────────────────────────────
    def make_room(self, longest: int, total: int) -> None:
        """Have cells for texts of so many tokens: in powers of two, as each capacity is compiled anew."""
        largest = self._sizes[-1]
        needed = max(longest, min(total, self.max_length)) + largest + LEAST_FREE
        capacity = 1 << (needed - 1).bit_length()
        if capacity > self._capacity:
            self._capacity = capacity
            self._free()
        # A pass is padded, behind the last cell too.
        self.most_cells = self._capacity - largest
        # Free cells may be a quarter of all before they are reused.
        self.cache_tokens = 3 * (self._capacity - largest) // 4

    def run(
        self, tokens: NDArray[np.int64], positions: NDArray[np.int64], mask: NDArray[np.bool_], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """A pass, or several where tokens are more than fit one; logits [rows, vocabulary]."""
        found = []
        for start in range(0, len(tokens), self.engine.batch_tokens):
            stop = min(len(tokens), start + self.engine.batch_tokens)
            mine = rows[(rows >= start) & (rows < stop)] - start
            seen = mask[start:stop, : mask.shape[1] - len(tokens) + stop]
            found.append(self._pass(tokens[start:stop], positions[start:stop], seen, mine))
        return np.concatenate(found)

    def _pass(
        self, tokens: NDArray[np.int64], positions: NDArray[np.int64], mask: NDArray[np.bool_], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        with using(self.engine.device):
            return self._compute(tokens, positions, mask, rows)

    def _compute(
        self, tokens: NDArray[np.int64], positions: NDArray[np.int64], mask: NDArray[np.bool_], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        if self._passes is None:
            self._passes = Passes(self.model, self._capacity, jit=self.engine.jit, beam=self.engine.beam)
        size = len(tokens)
        fixed = next(fixed for fixed in self._sizes if fixed >= size)
        more = fixed - size
        self.count_computed(more)
        added = np.full((fixed, self._capacity), HIDDEN)
        added[:size, : mask.shape[1]] = np.where(mask, np.float32(0), HIDDEN)
        places = np.pad(positions, (0, more))
        hidden = self._passes.run(np.pad(tokens, (0, more)), self._angles[places], added, self._used)
        self._used += size
        return self._passes.logits(hidden, rows)

    def keep(self, cells: NDArray[np.int64]) -> None:
        """Keep these cells; those behind are overwritten by the next pass."""
        if len(cells) and cells[-1] + 1 != len(cells):
            assert self._passes is not None
            with using(self.engine.device):
                self._passes.move(cells)
        self._used = len(cells)

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────
    def _free(self) -> None:
        self.forget_prefix()
        self._passes = None
        self._used = 0
        gc.collect()

    def gc(self) -> None:
        """Forget all cells. Compiled passes stay, because making them is what takes time."""
        self.forget_prefix()
        self._used = 0

    def close(self) -> None:
        """Release the model."""
        self.model = None
        self._free()
        free_kept_memory(self.device)

    def describe_execution(self) -> dict[str, Any]:
        """Device, precision and batching in use."""
        return {
            "backend": "tinygrad",
            "tinygrad": version("tinygrad"),
            "architecture": self.architecture,
            "device": self.device,
            "dtype": self.dtype,
            "jit": self.engine.jit,
            "beam": self.engine.beam,
            "max_length": self.max_length,
            "batch_tokens": self.batch_tokens,
            "logits": "scored positions",
            "scoring": "prefix forest",
            "generation": "continuous, guessing ahead" if self.draft_tokens else "continuous",
        }


def _tokenizer(model: Model, header: Any) -> HFTokenizer:
    """The tokenizer that the file describes, or that of `tokenizer_path`."""
    ends = [int(header[key]) for key in (f"tokenizer.ggml.{name}" for name in END_KEYS) if key in header]
    template = header.get("tokenizer.chat_template")
    if model.tokenizer_path is not None:
        return load_tokenizer(model, eos_token_ids=ends, file_template=template)
    from transformers import PreTrainedTokenizerFast

    tokens = header["tokenizer.ggml.tokens"]
    names = {name: header.get(f"tokenizer.ggml.{key}_token_id") for name, key in (("bos", "bos"), ("eos", "eos"))}
    special = {f"{name}_token": tokens[number] for name, number in names.items() if number is not None}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=gguf_tokenizer(header), clean_up_tokenization_spaces=False, **special
    )
    return HFTokenizer(fast, eos_token_ids=ends, chat_template=load_template(model.chat_template) or template)
