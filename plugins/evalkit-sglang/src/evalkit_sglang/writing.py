"""One text that SGLang writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from evalkit.prompts import Decode
from evalkit.requests import TokenLogprob
from evalkit.writing import Progress
from evalkit.writing import Writing as AnyWriting
from evalkit_sglang.replies import Reply, token_logprobs


class Writing(AnyWriting):
    """One sample of a request."""

    def __init__(self, work: Decode, sample: int, spell: Callable[[Sequence[int]], str]) -> None:
        request = work.item.request
        # A stop string that comes before `min_new_tokens` must not end the text, as SGLang would let it.
        super().__init__(work, sample, spell, stops=request.stop if request.min_new_tokens else ())

    def arguments(self, params: dict[str, Any]) -> dict[str, Any]:
        """What to ask SGLang for."""
        asked: dict[str, Any] = {"input_ids": list(self.prompt), "sampling_params": params, "stream": self.in_parts}
        if self.request.logprobs is not None:
            asked |= {"return_logprob": True, "top_logprobs_num": self.request.logprobs}
        return asked

    def read(self, reply: Reply) -> Progress:
        """What a reply says."""
        meta, ids = reply["meta_info"], reply["output_ids"]
        reason = meta["finish_reason"]
        prompt = meta["prompt_tokens"] - meta["cached_tokens"]
        if reason is None:
            return Progress(ids, prompt=prompt)
        if reason["type"] == "abort":
            return Progress(ids, problem=f"sglang gave up: {reason.get('message') or 'aborted'}")
        return Progress(ids, "stop" if reason["type"] == "stop" else "length", prompt)

    def logprobs(self, reply: Reply, first: int, last: int) -> tuple[TokenLogprob, ...]:
        """Of the written tokens `first` to `last`."""
        return token_logprobs(reply, first, last, self.request.logprobs or 0, self.spell)
