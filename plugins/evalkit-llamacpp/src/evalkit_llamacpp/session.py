"""The session: token-level scoring and generation with a GGUF model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import llama_cpp

from evalkit import decoding
from evalkit.errors import ConfigError, ModelError
from evalkit.model import Model
from evalkit.requests import GenerationOutput
from evalkit.scoring import ScoredTokens, Scores, Span, Tokenizer
from evalkit.scoring.collect import Collector
from evalkit.scoring.forest import SpanTable, build_forest
from evalkit.scoring.planner import TreeBatch, plan_forest
from evalkit.sessions import DecodeRequest, TokenSession
from evalkit.tokenizers import load_template, load_tokenizer
from evalkit_llamacpp import forest
from evalkit_llamacpp.context import MOST_SEQUENCES, Context, flash_attention
from evalkit_llamacpp.decoder import LlamaCppDecoder
from evalkit_llamacpp.engine import LlamaCpp
from evalkit_llamacpp.load import description, extra_buffers, is_float32, load_model, metadata, uses_gpu
from evalkit_llamacpp.tokenizer import CLOSED, GGUFTokenizer

DEFAULT_LENGTH = 8192
ROWS = {"cpu": 32, "gpu": 128}
DRAFTED_PASS = {"cpu": 16, "gpu": 128}
"""Tokens in a pass up to which guesses are worth their cost."""


class LlamaCppSession(TokenSession):
    """A loaded model, and a context that is made as large as the work at hand needs."""

    joins_running = True

    def __init__(self, engine: LlamaCpp, model: Model) -> None:
        self.engine = engine
        self._context: Context | None = None
        self.device = "gpu" if uses_gpu(engine) else "cpu"
        self.model: Any = load_model(engine, model, on_gpu=self.device == "gpu")
        self.is_exact = is_float32(self.model)
        """Whether the weights are float32, so that rounding elsewhere would show."""
        try:
            super().__init__(self._tokenizer(model), max_length=self._max_length(model), batch_tokens=engine.n_batch)
        except BaseException:
            self.close()
            raise
        self.keeps_state = bool(
            llama_cpp.llama_model_is_recurrent(self.model) or llama_cpp.llama_model_is_hybrid(self.model)
        )
        self.sequences = ROWS[self.device] + 1 if self.keeps_state else MOST_SEQUENCES
        """Room for the state of each is made beforehand."""
        # What a state has read cannot be taken back.
        self.draft_tokens = 0 if self.keeps_state else engine.draft_tokens
        self.shares_prefixes = engine.share_prefixes and not self.keeps_state
        self._cells = 0

    def _tokenizer(self, model: Model) -> Tokenizer:
        own = GGUFTokenizer(self.model, load_template(model.chat_template))
        if model.tokenizer_path is None:
            return own
        other = load_tokenizer(model, eos_token_ids=sorted(own.eos_token_ids), file_template=own.chat_template)
        if other.vocab_size > own.vocab_size:
            raise ConfigError(
                f"tokenizer {model.tokenizer_path} has {other.vocab_size} tokens, but the model {own.vocab_size}. "
                "Check --model-arg tokenizer_path="
            )
        return other

    def _max_length(self, model: Model) -> int:
        trained: int = llama_cpp.llama_model_n_ctx_train(self.model)
        return model.max_length or self.engine.n_ctx or min(trained, DEFAULT_LENGTH)

    # ── memory ──────────────────────────────────────────────────────────────────────────────────────────
    def make_room(self, longest: int, total: int) -> None:
        """Have a context for texts of so many tokens; a larger one than before replaces it."""
        needed = longest + self.engine.n_batch
        self._cells = max(needed, min(total, self.max_length))
        if self._context is not None and self._context.cells < self._cells:
            self._free_context()

    def context(self) -> Context:
        """The context, emptied."""
        if self._context is None:
            # In steps, so that tasks of like lengths keep one context.
            cells = -(-self._cells // 256) * 256
            self._context = Context(
                self._opened(),
                self.engine,
                cells,
                exact=self.is_exact,
                on_gpu=self.device == "gpu",
                sequences=self.sequences,
            )
        self._context.clear()
        return self._context

    def _free_context(self) -> None:
        self.forget_prefix()
        if self._context is not None:
            self._context.close()
            self._context = None

    # ── scoring ─────────────────────────────────────────────────────────────────────────────────────────
    def score_forest(self, batches: Iterator[TreeBatch]) -> Iterator[tuple[TreeBatch, Scores]]:
        """Score tree batches; what they share stays in the cache."""
        context = self.context()
        for batch in batches:
            yield batch, forest.score(context, batch, self.engine.n_batch)

    def score_batch(self, spans: list[Span]) -> list[ScoredTokens]:
        """Score spans one after another, sharing nothing."""
        found: list[ScoredTokens] = []
        for span in spans:
            tree = build_forest(SpanTable.of([span]))
            collector = Collector(tree)
            for batch, scores in self.score_forest(plan_forest(tree, self.engine.n_batch)):
                self.count_computed(len(batch.tokens))
                found += [scored for _, scored in collector.add(batch, scores)]
        return found

    # ── generation ──────────────────────────────────────────────────────────────────────────────────────
    def decode_stream(
        self, requests: list[DecodeRequest], *, batch_size: int | None = None
    ) -> Iterator[tuple[int, GenerationOutput]]:
        """Generate continuously; a prefix that prompts share is read once."""
        refused, plain = decoding.without_beams(requests)
        yield from refused
        rows = min(batch_size or ROWS[self.device], self.sequences - 1)
        yield from decoding.with_backoff(self._stream, plain, rows)

    def _stream(self, items: list[DecodeRequest], rows: int) -> Iterator[tuple[int, GenerationOutput]]:
        decoder = LlamaCppDecoder(self)
        yield from decoding.stream(decoder, self.tokenizer, items, self._limits(decoder, rows))

    def decode_live(self, feed: decoding.Feed, wants_parts: Callable[[int], bool]) -> decoding.LiveAnswers:
        """Generate for a feed."""

        def run(left: decoding.Feed, rows: int) -> decoding.LiveAnswers:
            decoder = LlamaCppDecoder(self)
            return decoding.live(decoder, self.tokenizer, left, self._limits(decoder, rows), wants_parts)

        yield from decoding.live_with_backoff(run, feed, ROWS[self.device])

    def _limits(self, decoder: LlamaCppDecoder, rows: int) -> decoding.Limits:
        return decoding.Limits(
            rows=rows,
            admitted_tokens=self.engine.n_batch,
            draft_tokens=self.draft_tokens,
            drafted_pass=DRAFTED_PASS[self.device],
            cache_tokens=decoder.context.cells,
        )

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────
    def gc(self) -> None:
        """Give the cache's memory back; the next call makes a new one."""
        self._free_context()

    def close(self) -> None:
        """Release the model."""
        self._free_context()
        if self.model is not None:
            if isinstance(tokenizer := getattr(self, "tokenizer", None), GGUFTokenizer):
                tokenizer.close()
            llama_cpp.llama_model_free(self.model)
            self.model = None

    def _opened(self) -> Any:
        """The model's handle. Raises ModelError once closed."""
        if self.model is None:
            raise ModelError(CLOSED)
        return self.model

    def describe_execution(self) -> dict[str, Any]:
        """Device, quantization, cache and batching in use. Raises ModelError once closed."""
        engine, handle = self.engine, self._opened()
        return {
            "backend": "llama.cpp",
            "llama_cpp_python": version("llama-cpp-python"),
            "architecture": metadata(handle, "general.architecture"),
            "model": description(handle),
            "device": self.device,
            "max_length": self.max_length,
            "n_batch": engine.n_batch,
            "n_ubatch": min(engine.n_ubatch, engine.n_batch),
            "flash_attn": flash_attention(engine, self.is_exact),
            "extra_buffers": extra_buffers(engine),
            "scoring": "prefix forest" if self.shares_prefixes else "one text at a time",
            "generation": "continuous, guessing ahead" if self.draft_tokens else "continuous",
        }
