"""One text that SGLang writes: its tokens as they come, and its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from evalkit.prompts import Answer, Decode, Written
from evalkit.requests import FinishReason, GenerationRequest
from evalkit.scoring.stops import StopWatch
from evalkit_sglang.replies import Reply, token_logprobs


class Writing:
    """One sample of a request; `spell` gives the text of tokens, special ones included."""

    def __init__(self, work: Decode, sample: int, spell: Callable[[Sequence[int]], str]) -> None:
        self.request: GenerationRequest = work.item.request
        self.prompt, self.sample = work.item.prompt, sample
        self.is_finished = False
        self._spell = spell
        self._told = 0
        # A stop string that comes before `min_new_tokens` must not end the text, as SGLang would let it.
        self._watch = StopWatch(self.request.stop, spell) if self.request.min_new_tokens else None
        self._in_parts = work.parts or bool(self._watch and self._watch.stops)

    def arguments(self, params: dict[str, Any]) -> dict[str, Any]:
        """What to ask SGLang for."""
        asked: dict[str, Any] = {"input_ids": list(self.prompt), "sampling_params": params, "stream": self._in_parts}
        if self.request.logprobs is not None:
            asked |= {"return_logprob": True, "top_logprobs_num": self.request.logprobs}
        return asked

    def take(self, reply: Reply) -> Iterator[Answer]:
        """What a reply, which holds all tokens so far, says that is new."""
        meta, ids = reply["meta_info"], tuple(reply["output_ids"])
        reason = meta["finish_reason"]
        if reason is not None and reason["type"] == "abort":
            self.is_finished = True
            yield f"sglang gave up: {reason.get('message') or 'aborted'}"
            return
        end, finish = self._end(ids, reason and ("stop" if reason["type"] == "stop" else "length"))
        if end == self._told and finish is None:
            return
        self.is_finished = finish is not None
        logprobs = None
        if self.request.logprobs is not None:
            logprobs = token_logprobs(reply, self.request.logprobs, self._spell)[self._told : end]
        computed = meta["prompt_tokens"] - meta["cached_tokens"] + end - 1 if self.is_finished else 0
        new, self._told = ids[self._told : end], end
        yield Written(new, finish, logprobs, self.sample, computed)

    def _end(self, ids: tuple[int, ...], finish: FinishReason | None) -> tuple[int, FinishReason | None]:
        """How many tokens belong to the text, and why it ends."""
        if self._watch is not None:
            for place in range(self._told, len(ids)):
                if self._watch.push(ids[place]) and place + 1 >= self.request.min_new_tokens:
                    return place + 1, "stop"
        return len(ids), finish
