"""The session: token-level scoring and generation with a Transformers model."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from evalkit.model import Model
from evalkit.requests import GenerationOutput
from evalkit.scoring import ScoredTokens, Span
from evalkit.sessions import DecodeRequest, TokenSession
from evalkit.tokenizers import load_tokenizer
from evalkit_transformers import decode
from evalkit_transformers.engine import Transformers
from evalkit_transformers.head import SelectiveHead, token_logprobs
from evalkit_transformers.load import context_length, decoder_start, default_batch_tokens, is_seq2seq, load_model
from evalkit_transformers.memory import memory_errors


class TransformersSession(TokenSession):
    """A loaded model. Rows are padded on the right to score, on the left to generate."""

    def __init__(self, engine: Transformers, model: Model) -> None:
        self.model: Any = load_model(engine, model)
        config, generation = self.model.config, self.model.generation_config
        tokenizer = load_tokenizer(
            replace(model, revision=model.revision or engine.revision),
            trust_remote_code=engine.trust_remote_code,
            eos_token_ids=_as_list(generation.eos_token_id if generation else None),
        )
        self.hf_tokenizer: Any = tokenizer.hf
        self.device: torch.device = self.model.device
        super().__init__(
            tokenizer,
            max_length=model.max_length or context_length(config, tokenizer.model_max_length),
            batch_tokens=engine.batch_tokens or default_batch_tokens(self.model, self.device),
        )
        self.is_encoder_decoder = is_seq2seq(config)
        if self.is_encoder_decoder:
            self.decoder_start = decoder_start(config, generation)
        self.head = SelectiveHead(self.model)
        self.accepts = set(inspect.signature(self.model.forward).parameters)
        self._closed = False
        with torch.inference_mode():
            self.head.probe(lambda ids: self.forward(**self._probe_inputs(ids.to(self.device))).logits)

    # ── scoring ─────────────────────────────────────────────────────────────────────────────────────────
    def score_batch(self, spans: list[Span]) -> list[ScoredTokens]:
        """Score spans in one forward pass; logits only at the scored positions."""
        counts = [len(span.targets) for span in spans]
        rows = torch.repeat_interleave(torch.arange(len(spans)), torch.tensor(counts))
        positions = torch.cat([torch.arange(span.start - 1, len(span.ids) - 1) for span in spans])
        targets = torch.tensor([token for span in spans for token in span.targets], device=self.device)
        with torch.inference_mode(), memory_errors(self.device):
            logits = self.logits_at(self._inputs(spans), rows, positions)
            logprobs, greedy = token_logprobs(logits, targets)
        scored, start = [], 0
        for count in counts:
            part = slice(start, start + count)
            scored.append(ScoredTokens(tuple(logprobs[part]), all(greedy[part])))
            start += count
        return scored

    def logits_at(self, inputs: dict[str, Any], rows: Tensor, positions: Tensor) -> Tensor:
        """Logits [len(rows), vocabulary] at the given positions."""
        if self.head.works:
            with self.head.selecting(rows, positions):
                logits: Tensor = self.forward(**inputs).logits[0]
            return logits
        full: Tensor = self.forward(**inputs).logits
        return full[rows.to(full.device), positions.to(full.device)]

    def forward(self, **inputs: Any) -> Any:
        """One pass of the model; inputs that its `forward` does not know are left out."""
        known = {name: value for name, value in inputs.items() if name in self.accepts or "kwargs" in self.accepts}
        return self.model(**known)

    def _inputs(self, spans: list[Span]) -> dict[str, Any]:
        ids, mask = self.pad([span.fed for span in spans], left=False)
        self.count_computed(ids.numel())
        if not self.is_encoder_decoder:
            return {"input_ids": ids, "attention_mask": mask, "use_cache": False}
        source, source_mask = self.pad([span.source or () for span in spans], left=False)
        self.count_computed(source.numel())
        return {
            "input_ids": source,
            "attention_mask": source_mask,
            "decoder_input_ids": ids,
            "decoder_attention_mask": mask,
            "use_cache": False,
        }

    def pad(self, rows: list[tuple[int, ...]], *, left: bool) -> tuple[Tensor, Tensor]:
        """Ids and attention mask, both [rows, longest], on the model's device."""
        longest = max(map(len, rows))
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            place = slice(longest - len(row), longest) if left else slice(0, len(row))
            ids[index, place] = torch.tensor(row, dtype=torch.long)
            mask[index, place] = 1
        return ids.to(self.device), mask.to(self.device)

    def _probe_inputs(self, ids: Tensor) -> dict[str, Any]:
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
        return {**inputs, "decoder_input_ids": ids} if self.is_encoder_decoder else inputs

    # ── generation ──────────────────────────────────────────────────────────────────────────────────────
    def decode_stream(
        self, requests: list[DecodeRequest], *, batch_size: int | None = None
    ) -> Iterator[tuple[int, GenerationOutput]]:
        """Generate in batches of like length; rows leave their batch as they finish."""
        yield from decode.stream(self, requests, batch_size)

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────
    def gc(self) -> None:
        """Give cached memory back to the device."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Release the model."""
        if not self._closed:
            self._closed = True
            del self.model, self.head
            self.gc()

    def describe_execution(self) -> dict[str, Any]:
        """Device, dtype, attention and batching in use."""
        config = self.model.config
        quantization = getattr(config, "quantization_config", None)
        method = getattr(quantization, "quant_method", "yes")
        return {
            "backend": "transformers",
            "architecture": type(self.model).__name__,
            "device": str(self.device),
            "device_map": {k: str(v) for k, v in (getattr(self.model, "hf_device_map", None) or {}).items()} or None,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "attn_implementation": getattr(config, "_attn_implementation", None),
            "quantization": str(getattr(method, "value", method)) if quantization else None,
            "max_length": self.max_length,
            "batch_tokens": self.batch_tokens,
            "logits": "scored positions" if self.head.works else "all positions",
            "commit": getattr(config, "_commit_hash", None),
        }


def _as_list(value: int | list[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)
