"""The session: a stateful OpenVINO model whose cache is a row of cells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from evalkit.cells import CellSession
from evalkit.decoding import Adjust
from evalkit.errors import ConfigError, ModelError, one_line
from evalkit.generation_configs import checkpoint_processors
from evalkit.memory import memory_errors
from evalkit.model import Model, chosen_dtype, refuse_fields
from evalkit.tokenizers import context_length, load_tokenizer
from evalkit_openvino import graph
from evalkit_openvino.engine import Dtype, OpenVINO
from evalkit_openvino.export import FILENAME, exported, folder_of

PRECISION = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
HIDDEN = np.float32(np.finfo(np.float32).min)
"""What is added to the scores of what a token does not see."""

ADVICE = {
    "adapter": "Merge it into the checkpoint first, or use --engine transformers",
    "options": "OpenVINO's properties are --engine-arg ov_config=",
}
"""What to do instead of setting a field that means nothing here."""
LAYER_KINDS = ("full_attention", "sliding_attention")


class OpenVINOSession(CellSession):
    """A compiled model. Its states are the keys and values of all cells, [1, heads, cells, size] a layer."""

    rows = 32
    drafted_pass = 32

    def __init__(self, engine: OpenVINO, model: Model) -> None:
        refuse_fields(model, "openvino", **ADVICE)
        self.engine = engine
        self.dtype = chosen_dtype(model, "openvino", engine.dtype, get_args(Dtype))
        folder = exported(engine, model)
        self.config = _config(folder, trust_remote_code=engine.trust_remote_code or model.trust_remote_code)
        tokenizer = load_tokenizer(
            replace(model, path=folder_of(model.path), revision=model.revision or engine.revision),
            trust_remote_code=engine.trust_remote_code,
            eos_token_ids=_end_tokens(folder, self.config),
        )
        super().__init__(
            tokenizer,
            max_length=model.max_length or context_length(self.config, tokenizer.model_max_length),
            batch_tokens=engine.batch_tokens,
        )
        self.draft_tokens = engine.draft_tokens
        self.adjust = _adjust(folder)
        self._graph: Any = self._read(folder)
        self._request: Any = None
        self._positions = np.zeros(0, np.int64)
        self._saved: list[NDArray[Any]] = []
        """States of the first cells, as many as were kept last: setting them anew spares reading them."""
        if engine.compile:
            self._compiled()

    def _read(self, folder: Path) -> Any:
        self.core = ov.Core()
        try:
            model = self.core.read_model(folder / FILENAME)
        except RuntimeError as error:
            raise ModelError(f"{folder / FILENAME} cannot be read: {one_line(error, 200)}") from error
        graph.check_inputs(model)
        self.windows = layer_windows(self.config)
        self._masks = graph.open_attention(model, self.windows)
        graph.choose_rows(model)
        self._inputs = {name for value in model.inputs for name in value.names}
        model.validate_nodes_and_infer_types()
        return model

    def _compiled(self) -> Any:
        """The request for passes, compiled at first use."""
        if self._request is None:
            try:
                compiled = self.core.compile_model(self._graph, self.engine.device, self._properties())
            except RuntimeError as error:
                raise ConfigError(
                    f"OpenVINO cannot compile the model for {self.engine.device}: {one_line(error, 200)}. "
                    f"Devices here: {', '.join(self.core.available_devices)}"
                ) from error
            self._request = compiled.create_infer_request()
        return self._request

    def _properties(self) -> dict[str, Any]:
        dtype = self.dtype
        stored = str(getattr(self.config, "dtype", None) or getattr(self.config, "torch_dtype", None) or "")
        if dtype == "auto" and stored.endswith("float32"):
            dtype = "float32"
        properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if dtype != "auto":
            # Cached keys and values would else be 8-bit numbers.
            properties |= {"INFERENCE_PRECISION_HINT": PRECISION[dtype], "KV_CACHE_PRECISION": PRECISION[dtype]}
        else:
            properties["KV_CACHE_PRECISION"] = "f16"
        return properties | self.engine.ov_config

    # ── the primitive ───────────────────────────────────────────────────────────────────────────────────
    def run(
        self, tokens: NDArray[np.int64], positions: NDArray[np.int64], mask: NDArray[np.bool_], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """One pass; logits [rows, vocabulary]."""
        request = self._compiled()
        everywhere = np.concatenate([self._positions, positions])
        inputs: dict[str, Any] = {
            "input_ids": tokens[None],
            "position_ids": positions[None].astype(np.int64),
            "attention_mask": np.ones((1, mask.shape[1]), np.int64),
            "beam_idx": np.zeros(1, np.int32),
            graph.ROWS: rows if len(rows) else np.zeros(1, np.int64),
        }
        for name in self._masks:
            seen = mask
            if name == graph.WINDOW_MASK:
                window = next(window for window in self.windows if window is not None)
                seen = mask & (positions[:, None] - everywhere[None] < window)
            inputs[name] = np.where(seen, np.float32(0), HIDDEN)[None, None]
        with memory_errors("the device"):
            request.infer({name: value for name, value in inputs.items() if name in self._inputs}, share_inputs=True)
        self._positions = everywhere
        logits: NDArray[np.float32] = request.get_output_tensor(0).data[0].astype(np.float32)
        return logits[: len(rows)]

    def keep(self, cells: NDArray[np.int64]) -> None:
        """Keep these cells' states only."""
        if len(cells) == len(self._positions):
            return
        request = self._compiled()
        self._positions = self._positions[cells]
        if not len(cells):
            self._saved = []
            request.reset_state()
            return
        states = request.query_state()
        first = len(cells) == cells[-1] + 1
        held = self._saved[0].shape[2] if self._saved else 0
        if not first:
            self._saved = [np.ascontiguousarray(state.state.data[:, :, cells]) for state in states]
        elif held != len(cells):
            source = self._saved if held > len(cells) else [state.state.data for state in states]
            self._saved = [np.ascontiguousarray(side[:, :, : len(cells)]) for side in source]
        for state, saved in zip(states, self._saved, strict=True):
            state.state = ov.Tensor(saved)

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────
    def gc(self) -> None:
        """Forget all cells."""
        self.forget_prefix()
        self._saved = []
        self._positions = np.zeros(0, np.int64)
        if self._request is not None:
            self._request.reset_state()

    def close(self) -> None:
        """Release the model."""
        self.forget_prefix()
        self._request = self._graph = self.core = None
        self._saved = []

    def describe_execution(self) -> dict[str, Any]:
        """Device, precision and batching in use."""
        properties = {name: str(value) for name, value in self._properties().items()}
        return {
            "backend": "openvino",
            "openvino": ov.get_version(),
            "architecture": self.config.model_type,
            "device": self.engine.device,
            "weights": self.engine.weights,
            "properties": properties,
            "max_length": self.max_length,
            "batch_tokens": self.batch_tokens,
            "logits": "scored positions",
            "scoring": "prefix forest",
            "generation": "continuous, guessing ahead" if self.draft_tokens else "continuous",
        }


def _config(folder: Path, *, trust_remote_code: bool) -> Any:
    """The checkpoint's configuration. Raises ModelError."""
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code).get_text_config()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder / 'config.json'} cannot be used: {one_line(error, 200)}. Copy that of the checkpoint there"
        ) from error


def _adjust(folder: Path) -> Adjust | None:
    """What the checkpoint's generation settings ask of every text."""
    if not (folder / GENERATION_CONFIG_NAME).is_file():
        return None
    processors = checkpoint_processors(GenerationConfig.from_pretrained(folder))
    if not processors:
        return None

    def adjust(ids: Sequence[int], logits: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = processors(torch.tensor([ids]), torch.from_numpy(logits)[None])
        adjusted: NDArray[np.float32] = scores[0].numpy()
        return adjusted

    return adjust


def layer_windows(config: Any) -> list[int | None]:
    """The sliding window of each layer, None where it attends to everything. Raises ModelError."""
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    kinds = getattr(config, "layer_types", None)
    if unknown := sorted(set(kinds or ()) - set(LAYER_KINDS)):
        raise ModelError(
            f"this model has layers of the kind {unknown[0]}, which the openvino engine does not know. "
            "Use --engine transformers"
        )
    if kinds:
        return [window if kind == "sliding_attention" else None for kind in kinds]
    return [window] * int(config.num_hidden_layers)


def _end_tokens(folder: Path, config: Any) -> list[int]:
    """What ends a text, by the generation settings of the checkpoint."""
    path = folder / GENERATION_CONFIG_NAME
    found = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
    found = getattr(config, "eos_token_id", None) if found is None else found
    return [] if found is None else [found] if isinstance(found, int) else list(found)
