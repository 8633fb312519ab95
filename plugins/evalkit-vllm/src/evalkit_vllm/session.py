"""The session: requests go to vLLM's scheduler one by one, and answers come as they are finished."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.errors import EngineDiedError, ModelError, ModelNotFoundError, RequestError, one_line
from evalkit.model import Model
from evalkit.prompts import Answer, Decode, PromptSession, Work, Written
from evalkit.runs.environment import fingerprint
from evalkit.scoring.prompts import Prompt, PromptLimits
from evalkit_vllm import beams, load, wire
from evalkit_vllm.arguments import merged
from evalkit_vllm.engine import VLLM
from evalkit_vllm.library import LoRARequest, VLLMValidationError, current_platform, vllm

LOGIT_BYTES = 1 << 30
"""Memory for logits of scored tokens, where no option bounds it."""
BYTES_A_LOGIT = 12
"""Of one logit: as it is computed, and its log-probability, and room to sort it."""

_open: set[int] = set()
"""The session that is open in this process: the end of one ends what vLLM keeps for all."""


class VLLMSession(PromptSession):
    """A loaded model."""

    def __init__(self, engine: VLLM, model: Model) -> None:
        self.engine, self.model = engine, merged(engine, model)
        self.llm: Any = None
        if _open:
            raise ModelError("vLLM runs one model in a process. Close the session that is open, or use --isolate")
        config = load.read_config(self.model)
        tokenizer = load.make_tokenizer(self.model, None)
        length = load.longest(config, self.model, tokenizer, engine)
        self.llm = load.load_llm(engine, self.model, length)
        _open.add(id(self))
        self.core: Any = self.llm.llm_engine
        self.config: Any = self.core.vllm_config
        defaults = self.config.model_config.try_get_generation_config() or {}
        tokenizer = load.make_tokenizer(self.model, defaults.get("eos_token_id"))
        super().__init__(tokenizer, max_length=length, batch_tokens=self.config.scheduler_config.max_num_batched_tokens)
        penalty = defaults.get("repetition_penalty")
        self.penalties = {"repetition_penalty": float(penalty)} if penalty else {}
        self.lora = LoRARequest("adapter", 1, self.model.adapter) if self.model.adapter else None
        self.checkpoint = self.model.path
        self.rows = 4 * self.config.scheduler_config.max_num_seqs
        self.limits = self._limits()
        self._numbers: dict[str, int] = {}
        self._running: dict[int, tuple[str, Work]] = {}
        self._beams: deque[tuple[int, Decode]] = deque()
        self._count = 0
        self._load_adapter()

    def _load_adapter(self) -> None:
        """Now, not with the first request: a broken one is known at once. Raises ModelError."""
        if self.lora is None:
            return
        try:
            self.core.add_lora(self.lora)
        except (ValueError, RuntimeError, OSError, KeyError, AssertionError) as error:
            self.close()
            raise ModelError(f"vLLM cannot load adapter {self.model.adapter}: {one_line(error)}. Check it") from error

    def _limits(self) -> PromptLimits:
        vocabulary = max(self.config.model_config.get_vocab_size(), 1)
        scored = self.engine.prompt_logprob_tokens or max(LOGIT_BYTES // (BYTES_A_LOGIT * vocabulary), 64)
        cache = self.config.cache_config
        return PromptLimits(wire.MOST_NEXT_IDS, cache.block_size if cache.enable_prefix_caching else 0, scored)

    # ── work ────────────────────────────────────────────────────────────────────────────────────────────
    def send(self, number: int, work: Work) -> None:
        """Queue a request."""
        if isinstance(work, Decode) and work.item.request.num_beams > 1:
            beams.check(work.item.request)
            self._beams.append((number, work))
            return
        if isinstance(work, Prompt) and len(work.ids) > self.max_length:
            # Where likely tokens are wanted the last one is read, too.
            work = replace(work, ids=work.ids[-self.max_length :], start=work.start - len(work.ids) + self.max_length)
        self._add(number, work, cached=True)

    def _add(self, number: int, work: Work, *, cached: bool) -> None:
        ids = work.ids if isinstance(work, Prompt) else work.item.prompt
        if isinstance(work, Prompt):
            params = wire.scoring_params(work, cached=cached)
        else:
            params = wire.decoding_params(
                work, self.tokenizer.eos_token_ids, self.penalties, vocabulary=self.tokenizer.vocab_size
            )
        self._count += 1
        key = str(self._count)
        try:
            self.core.add_request(key, {"prompt_token_ids": list(ids)}, params, lora_request=self.lora)
        except (VLLMValidationError, ValueError, TypeError) as error:
            raise RequestError(f"vLLM does not take this request: {one_line(error)}") from error
        self._numbers[key], self._running[number] = number, (key, work)

    def receive(self) -> Iterable[tuple[int, Answer]]:
        """Let vLLM do a step."""
        if self._beams and not self._running:
            number, work = self._beams.popleft()
            yield from ((number, written) for written in beams.search(self.llm, work, self.tokenizer, self.lora))
            return
        try:
            outputs = self.core.step()
        except (RuntimeError, ValueError, AssertionError, OSError) as error:
            raise EngineDiedError(
                f"vLLM stopped: {one_line(error)}. What was answered is kept; if memory ran out, lower max_num_seqs"
            ) from error
        for output in outputs:
            if output.request_id in self._numbers:
                yield from self._answers(self._numbers[output.request_id], output)

    def _answers(self, number: int, output: Any) -> Iterator[tuple[int, Answer]]:
        _, work = self._running[number]
        if output.finished:
            self._forget(number)
        if isinstance(work, Decode):
            yield from ((number, written) for written in self._written(work, output))
        elif work.scored and (output.num_cached_tokens or 0) >= work.start:
            # An earlier text goes on like this one, so that scored tokens were in the cache, without their scores.
            self._add(number, work, cached=False)
        else:
            yield number, wire.read_scores(work, output)

    def _written(self, work: Decode, output: Any) -> Iterator[Written]:
        for written in output.outputs:
            new = len(written.token_ids)
            # The prompt counts with the first sample's last part; a sample's last token is not fed.
            ended = written.finish_reason is not None
            prompt = len(work.item.prompt) - (output.num_cached_tokens or 0) if ended and not written.index else 0
            computed = prompt + new - int(ended)
            yield wire.read_written(self.tokenizer, work.item.request, written, computed=computed)

    def _forget(self, number: int) -> str:
        key, _ = self._running.pop(number)
        del self._numbers[key]
        return key

    def withdraw(self, number: int) -> None:
        """Abort a request."""
        self._beams = deque(pair for pair in self._beams if pair[0] != number)
        if number in self._running:
            self.core.abort_request([self._forget(number)])

    # ── for trainers ────────────────────────────────────────────────────────────────────────────────────
    def reload(self, path: str) -> None:
        """Take the weights of another checkpoint of the same model. Raises ModelNotFoundError, ModelError."""
        if not Path(path).exists():
            raise ModelNotFoundError(f"checkpoint {path} does not exist. Save it before it is reloaded")
        try:
            self.llm.collective_rpc("reload_weights", kwargs={"weights_path": path})
        except (ValueError, RuntimeError, KeyError, OSError, AssertionError, NotImplementedError) as error:
            raise ModelError(f"vLLM cannot reload {path}: {one_line(error)}. Open a new session for it") from error
        self.llm.reset_prefix_cache()
        self.checkpoint = path

    def sleep(self, level: int = 1) -> None:
        """Give the GPU's memory back until `wake`: 1 keeps the weights in memory, 2 forgets them. Raises ModelError."""
        if not self.engine.enable_sleep_mode:
            raise ModelError("vLLM sleeps where it was told before. Use --engine-arg enable_sleep_mode=true, on a GPU")
        self.llm.sleep(level)

    def wake(self) -> None:
        """Take the memory again; after a sleep of level 2, `reload` a checkpoint."""
        self.llm.wake_up()

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────
    def gc(self) -> None:
        """Forget what the prefix cache holds."""
        if not self._running:
            self.llm.reset_prefix_cache()

    def close(self) -> None:
        """Release the model."""
        if self.llm is None:
            return
        self.core.engine_core.shutdown()
        self.llm = self.core = None
        gc.collect()
        load.clean_up()
        _open.discard(id(self))

    def describe_execution(self) -> dict[str, Any]:
        """Device, types, cache and batching in use, and which checkpoint's weights."""
        config = self.config
        parallel, scheduler, cache = config.parallel_config, config.scheduler_config, config.cache_config
        return {
            "backend": "vllm",
            "vllm": vllm.__version__,
            "device": current_platform.device_type,
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "quantization": config.model_config.quantization,
            "kv_cache_dtype": str(cache.cache_dtype),
            "block_size": cache.block_size,
            "prefix_caching": bool(cache.enable_prefix_caching),
            "tensor_parallel_size": parallel.tensor_parallel_size,
            "pipeline_parallel_size": parallel.pipeline_parallel_size,
            "max_length": self.max_length,
            "max_num_seqs": scheduler.max_num_seqs,
            "max_num_batched_tokens": scheduler.max_num_batched_tokens,
            "enforce_eager": bool(config.model_config.enforce_eager),
            "checkpoint": fingerprint(self.checkpoint),
            "scoring": "next tokens and prompt log-probabilities"
            + (" behind the prefix cache" if self.limits.block else ""),
        }
