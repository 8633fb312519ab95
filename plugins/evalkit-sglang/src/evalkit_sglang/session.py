"""The session: prompts and requests in SGLang's hands, and its answers as they arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from evalkit.errors import ConfigError, ModelError
from evalkit.model import Model
from evalkit.prompts import Decode
from evalkit.pump import Pump
from evalkit.pumped import PumpedSession
from evalkit.scoring.prompts import Prompt, PromptLimits, PromptScores
from evalkit.scoring.waves import Waves
from evalkit.tokenizers import load_tokenizer
from evalkit.writing import Writing as AnyWriting
from evalkit_sglang.arguments import ADAPTER
from evalkit_sglang.engine import SGLang
from evalkit_sglang.replies import Reply, prompt_scores, scoring_arguments
from evalkit_sglang.sampling import SEED_IGNORED, sampling_params
from evalkit_sglang.writing import Writing

DESCRIBED = (
    *("dtype", "quantization", "kv_cache_dtype", "tp_size", "pp_size", "dp_size", "device"),
    *("attention_backend", "sampling_backend", "page_size", "disable_radix_cache"),
    *("chunked_prefill_size", "enable_deterministic_inference"),
)
"""What is told of SGLang's arguments, as it has resolved them."""
MOST_NEXT_IDS = 1024


class SGLangSession(PumpedSession):
    """A session over a running `sglang.Engine`, which it owns."""

    def __init__(self, engine: SGLang, model: Model, library: Any) -> None:
        self.engine, self.library = engine, library
        self._sent = 0
        self.pump: Pump[Reply] = Pump(library.loop)
        try:
            self.information: dict[str, Any] = library.get_server_info()
            # A prompt may hold a token more than a text, of which the last one is not read.
            limit = self.information["max_req_input_len"] - 1
            tokenizer, budget = load_tokenizer(model), engine.scored_tokens
            super().__init__(tokenizer, pump=self.pump, max_length=limit, batch_tokens=budget)
        except BaseException:
            self.close()
            raise
        self.rows = engine.queued
        self.adapter = None if model.adapter is None else ADAPTER
        self.checkpoint = model.path
        self.seed_note = None if self.information.get("enable_deterministic_inference") else SEED_IGNORED
        block = 0 if self.information.get("disable_radix_cache") else self.information.get("page_size") or 1
        self.waves = Waves() if block else None
        self.limits = PromptLimits(next_ids=MOST_NEXT_IDS, block=block, in_flight=budget)

    # ── work ────────────────────────────────────────────────────────────────────────────────────────────
    def ask_prompt(self, prompt: Prompt) -> AsyncIterator[Reply]:
        """Have a prompt read."""
        return self._replies(scoring_arguments(prompt))

    def scores_in(self, prompt: Prompt, reply: Reply) -> PromptScores:
        """The scores in SGLang's answer."""
        return prompt_scores(prompt, reply)

    def ask_texts(self, work: Decode) -> list[tuple[AnyWriting, AsyncIterator[Reply]]]:
        """Have each sample written."""
        request, ends = work.item.request, self.tokenizer.eos_token_ids
        asked = [sampling_params(request, sample=sample, ends=ends) for sample in range(request.n)]
        texts = [Writing(work, sample, self.spell) for sample in range(request.n)]
        return [(text, self._replies(text.arguments(params))) for text, params in zip(texts, asked, strict=True)]

    async def _replies(self, arguments: dict[str, Any]) -> AsyncIterator[Reply]:
        self._sent += 1
        rid, finished = f"evalkit-{self._sent}", False
        if self.adapter is not None:
            arguments["lora_path"] = self.adapter
        try:
            answer = await self.library.async_generate(rid=rid, **arguments)
            if not arguments.get("stream"):
                finished = True
                yield answer
                return
            async for reply in answer:
                finished = reply["meta_info"]["finish_reason"] is not None
                yield reply
        finally:
            if not finished:
                # Nobody waits for it any more; SGLang forgives what it has forgotten.
                self.library.tokenizer_manager.abort_request(rid)

    # ── weights and memory ──────────────────────────────────────────────────────────────────────────────
    def reload(self, path: str) -> None:
        """Replace the weights by those in `path`, a checkpoint of the same shape. Raises ModelError."""
        success, message, *_ = self.library.update_weights_from_disk(path)
        if not success:
            raise ModelError(f"sglang cannot load the weights of {path!r}: {' '.join(str(message).split())}")
        self.checkpoint = path

    def sleep(self) -> None:
        """Give the GPU's memory back until `wake`. Raises ConfigError where SGLang was not started for it."""
        if not self.engine.enable_memory_saver:
            raise ConfigError("sglang can sleep only where it was told so. Give --engine-arg enable_memory_saver=true")
        self.library.release_memory_occupation()

    def wake(self) -> None:
        """Take the GPU's memory again; weights that were given up are to be loaded by `reload`."""
        self.library.resume_memory_occupation()

    def gc(self) -> None:
        """Release cached prefixes."""
        if self.waves is not None:
            self.waves.forget()
        self.library.flush_cache()

    def close(self) -> None:
        """End SGLang's processes. May be called more than once."""
        if self.library is not None:
            self.pump.close()
            self.library.shutdown()
            self.library = None

    def describe_execution(self) -> dict[str, Any]:
        """SGLang's version, and its arguments as it has resolved them."""
        found = {name: self.information.get(name) for name in DESCRIBED}
        return {
            "backend": "sglang",
            "sglang": self.information.get("version"),
            "checkpoint": self.checkpoint,
            "max_length": self.max_length,
            "scoring": "behind cached prefixes" if self.limits.block else "prompt by prompt",
            **{name: value for name, value in found.items() if isinstance(value, (str, int, float))},
        }
