"""One text that TensorRT LLM writes: its tokens as they come, and its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from evalkit.prompts import Answer, Decode, Written
from evalkit.requests import FinishReason
from evalkit.scoring.stops import StopWatch
from evalkit_tensorrt_llm.replies import token_logprobs


class Writing:
    """One sample of a request; `spell` gives the text of tokens, special ones included."""

    def __init__(self, work: Decode, sample: int, spell: Callable[[Sequence[int]], str]) -> None:
        self.request = work.item.request
        self.prompt, self.sample = work.item.prompt, sample
        self.is_finished = False
        self._spell = spell
        self._told = 0
        # The library looks for the tokens of a stop string, which a text may spell with others.
        self._watch = StopWatch(self.request.stop, spell)
        self.in_parts = work.parts or bool(self._watch.stops)

    def take(self, reply: Any) -> Iterator[Answer]:
        """What a reply, which holds all tokens so far, says that is new."""
        output = reply.outputs[0]
        if output.finish_reason in ("cancelled", "timeout"):
            self.is_finished = True
            yield f"tensorrt-llm gave up: {output.finish_reason}"
            return
        reason: FinishReason | None = None
        if reply.finished:
            reason = "stop" if output.finish_reason == "stop" else "length"
        end, finish = self._end(output.token_ids, reason)
        if end == self._told and finish is None:
            return
        self.is_finished = finish is not None
        logprobs = None
        if self.request.logprobs is not None:
            logprobs = token_logprobs(output, self._told, end, self.request.logprobs, self._spell)
        computed = len(self.prompt) - getattr(reply, "cached_tokens", 0) + end - 1 if self.is_finished else 0
        new, self._told = tuple(output.token_ids[self._told : end]), end
        yield Written(new, finish, logprobs, self.sample, computed)

    def _end(self, ids: Sequence[int], finish: FinishReason | None) -> tuple[int, FinishReason | None]:
        """How many tokens belong to the text, and why it ends."""
        for place in range(self._told, len(ids)):
            if self._watch.push(ids[place]) and place + 1 >= self.request.min_new_tokens:
                return place + 1, "stop"
        return len(ids), finish
