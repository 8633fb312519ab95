"""The engine guide's minimal skeleton, its bodies filled in.

The model is one sentence long: the character after `c` is c's successor with probability one half, and any
other character with what is left. It needs no file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.engine import BaseEngine, BaseInferenceSession
from evalkit.model import Model
from evalkit.requests import (
    GenerationOutput,
    GenerationRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    RollingLoglikelihoodOutput,
    RollingLoglikelihoodRequest,
)
from evalkit.scoring import cut_at_stops

CHARACTERS = 0x110000


@dataclass(slots=True)
class MyEngine(BaseEngine):
    device: str | None = None

    def build(self, model: Model) -> BaseInferenceSession:
        return MySession(model_path=model.path, device=self.device)


@dataclass(slots=True)
class MySession(BaseInferenceSession):
    model_path: str
    device: str | None = None

    def generate(
        self,
        requests: list[GenerationRequest],
        *,
        batch_size: int | None = None,
    ) -> list[GenerationOutput]:
        return [self._write(request) for request in requests]

    def loglikelihood(
        self,
        requests: list[LoglikelihoodRequest],
        *,
        batch_size: int | None = None,
    ) -> list[LoglikelihoodOutput]:
        scores = [token_logprobs(request.context, request.continuation) for request in requests]
        return [LoglikelihoodOutput(sum(s), all(p == LIKELY for p in s), len(s), tuple(s)) for s in scores]

    def loglikelihood_rolling(
        self,
        requests: list[RollingLoglikelihoodRequest],
        *,
        batch_size: int | None = None,
    ) -> list[RollingLoglikelihoodOutput]:
        scores = [token_logprobs("", request.text) for request in requests]
        return [RollingLoglikelihoodOutput(sum(s), len(s), tuple(s)) for s in scores]

    def generate_continuous(
        self,
        requests: Iterable[tuple[Any, GenerationRequest]],
        *,
        batch_size: int | None = None,
    ) -> Iterator[tuple[Any, GenerationOutput]]:
        for request_id, request in requests:
            yield request_id, self._write(request)

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
        return "".join(f"{message['role']}: {message['content']}\n" for message in messages)

    def gc(self) -> None:
        return None

    def close(self) -> None:
        return None

    def describe_execution(self) -> dict[str, Any] | None:
        return {
            "backend": "my_engine",
            "device": self.device,
        }

    def _write(self, request: GenerationRequest) -> GenerationOutput:
        prompt = request.prompt if request.messages is None else self.apply_chat_template(request.messages)
        text = ""
        while len(text) < request.max_new_tokens:
            text += successor((prompt or "") + text)
            if cut_at_stops(text, request.stop) != text:
                ids = tuple(map(ord, text))
                return GenerationOutput(cut_at_stops(text, request.stop), ids, "stop")
        return GenerationOutput(text, tuple(map(ord, text)), "length")


LIKELY = math.log(0.5)
UNLIKELY = math.log(0.5 / (CHARACTERS - 1))


def successor(text: str) -> str:
    """The most likely next character: the alphabet begins anew after "z" and after anything else."""
    last = text[-1:].lower()
    return chr(ord(last) + 1) if "a" <= last < "z" else "a"


def token_logprobs(context: str, continuation: str) -> list[float]:
    """Log-probability of each character of `continuation`."""
    text = context + continuation
    positions = range(len(context), len(text))
    return [LIKELY if text[i] == successor(text[:i]) else UNLIKELY for i in positions]
