"""The session: token-level scoring and generation with a Transformers model."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evalkit import decoding
from evalkit.generation_configs import checkpoint_processors
from evalkit.model import Model
from evalkit.requests import GenerationOutput
from evalkit.scoring import ScoredTokens, Scores, Span
from evalkit.scoring.planner import TreeBatch
from evalkit.sessions import DecodeRequest, TokenSession
from evalkit.tokenizers import context_length, load_tokenizer
from evalkit_transformers import continuous, decode, upstream
from evalkit_transformers.engine import Transformers
from evalkit_transformers.head import SelectiveHead
from evalkit_transformers.load import (
    decoder_start,
    default_batch_tokens,
    is_seq2seq,
    load_model,
    stretched_from,
)
from evalkit_transformers.memory import keep_freed_memory, memory_errors, padding, return_freed_memory
from evalkit_transformers.packed import pack_weights
from evalkit_transformers.tree import Tree


class TransformersSession(TokenSession):
    """A loaded model. Rows are padded on the right to score, on the left to generate."""

    def __init__(self, engine: Transformers, model: Model) -> None:
        self.model: Any = load_model(engine, model)
        config, generation = self.model.config, self.model.generation_config
        self.attn_implementation = getattr(config, "_attn_implementation", None)
        """The model's own; while a forest is scored another one is installed."""
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
        self.stretched_from = stretched_from(config)
        self.processors = checkpoint_processors(generation)
        self.head = SelectiveHead(self.model)
        self.accepts = set(inspect.signature(self.model.forward).parameters)
        self._closed = False
        with torch.inference_mode():
            self.packed = engine.pack_weights and pack_weights(
                self.model, lambda: self._probe(torch.tensor([[0, 1, 0]]))
            )
            self.head.may_pack = self.packed
            self.head.probe(self._probe)
        self.tree = Tree(self.model)
        self.shares_prefixes = not self.is_encoder_decoder and engine.share_prefixes and self.tree.agrees(self)
        self.uses_manager = upstream.is_wanted(self, engine.scheduler)
        self.joins_running = self.shares_prefixes and not self.uses_manager
        self.draft_tokens = engine.draft_tokens
        self.scheduler_options = engine.scheduler_options
        if self.uses_manager:
            upstream.make_config(self.scheduler_options)
        if self.device.type == "cpu":
            # In this order: what loading has freed is not needed again.
            return_freed_memory()
            keep_freed_memory()

    # ── scoring ─────────────────────────────────────────────────────────────────────────────────────────
    def score_batch(self, spans: list[Span]) -> list[ScoredTokens]:
        """Score spans in one forward pass; logits only at the scored positions."""
        long = [len(span.fed) > self.stretched_from for span in spans]
        if any(long) and not all(long):
            # The longest text of a pass decides on the angles of all.
            kinds = {kind: [s for s, is_long in zip(spans, long, strict=True) if is_long is kind] for kind in set(long)}
            scored = {kind: iter(self.score_batch(part)) for kind, part in kinds.items()}
            return [next(scored[kind]) for kind in long]
        counts = [len(span.targets) for span in spans]
        rows = torch.repeat_interleave(torch.arange(len(spans)), torch.tensor(counts))
        positions = torch.cat([torch.arange(span.start - 1, len(span.ids) - 1) for span in spans])
        targets = torch.tensor([token for span in spans for token in span.targets], device=self.device)
        own_row = torch.arange(len(targets), device=self.device)
        with torch.inference_mode(), memory_errors(self.device):
            inputs = self._inputs(spans)
            tops = max(span.tops for span in spans)
            scores = self.head.score(
                lambda: self.forward(**inputs).logits, (rows, positions), own_row, targets, tops=tops
            )
        ends = np.cumsum(counts).tolist()
        return [scores.part(end - count, end) for end, count in zip(ends, counts, strict=True)]

    def score_forest(self, batches: Iterator[TreeBatch]) -> Iterator[tuple[TreeBatch, Scores]]:
        """Score tree batches, each one packed row; what they share stays in the tree's cache."""
        with self.tree.installed():
            for batch in batches:
                with torch.inference_mode(), memory_errors(self.device), self.tree.running(batch):
                    scores = self._score_tree(batch)
                yield batch, scores

    def _score_tree(self, batch: TreeBatch) -> Scores:
        rows = torch.from_numpy(batch.rows)
        return self.head.score(
            lambda: self._tree_forward(batch),
            (torch.zeros_like(rows), rows),
            torch.from_numpy(batch.target_rows).to(self.device),
            torch.from_numpy(batch.targets).long().to(self.device),
            tops=batch.tops,
        )

    def tree_logits(self, batch: TreeBatch) -> Tensor:
        """Logits [rows, vocabulary] at the rows of a batch that is running."""
        self.count_computed(len(batch.tokens))
        rows = torch.from_numpy(batch.rows)
        return self.head.logits(lambda: self._tree_forward(batch), torch.zeros_like(rows), rows)

    def _tree_forward(self, batch: TreeBatch) -> Tensor:
        """One pass over a batch as one packed row; its logits."""
        more = padding(len(batch.tokens), self.device)
        self.count_computed(more)
        ids, positions = (np.pad(side, (0, more)) for side in (batch.tokens.astype(np.int64), batch.positions))
        inputs = {"input_ids": torch.from_numpy(ids)[None], "position_ids": torch.from_numpy(positions)[None]}
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        logits: Tensor = self.forward(**inputs, use_cache=False).logits
        return logits

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

    def _probe(self, ids: Tensor) -> Tensor:
        """Logits [rows, length, vocabulary] of a plain pass."""
        ids = ids.to(self.device)
        decoder = {"decoder_input_ids": ids} if self.is_encoder_decoder else {}
        mask = torch.ones_like(ids)
        logits: Tensor = self.forward(input_ids=ids, attention_mask=mask, use_cache=False, **decoder).logits
        return logits

    # ── generation ──────────────────────────────────────────────────────────────────────────────────────
    def decode_stream(
        self, requests: list[DecodeRequest], *, batch_size: int | None = None
    ) -> Iterator[tuple[int, GenerationOutput]]:
        """Generate, continuously where prefixes can be shared, else in batches of like length."""
        yield from decode.stream(self, requests, batch_size)

    def decode_live(self, feed: decoding.Feed, wants_parts: Callable[[int], bool]) -> decoding.LiveAnswers:
        """Generate for a feed."""
        rows = decode.ROWS.get(self.device.type, 16)
        yield from decoding.live_with_backoff(
            lambda left, rows: continuous.live(self, left, rows, wants_parts), feed, rows
        )

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────
    def gc(self) -> None:
        """Give cached memory back to the device."""
        self.forget_prefix()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "cpu":
            return_freed_memory()

    def close(self) -> None:
        """Release the model."""
        if not self._closed:
            self._closed = True
            del self.model, self.head, self.tree
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
            "attn_implementation": self.attn_implementation,
            "quantization": str(getattr(method, "value", method)) if quantization else None,
            "max_length": self.max_length,
            "batch_tokens": self.batch_tokens,
            "weights": "packed" if self.packed else "plain",
            "logits": "scored positions" if self.head.works else "all positions",
            "scoring": "prefix forest" if self.shares_prefixes else "padded rows",
            "generation": self._scheduling(),
            "commit": getattr(config, "_commit_hash", None),
        }

    def _scheduling(self) -> str:
        if self.uses_manager:
            return "Transformers' continuous batching"
        if self.shares_prefixes:
            return "continuous, guessing ahead" if self.draft_tokens else "continuous"
        return "fixed batches"


def _as_list(value: int | list[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)
