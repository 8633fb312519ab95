"""The model, and results that come a token at a time."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np

from evalkit.scoring.logits import log_softmax
from evalkit.testing.fake import next_scores
from tensorrt_llm.params import SamplingParams

RECORD = json.loads(Path(__file__).parents[2].joinpath("tensorrt_llm_api.json").read_text(encoding="utf-8"))
ARGUMENTS = {
    name for cls in ("BaseLlmArgs", "TorchLlmArgs") for name in RECORD["fields"][f"tensorrt_llm.llmapi.llm_args:{cls}"]
}
VOCABULARY = 512
BLOCK = 4


class Tensor:
    """As much of a torch tensor as is used."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.shape = values.shape

    def __getitem__(self, key: Any) -> Tensor:
        return Tensor(self.values[key])

    def reshape(self, *shape: int) -> Tensor:
        """The same numbers in another shape."""
        return Tensor(self.values.reshape(*shape))

    def float(self) -> Tensor:
        """In float32."""
        return Tensor(self.values.astype(np.float32))

    def cpu(self) -> Tensor:
        """In the machine's memory."""
        return self

    def numpy(self) -> np.ndarray:
        """As an array."""
        return self.values


@dataclass(slots=True)
class Logprob:
    """`tensorrt_llm.executor.result.Logprob`."""

    logprob: float
    rank: int | None = None


@dataclass(slots=True)
class CompletionOutput:
    """`tensorrt_llm.executor.result.CompletionOutput`."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    finish_reason: str | None = None
    generation_logits: Tensor | None = None


class LLM:
    """`tensorrt_llm.LLM`; keeps what it was asked in `asked`, for tests."""

    def __init__(self, **kwargs: Any) -> None:
        if unknown := sorted(set(kwargs) - ARGUMENTS):
            raise ValueError(f"LLM got invalid argument: {unknown[0]}")
        if not Path(kwargs["model"]).exists():
            raise OSError(f"{kwargs['model']} is not a local folder")
        self.given = kwargs
        self.args = SimpleNamespace(max_seq_len=kwargs.get("max_seq_len"))
        self.asked: list[dict[str, Any]] = []
        self.cached: set[tuple[Any, ...]] = set()
        self.running = 0

    def generate_async(
        self,
        inputs: list[int],
        sampling_params: SamplingParams | None = None,
        lora_request: Any = None,
        streaming: bool = False,
        cache_salt: str | None = None,
    ) -> RequestOutput:
        """Write behind `inputs`; must be called on a running loop."""
        asyncio.get_running_loop()
        assert sampling_params is not None
        assert not streaming or not sampling_params.detokenize
        self.asked.append({name: value for name, value in locals().items() if name != "self"})
        longest = self.args.max_seq_len or 256
        if len(inputs) + sampling_params.max_tokens > longest:
            raise ValueError(f"The sum of prompt length ({len(inputs)}) and max_tokens should not exceed {longest}")
        cached = self._read((cache_salt, *inputs))
        return RequestOutput(self, inputs, sampling_params, cached, streaming)

    def _read(self, salted: tuple[Any, ...]) -> int:
        """Tokens in reused blocks; at least one is read anew."""
        if not self.given["kv_cache_config"].enable_block_reuse:
            return 0
        ends = range(BLOCK, len(salted) - 1, BLOCK)
        found = max((end for end in ends if salted[: end + 1] in self.cached), default=0)
        self.cached |= {salted[: end + 1] for end in ends}
        return found

    def shutdown(self) -> None:
        """Unload; what still runs would be lost."""
        assert not self.running


class RequestOutput:
    """`tensorrt_llm.RequestOutput`: awaited, or read part by part."""

    def __init__(self, llm: LLM, prompt: list[int], params: SamplingParams, cached: int, streaming: bool) -> None:
        self.llm, self.prompt, self.params, self.cached_tokens = llm, prompt, params, cached
        self.outputs = [CompletionOutput()]
        self.finished, self._streaming = False, streaming
        self.context_logits: Tensor | None = None
        heeds_seed = llm.given.get("sampler_type") == "TRTLLMSampler"
        self._chance = random.Random(params.seed if heeds_seed else None)
        llm.running += 1

    def abort(self) -> None:
        """End it; what there is stays."""
        self._finish("cancelled")

    async def aresult(self) -> Self:
        """Wait for the end."""
        while not self.finished:
            await self._step()
        return self

    def __aiter__(self) -> Self:
        assert self._streaming
        return self

    async def __anext__(self) -> Self:
        if self.finished:
            raise StopAsyncIteration
        await self._step()
        return self

    async def _step(self) -> None:
        await asyncio.sleep(0)
        if self.finished:
            return
        output, params = self.outputs[0], self.params
        logits = self._logits([*self.prompt, *output.token_ids])
        token = self._choose(logits)
        output.token_ids.append(token)
        logprobs = log_softmax(logits[None].astype(np.float32))[0]
        if params.logprobs:
            order = np.argsort(-logprobs, kind="stable").tolist()
            likely = [*order[: params.logprobs], token]
            output.logprobs.append({one: Logprob(float(logprobs[one]), order.index(one) + 1) for one in likely})
        if params.return_context_logits and self.context_logits is None:
            ends = range(self.cached_tokens + 1, len(self.prompt) + 1)
            self.context_logits = Tensor(np.stack([self._logits(self.prompt[:end]) for end in ends]))
        if params.return_generation_logits and self.llm.given["gather_generation_logits"]:
            output.generation_logits = Tensor(logits[None])
        self._end(token)

    def _end(self, token: int) -> None:
        output, params = self.outputs[0], self.params
        if token == params.end_id:
            self._finish("stop")
        elif token in (params.stop_token_ids or ()):
            if not params.include_stop_str_in_output:
                output.token_ids.pop()
            self._finish("stop")
        elif len(output.token_ids) >= params.max_tokens:
            self._finish("length")

    def _finish(self, reason: str) -> None:
        if not self.finished:
            self.llm.running -= 1
            self.finished, self.outputs[0].finish_reason = True, reason

    def _logits(self, ids: list[int]) -> np.ndarray:
        return np.array(next_scores(ids, VOCABULARY), np.float16)

    def _choose(self, logits: np.ndarray) -> int:
        params, row = self.params, logits.astype(np.float64)
        if len(self.outputs[0].token_ids) < (params.min_tokens or 0):
            row[[params.end_id, *(params.stop_token_ids or ())]] = -np.inf
        if params.is_greedy:
            return int(row.argmax())
        weights = np.exp(row / (params.temperature or 1))
        if params.top_k:
            weights[np.argsort(-weights)[params.top_k :]] = 0
        return self._chance.choices(range(VOCABULARY), weights.tolist())[0]
