"""The session on this side: calls go to the child, answers come back as they are made; a dead child is replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

from evalkit import errors
from evalkit.encoding import from_plain, to_plain
from evalkit.engine import Feed, TooLong
from evalkit.errors import EngineDiedError, EvalkitError, one_line
from evalkit.isolation.live import LiveFeed
from evalkit.isolation.process import ChildProcess
from evalkit.requests import GenerationOutput, GenerationPart, Message, Request, TokenCounts
from evalkit.restarts import RestartingSession

PIECE = 256
"""Requests in a frame."""
GLANCE = 0.005
"""Seconds between two looks at a server's feed while requests are running."""


class IsolatedSession(RestartingSession):
    """A session in the process that `start` makes. Where it dies, it is started again up to `restarts` times.

    `build` is what the child is told first: engine, engine_args and model. What was answered is never asked again.
    """

    def __init__(self, start: Callable[[], ChildProcess], build: Mapping[str, Any], restarts: int = 0) -> None:
        self._start, self._build, self.restarts = start, dict(build), restarts
        self._numbers = count()
        self._child: ChildProcess | None = None
        self._counted = TokenCounts()
        """Of children that died."""
        self._counts: list[int] | None = None
        """What the child said last."""
        self.information: dict[str, Any] = {}
        """What the child says of its engine."""
        self._begin()
        self.max_length: int | None = self.information["max_length"]

    @property
    def takes_messages(self) -> bool:
        """Whether the child's session does."""
        return bool(self.information["takes_messages"])

    # ── the child's life ────────────────────────────────────────────────────────────────────────────────
    def _begin(self) -> None:
        if self._counts is not None:
            self._counted, self._counts = self._counted + TokenCounts(*self._counts), None
        self._child = self._start()
        try:
            self.information = self._ask({"call": "build", **self._build})
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None

    def close(self) -> None:
        """End the child: by itself, so that it frees what it holds, else by force."""
        child, self._child = self._child, None
        if child is None:
            return
        try:
            child.channel.send({"id": -1, "call": "close"})
            while (child.channel.receive(timeout=30) or {}).get("id", -1) != -1:
                pass
        except (OSError, EOFError):
            child.kill()
        else:
            child.stop()
            child.forget_log()

    # ── frames ──────────────────────────────────────────────────────────────────────────────────────────
    def _send(self, frame: Mapping[str, Any]) -> None:
        try:
            self._running().channel.send(dict(frame))
        except OSError as error:
            raise self._died() from error

    def _receive(self, number: int, timeout: float | None = None) -> dict[str, Any] | None:
        """The next frame of a call; those of calls that were given up are passed over."""
        while True:
            try:
                frame = self._running().channel.receive(timeout)
            except (EOFError, OSError) as error:
                raise self._died() from error
            if frame is not None and "counts" in frame:
                self._counts = frame["counts"]
            if frame is None or frame["id"] == number:
                return frame

    def _running(self) -> ChildProcess:
        if self._child is None:
            raise errors.RunError("the session is closed")
        return self._child

    def _died(self) -> EngineDiedError:
        engine = self._build["engine"]
        return EngineDiedError(f"the process of engine {engine!r} died: {self._running().epitaph()}")

    def _ask(self, call: Mapping[str, Any]) -> Any:
        """The answer to a call that gives one value."""
        number = next(self._numbers)
        self._send({"id": number, **call})
        frame = self._receive(number)
        assert frame is not None
        return _value(frame)

    def _call(self, name: str, **arguments: Any) -> Any:
        return self._asked(partial(self._ask, {"call": name, "arguments": arguments}))

    # ── what is asked ───────────────────────────────────────────────────────────────────────────────────
    def _answers(self, name: str, requests: Mapping[int, Request], batch_size: int | None) -> Iterator[tuple[int, Any]]:
        call = next(self._numbers)
        self._send({"id": call, "call": name, "arguments": {"batch_size": batch_size}})
        items = [[number, to_plain(request)] for number, request in requests.items()]
        for first in range(0, len(items), PIECE):
            self._send({"id": call, "items": items[first : first + PIECE]})
        self._send({"id": call, "items": [], "end": True})
        ended = False
        try:
            while not ended:
                frame = self._receive(call)
                assert frame is not None
                if "item" in frame:
                    yield frame["item"][0], from_plain(frame["item"][1])
                else:
                    ended = True
                    _value(frame)
        finally:
            if not ended and self._child is not None and self._child.is_alive():
                self._send({"cancel": call})

    def generate_live(
        self, feed: Feed, *, wants_parts: Callable[[Any], bool] = lambda key: True
    ) -> Iterator[tuple[Any, GenerationPart | GenerationOutput]]:
        """Serve a feed until it ends. Of what a child that died was answering, only what had parts out is lost."""
        live = LiveFeed(feed, wants_parts)
        while True:
            try:
                yield from self._live(live)
                return
            except EngineDiedError as error:
                self._again(error)
                for number in live.begun & set(live.left):
                    yield live.left.pop(number)[0], GenerationOutput(finish_reason="error", error=one_line(error))

    def _live(self, live: LiveFeed) -> Iterator[tuple[Any, GenerationPart | GenerationOutput]]:
        call = next(self._numbers)
        self._send({"id": call, "call": "generate_live"})
        self._send({"id": call, "items": live.unanswered(), "end": live.ended})
        while True:
            if not live.ended:
                items = live.arrived()
                if items or live.ended:
                    self._send({"id": call, "items": items, "end": live.ended})
            frame = self._receive(call, None if live.ended else GLANCE) if live.left or live.ended else None
            if frame is not None and "item" not in frame:
                _value(frame)
                return
            if frame is not None:
                yield from live.answered(frame["item"][0], from_plain(frame["item"][1]))

    # ── what the run asks ───────────────────────────────────────────────────────────────────────────────
    def keep_prefixes(self, wanted: bool = True) -> None:
        """Let the child's session keep prefixes. One that is started again keeps none: it is slower, no more."""
        self._call("keep_prefixes", wanted=wanted)

    def gc(self) -> None:
        """Release reusable caches."""
        self._call("gc")

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """Render chat messages to the text the model sees. Raises RequestError where there is no template."""
        text: str = self._call(
            "apply_chat_template",
            messages=[dict(message) for message in messages],
            tools=None if tools is None else [dict(tool) for tool in tools],
            add_generation_prompt=add_generation_prompt,
            **variables,
        )
        return text

    def describe_execution(self) -> dict[str, Any] | None:
        """What the child says of its session, its Python and a hash of the packages there."""
        found: dict[str, Any] = self._call("describe_execution") or {}
        return {**found, "isolated": {name: self.information[name] for name in ("python", "packages")}}

    def token_counts(self) -> TokenCounts | None:
        """Tokens since the session was built, as far as its children said."""
        return None if self._counts is None else self._counted + TokenCounts(*self._counts)

    def too_long(self, requests: Sequence[Request]) -> list[TooLong]:
        """The requests that do not fit."""
        call = {"call": "too_long", "requests": [to_plain(request) for request in requests]}
        return [TooLong(*item) for item in self._asked(partial(self._ask, call))]


def _value(frame: Mapping[str, Any]) -> Any:
    """The value in a frame. Raises what the child raised."""
    if "error" not in frame:
        return frame.get("value")
    name, text = frame["error"]
    kind = getattr(errors, name, None) if name else None
    if isinstance(kind, type) and issubclass(kind, EvalkitError):
        raise kind(text)
    raise RuntimeError(f"in the engine's process: {text}\n{frame.get('traceback', '')}")
