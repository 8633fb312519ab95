"""What reaches a decoder: requests with their prompts as token ids, and a server's feed of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from evalkit.engine import Feed
from evalkit.errors import EvalkitError, RequestError, one_line
from evalkit.requests import GenerationOutput, GenerationPart, GenerationRequest

if TYPE_CHECKING:
    from evalkit.sessions import TokenSession

TRUNCATED = "truncated: {length} tokens, of which the last {limit} fit the context"


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """A generation request with its prompt as token ids, cut to fit."""

    index: int
    prompt: tuple[int, ...]
    request: GenerationRequest


class LiveArrivals:
    """A server's feed on its way to the decoder: keys become numbers, prompts token ids; what cannot be is refused."""

    def __init__(self, session: TokenSession, feed: Feed) -> None:
        self.session, self.feed = session, feed
        self.keys: dict[int, Any] = {}
        self._numbers: dict[Any, int] = {}
        self._notes: dict[int, tuple[str, ...]] = {}
        self._refused: list[tuple[Any, GenerationOutput]] = []
        self._count = 0

    def read(self) -> Iterator[DecodeRequest | int | None]:
        """What the decoder reads. After a refusal it is let go on, so that the refusal gets out."""
        for arrival in self.feed:
            if arrival is None:
                yield None
            elif arrival[1] is not None:
                yield self._encoded(arrival[0], arrival[1])
            elif arrival[0] in self._numbers:
                yield self._numbers[arrival[0]]

    def _encoded(self, key: Any, request: GenerationRequest) -> DecodeRequest | None:
        try:
            if request.num_beams > 1:
                raise RequestError("a server has no beam search: ask for num_beams 1")
            ids, limit = self.session.prompt_ids(request), self.session.prompt_limit(request)
        except EvalkitError as error:
            self._refused.append((key, GenerationOutput(finish_reason="error", error=one_line(error))))
            return None
        self._count += 1
        self.keys[self._count], self._numbers[key] = key, self._count
        if len(ids) > limit:
            self._notes[self._count] = (TRUNCATED.format(length=len(ids), limit=limit),)
        return DecodeRequest(self._count, ids[-limit:], request)

    def refused(self) -> Iterator[tuple[Any, GenerationOutput]]:
        """Requests that cannot be answered, each once."""
        refused, self._refused = self._refused, []
        yield from refused

    def answered(
        self, number: int, answer: GenerationPart | GenerationOutput
    ) -> tuple[Any, GenerationPart | GenerationOutput]:
        """A decoder's answer under the key of its request."""
        if isinstance(answer, GenerationPart):
            return self.keys[number], answer
        key = self.keys.pop(number)
        del self._numbers[key]
        return key, with_notes(answer, self._notes.pop(number, ()))


def with_notes(output: GenerationOutput, notes: tuple[str, ...]) -> GenerationOutput:
    """`output` with remarks about its request."""
    return replace(output, notes=output.notes + notes) if notes else output
