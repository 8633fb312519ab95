"""One text that TensorRT LLM writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from evalkit.prompts import Decode
from evalkit.requests import TokenLogprob
from evalkit.writing import Progress
from evalkit.writing import Writing as AnyWriting
from evalkit_tensorrt_llm.replies import token_logprobs


class Writing(AnyWriting):
    """One sample of a request."""

    def __init__(self, work: Decode, sample: int, spell: Callable[[Sequence[int]], str]) -> None:
        # The library looks for the tokens of a stop string, which a text may spell with others.
        super().__init__(work, sample, spell, stops=work.item.request.stop)

    def read(self, reply: Any) -> Progress:
        """What a reply says."""
        output = reply.outputs[0]
        if output.finish_reason in ("cancelled", "timeout"):
            return Progress(output.token_ids, problem=f"tensorrt-llm gave up: {output.finish_reason}")
        prompt = len(self.prompt) - getattr(reply, "cached_tokens", 0)
        if not reply.finished:
            return Progress(output.token_ids, prompt=prompt)
        return Progress(output.token_ids, "stop" if output.finish_reason == "stop" else "length", prompt)

    def logprobs(self, reply: Any, first: int, last: int) -> tuple[TokenLogprob, ...]:
        """Of the written tokens `first` to `last`."""
        return token_logprobs(reply.outputs[0], first, last, self.request.logprobs or 0, self.spell)
