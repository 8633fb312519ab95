"""The session: prompts and requests in TensorRT LLM's hands, and its answers as they arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from evalkit.errors import ConfigError
from evalkit.model import Model
from evalkit.prompts import Decode
from evalkit.pump import Pump
from evalkit.pumped import PumpedSession
from evalkit.scoring.prompts import Prompt, PromptLimits, PromptScores
from evalkit.tokenizers import context_length, load_tokenizer
from evalkit.writing import Writing as AnyWriting
from evalkit_tensorrt_llm.arguments import ADAPTER, RESERVED
from evalkit_tensorrt_llm.engine import TensorRTLLM
from evalkit_tensorrt_llm.replies import prompt_scores
from evalkit_tensorrt_llm.sampling import SEED_IGNORED, scoring_params, writing_params
from evalkit_tensorrt_llm.writing import Writing

MOST_NEXT_IDS = 1 << 20
"""Logits behind a prompt are those of the whole vocabulary."""


class TensorRTLLMSession(PumpedSession):
    """A session over a loaded `tensorrt_llm.LLM`, which it owns."""

    def __init__(self, engine: TensorRTLLM, model: Model, library: Any) -> None:
        from tensorrt_llm import SamplingParams, __version__
        from tensorrt_llm.executor import LoRARequest

        self.engine, self.library, self.version = engine, library, str(__version__)
        self._params = SamplingParams
        self._sent = 0
        self.pump: Pump[Any] = Pump()
        try:
            tokenizer, budget = load_tokenizer(model), engine.logit_rows
            limit = library.args.max_seq_len or _own_length(model, tokenizer.model_max_length)
            super().__init__(tokenizer, pump=self.pump, max_length=limit - RESERVED, batch_tokens=budget)
        except BaseException:
            self.close()
            raise
        self.rows = engine.queued
        self.adapter = None if model.adapter is None else LoRARequest(*ADAPTER, model.adapter)
        self.limits = PromptLimits(next_ids=MOST_NEXT_IDS, in_flight=budget, whole=True)
        self.seed_note = None if engine.sampler_type == "TRTLLMSampler" else SEED_IGNORED

    # ── work ────────────────────────────────────────────────────────────────────────────────────────────
    def ask_prompt(self, prompt: Prompt) -> AsyncIterator[Any]:
        """Have a prompt read."""
        self._sent += 1
        # A prompt whose tokens are scored needs logits of all of them: it must not find its beginning in the cache.
        salt = f"evalkit-{self._sent}" if prompt.scored and self.engine.enable_block_reuse else None
        end = min(self.tokenizer.eos_token_ids, default=-1)
        return self._replies(prompt.ids, scoring_params(prompt, end), cache_salt=salt)

    def scores_in(self, prompt: Prompt, reply: Any) -> PromptScores:
        """The scores in an answer."""
        return prompt_scores(prompt, reply)

    def ask_texts(self, work: Decode) -> list[tuple[AnyWriting, AsyncIterator[Any]]]:
        """Have each sample written."""
        request, ends, sampler = work.item.request, self.tokenizer.eos_token_ids, self.engine.sampler_type
        asked = [writing_params(request, sample=i, ends=ends, sampler=sampler) for i in range(request.n)]
        texts = [Writing(work, sample, self.spell) for sample in range(request.n)]
        return [
            (text, self._replies(work.item.prompt, params, streaming=text.in_parts))
            for text, params in zip(texts, asked, strict=True)
        ]

    async def _replies(self, ids: tuple[int, ...], params: dict[str, Any], **asked: Any) -> AsyncIterator[Any]:
        asked = {name: value for name, value in (*asked.items(), ("lora_request", self.adapter)) if value}
        answer = self.library.generate_async(list(ids), sampling_params=self._params(**params), **asked)
        try:
            if not asked.get("streaming"):
                yield await answer.aresult()
                return
            async for reply in answer:
                yield reply
        finally:
            if not answer.finished:
                answer.abort()

    # ── weights and memory ──────────────────────────────────────────────────────────────────────────────
    def reload(self, path: str) -> None:
        """Refused: the library replaces weights only under Ray. Raises ConfigError."""
        raise ConfigError(
            f"tensorrt-llm cannot replace weights in place: close the session, and load {path!r} in a new one"
        )

    def gc(self) -> None:
        """The library keeps its cache's memory for its whole life."""

    def close(self) -> None:
        """Unload the model. May be called more than once."""
        if self.library is not None:
            self.pump.close()
            self.library.shutdown()
            self.library = None

    def describe_execution(self) -> dict[str, Any]:
        """The library's version, and what it was told."""
        engine = self.engine
        return {
            "backend": "tensorrt-llm",
            "tensorrt_llm": self.version,
            "dtype": engine.dtype or "auto",
            "kv_cache_dtype": engine.kv_cache_dtype or "auto",
            "tensor_parallel_size": engine.tensor_parallel_size or 1,
            "pipeline_parallel_size": engine.pipeline_parallel_size or 1,
            "sampler_type": engine.sampler_type,
            "enable_block_reuse": engine.enable_block_reuse,
            "max_length": self.max_length,
            "scoring": "logits of whole prompts",
        }


def _own_length(model: Model, tokenizer_length: int) -> int:
    from transformers import AutoConfig

    return context_length(AutoConfig.from_pretrained(model.path, revision=model.revision), tokenizer_length)
