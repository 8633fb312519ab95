"""The served model, as the routes use it: its texts, its limits, and how to ask it."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request

from evalkit.engine import BaseInferenceSession
from evalkit.errors import RequestError
from evalkit.requests import GenerationPart
from evalkit.requests import Request as Asked
from evalkit_http.openai.lines import ClosedError, Event, FullError, Ticket
from evalkit_http.openai.scheduler import STOPPED, Scheduler
from evalkit_http.openai.texts import Texts


@dataclass(slots=True)
class Served:
    """A model that is ready, and the line to it."""

    name: str
    scheduler: Scheduler
    created: int = field(default_factory=lambda: int(time.time()))
    _texts: Texts | None = None

    @property
    def session(self) -> BaseInferenceSession:
        """The session: for looking at, not for calling."""
        assert self.scheduler.session is not None
        return self.scheduler.session

    @property
    def texts(self) -> Texts:
        """The tokenizer. Raises RequestError where the engine has none of its own."""
        if self._texts is None:
            tokenizer = getattr(self.session, "tokenizer", None)
            if tokenizer is None:
                raise RequestError("this engine has no tokenizer of its own: only texts can be asked of it")
            self._texts = Texts(tokenizer)
        return self._texts

    @property
    def has_tokens(self) -> bool:
        """Whether the engine has a tokenizer."""
        return getattr(self.session, "tokenizer", None) is not None

    @property
    def max_length(self) -> int | None:
        """Tokens of the longest text, answer included."""
        return getattr(self.session, "max_length", None)

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether prompt and answer are apart."""
        return bool(getattr(self.session, "is_encoder_decoder", False))

    def ask(self, requests: Sequence[Asked], *, live: bool = False) -> Call:
        """Put requests in line. Raises RequestError for too many at once, HTTPException where the line is full."""
        most = self.scheduler.lines.most
        if len(requests) > most:
            raise RequestError(f"a call may hold {most} prompts, this one holds {len(requests)}. Send it in parts")
        try:
            return Call(self.scheduler, requests, live)
        except FullError as error:
            headers = {"Retry-After": str(self.scheduler.retry_after())}
            raise HTTPException(429, "too many requests are waiting; try again later", headers) from error
        except ClosedError as error:
            raise HTTPException(503, STOPPED, {"Retry-After": "60"}) from error

    def check_ids(self, ids: Sequence[int], name: str) -> None:
        """Raise RequestError for ids that are not the model's."""
        size = self.texts.tokenizer.vocab_size
        if wrong := next((token for token in ids if not 0 <= token < size), None):
            raise RequestError(f"{name}: {wrong} is no token of this model, which has 0 to {size - 1}")

    def check_room(self, prompt: int, answer: int, name: str) -> None:
        """Raise RequestError where a prompt and its answer are longer than the context."""
        limit = self.max_length
        if limit is None:
            return
        needed = max(prompt, answer) if self.is_encoder_decoder else prompt + answer
        if needed > limit:
            raise RequestError(
                f"the context of this model holds {limit} tokens, but the prompt has {prompt} and {name} is {answer}. "
                f"Shorten the prompt, or ask for fewer"
            )


class Call:
    """What one client asked: its requests in line, and what comes back."""

    def __init__(self, scheduler: Scheduler, requests: Sequence[Asked], live: bool) -> None:
        self._scheduler = scheduler
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._tickets = [
            Ticket(request, functools.partial(self._put, index), live) for index, request in enumerate(requests)
        ]
        self._left = len(self._tickets)
        scheduler.lines.join(self._tickets)

    def _put(self, index: int, event: Event) -> None:
        # Called in the session's thread. A loop that is closed has no clients left.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, (index, event))

    async def each(self) -> AsyncIterator[tuple[int, Event]]:
        """Parts and outputs as they come, each with the place of its request."""
        while self._left:
            index, event = await self._events.get()
            self._left -= not isinstance(event, GenerationPart)
            yield index, event

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """The same. Raises HTTPException for an output that is a failure."""
        async for index, event in self.each():
            if not isinstance(event, GenerationPart) and event.error:
                raise HTTPException(503 if event.error == STOPPED else 500, event.error)
            yield index, event

    async def outputs(self, *, failed: bool = False) -> list[Any]:
        """All outputs, in order; `failed`: also those that are failures. Raises HTTPException for them otherwise."""
        events = self.each() if failed else self.events()
        found = {index: event async for index, event in events if not isinstance(event, GenerationPart)}
        return [found[index] for index in range(len(self._tickets))]

    def withdraw(self) -> None:
        """Nobody wants the answers any more."""
        if self._left:
            self._scheduler.lines.withdraw(self._tickets)


async def outputs_of(call: Call, request: Request, *, failed: bool = False) -> list[Any]:
    """A call's outputs. A client that goes before they are there takes its requests out of the line."""
    answered = asyncio.create_task(call.outputs(failed=failed))
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({answered, gone}, return_when=asyncio.FIRST_COMPLETED)
        if answered.done():
            return answered.result()
        # Nobody reads it; 499 is what logs of proxies call this.
        raise HTTPException(499, "the client is gone")
    finally:
        for task in (answered, gone):
            task.cancel()
        call.withdraw()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _served(request: Request) -> Served:
    served: Served = request.app.state.served
    if not served.scheduler.ready.is_set():
        raise HTTPException(503, "the model is being loaded; see /ready", {"Retry-After": "5"})
    return served


Ready = Annotated[Served, Depends(_served)]
"""A route's parameter: the model, or 503 while it is being loaded."""
