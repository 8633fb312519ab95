"""The session: a quantized model whose attention reads cells, or rows where it is of an unusual kind."""

from __future__ import annotations

import gc
import inspect
from dataclasses import replace
from typing import Any

import gptqmodel
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit import decoding
from evalkit.cells import CellSession
from evalkit.model import Model
from evalkit.requests import TokenCounts
from evalkit.scoring import ScoredTokens, Scores, Span
from evalkit.scoring.planner import TreeBatch
from evalkit.tokenizers import context_length, load_tokenizer
from evalkit_gptqmodel import rows as alone
from evalkit_gptqmodel.attention import IMPLEMENTATION, Cells, NotPossibleError, attention_is_usual
from evalkit_gptqmodel.checkpoint import local_folder
from evalkit_gptqmodel.engine import GPTQModel
from evalkit_gptqmodel.load import load_model, quantized_layers
from evalkit_gptqmodel.memory import computing
from evalkit_gptqmodel.quiet import quiet
from evalkit_gptqmodel.scores import target_scores
from evalkit_gptqmodel.slots import SlotDecoder
from evalkit_gptqmodel.unpack import unpack_layers

BATCH_TOKENS = {"cpu": 1024, "cuda": 8192}
ROWS = {"cpu": 32, "cuda": 128}
DRAFTED_PASS = {"cpu": 32, "cuda": 256}
"""Tokens in a pass up to which guesses are worth their cost."""


class GPTQModelSession(CellSession):
    """A loaded model."""

    def __init__(self, engine: GPTQModel, model: Model) -> None:
        self.engine = engine
        folder = local_folder(engine, model)
        self.wrapper: Any = load_model(engine, model, folder)
        self.model: Any = self.wrapper.model
        config, generation = self.model.config, getattr(self.model, "generation_config", None)
        tokenizer = load_tokenizer(
            model if model.tokenizer_path else replace(model, path=str(folder), revision=None),
            trust_remote_code=engine.trust_remote_code,
            eos_token_ids=_as_list(getattr(generation, "eos_token_id", None)),
        )
        self.device: torch.device = self.model.device
        kind = self.device.type
        super().__init__(
            tokenizer,
            max_length=model.max_length or context_length(config, tokenizer.model_max_length),
            batch_tokens=engine.batch_tokens or BATCH_TOKENS.get(kind, 1024),
        )
        self.rows = engine.rows or ROWS.get(kind, 32)
        self.draft_tokens, self.drafted_pass = engine.draft_tokens, DRAFTED_PASS.get(kind, 32)
        # Named before: unpacked layers tell no more what they were.
        layers = quantized_layers(self.model)
        self.quantized, self.kernels = len(layers), sorted({kernel_name(layer) for layer in layers})
        del layers
        self.unpacked = unpack_layers(self.model, asked=engine.dequantize, kernel_chosen=engine.backend != "auto")
        self.accepts = set(inspect.signature(self.model.forward).parameters)
        self.cells = Cells()
        self.shares_prefixes = self.joins_running = engine.attn_implementation is None and self._install()
        if not self.shares_prefixes:
            self.draft_tokens = 0

    def _install(self) -> bool:
        """Let attention read cells, where a small forest then scores as its texts do on their own.

        Models whose layers keep a state, or whose attention is not the usual one, are found out so.
        """
        usual = self.model.config._attn_implementation
        if not attention_is_usual(self.model.config):
            return False
        spans = [Span((*range(3, 10), *tail), 6) for tail in ((1, 2, 5, 4), (1, 2, 6), (3, 4, 5), (2,))]
        expected = alone.score_rows(self, spans)
        self.model.set_attn_implementation(IMPLEMENTATION)
        try:
            found = super().score_batch(spans)
        except (NotPossibleError, AttributeError, TypeError, ValueError, KeyError, RuntimeError):
            found = []
        self.gc()
        self.counts = TokenCounts()
        tolerance = 1e-3 if self.unpacked and self.model.dtype == torch.float32 else 0.2
        pairs = zip(found, expected, strict=False)
        if found and all(np.allclose(a.logprobs, b.logprobs, atol=tolerance, rtol=tolerance) for a, b in pairs):
            return True
        self.model.set_attn_implementation(usual)
        return False

    def score_batch(self, spans: list[Span]) -> list[ScoredTokens]:
        """Score spans as a forest of their own, or a row each."""
        return super().score_batch(spans) if self.shares_prefixes else alone.score_rows(self, spans)

    # ── the primitive ───────────────────────────────────────────────────────────────────────────────────
    def run(
        self, tokens: NDArray[np.int64], positions: NDArray[np.int64], mask: NDArray[np.bool_], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """One pass; logits [rows, vocabulary]."""
        with computing(self.device):
            logits: NDArray[np.float32] = self._pass(tokens, positions, mask, rows).float().cpu().numpy()
        return logits

    def score_pass(self, batch: TreeBatch, mask: NDArray[np.bool_]) -> Scores:
        """One pass, and the scores of its targets."""
        with computing(self.device):
            logits = self._pass(batch.tokens.astype(np.int64), batch.positions, mask, batch.rows)
            return target_scores(logits, batch.target_rows, batch.targets, batch.tops)

    def _pass(
        self, tokens: NDArray[np.int64], positions: NDArray[np.int64], mask: NDArray[np.bool_], rows: NDArray[np.int64]
    ) -> Tensor:
        with self.cells.reading(mask, positions.astype(np.int64)):
            return self.logits(tokens, positions, rows)

    def logits(self, tokens: NDArray[np.int64], positions: NDArray[np.int64], rows: NDArray[np.int64]) -> Tensor:
        """Logits [rows, vocabulary] of a pass over one packed row of tokens."""
        wanted = torch.from_numpy(rows.astype(np.int64)).to(self.device)
        inputs = {
            "input_ids": torch.from_numpy(tokens)[None].to(self.device),
            "position_ids": torch.from_numpy(positions.astype(np.int64))[None].to(self.device),
            "use_cache": False,
        }
        if "logits_to_keep" not in self.accepts:
            return self.forward(**inputs)[0][wanted]
        # An empty choice would mean all of them to some models.
        kept = wanted if len(rows) else wanted.new_zeros(1)
        return self.forward(**inputs, logits_to_keep=kept)[0][: len(rows)]

    def forward(self, **inputs: Any) -> Tensor:
        """Logits [rows, tokens, vocabulary] of a pass of the model."""
        with quiet(verbose=self.engine.verbose):
            logits: Tensor = self.model(**inputs).logits
        return logits

    def keep(self, cells: NDArray[np.int64]) -> None:
        """Keep these cells only."""
        with torch.inference_mode():
            self.cells.keep(cells)

    def decoder(self) -> decoding.Decoder:
        """What generates: sequences in slots of their own behind a shared prefix, or one by one."""
        return SlotDecoder(self) if self.shares_prefixes else alone.RowDecoder(self)

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────
    def gc(self) -> None:
        """Give cached memory back."""
        self.forget_prefix()
        self.cells.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Release the model."""
        if self.wrapper is not None:
            self.wrapper = self.model = None
            self.gc()

    def describe_execution(self) -> dict[str, Any]:
        """Quantization, kernels, device, dtype and batching in use."""
        return {
            "backend": "gptqmodel",
            "gptqmodel": gptqmodel.__version__,
            "architecture": type(self.model).__name__,
            "device": str(self.device),
            "device_map": placement(self.model),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "quantization": describe_quantization(self.wrapper.quantize_config),
            "kernels": self.kernels,
            "weights": f"{self.unpacked} of {self.quantized} layers unpacked" if self.unpacked else "as stored",
            "max_length": self.max_length,
            "batch_tokens": self.batch_tokens,
            "logits": "scored positions",
            "attn_implementation": None if self.shares_prefixes else self.model.config._attn_implementation,
            "scoring": "prefix forest" if self.shares_prefixes else "padded rows",
            "generation": "continuous, guessing ahead" if self.draft_tokens else "continuous",
        }


def placement(model: Any) -> dict[str, str] | None:
    """Where each part of a model is, or None where all are in one place."""
    found = {name: str(device) for name, device in (getattr(model, "hf_device_map", None) or {}).items()}
    return found if len(set(found.values())) > 1 else None


def describe_quantization(config: Any) -> dict[str, Any]:
    """Method, bits and the like of a checkpoint, as plain data."""
    names = ("method", "format", "bits", "group_size", "desc_act", "sym", "lm_head", "rotation")
    found = {name: _plain(getattr(config, name, None)) for name in names}
    found["quantizer"] = (getattr(config, "meta", None) or {}).get("quantizer")
    found["adapter"] = getattr(getattr(config, "adapter", None), "path", None)
    return {name: value for name, value in found.items() if value is not None}


def kernel_name(layer: Any) -> str:
    """GPTQModel's name for the kernel of a layer: what `backend` would choose it by."""
    names = getattr(layer, "SUPPORTS_BACKENDS", None) or [type(layer).__name__]
    return str(_plain(names[0]))


def _plain(value: Any) -> Any:
    value = getattr(value, "value", value)
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _as_list(value: int | list[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)
