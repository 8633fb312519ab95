"""The session behind a server: asked through the engine `openai`, and with a new server in the place of a dead one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from evalkit.engine import BaseInferenceSession, TooLong
from evalkit.errors import EngineDiedError, EvalkitError, RequestError, RunError
from evalkit.requests import GenerationRequest, Message, Request, TokenCounts
from evalkit.restarts import RestartingSession
from evalkit.servers.process import ServerProcess

T = TypeVar("T")
OF_THE_PROCESS = ("backend", "base_url", "model", "root", "server")
"""What is another each time that a server is started, or says nothing."""


class ServedSession(RestartingSession):
    """A session behind the server that `start` starts, or, where it returns None, behind one of somebody else's.

    `connect` opens a session of the engine `openai` on it. A server of ours that dies is started again up to `restarts`
    times; what was answered is never asked again. `description` is what to say of the server beside its own words.
    """

    def __init__(
        self,
        start: Callable[[], ServerProcess | None],
        connect: Callable[[ServerProcess | None], BaseInferenceSession],
        *,
        description: Mapping[str, Any],
        restarts: int = 0,
    ) -> None:
        self._start, self._connect, self._description, self.restarts = start, connect, description, restarts
        self._server: ServerProcess | None = None
        self._session: BaseInferenceSession | None = None
        self._begin()
        self.max_length: int | None = getattr(self._inner(), "max_length", None)

    # ── the server's life ───────────────────────────────────────────────────────────────────────────────
    def _begin(self) -> None:
        self._server = self._start()
        try:
            self._session = self._guarded(partial(self._connect, self._server))
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        session, self._session = self._session, None
        server, self._server = self._server, None
        try:
            if session is not None:
                session.close()
        finally:
            if server is not None:
                server.stop()

    def close(self) -> None:
        """Close the connections and end the server, where it is ours."""
        server = self._server
        self._end()
        if server is not None:
            server.forget_log()

    def _inner(self) -> BaseInferenceSession:
        if self._session is None:
            raise RunError("the session is closed")
        return self._session

    def _verify(self) -> None:
        """Raise EngineDiedError where the server of ours has ended, or no longer writes."""
        if self._server is not None and not self._server.answers():
            name = self._server.engine
            raise EngineDiedError(f"the server of engine {name!r} died: {self._server.epitaph()}")

    def _call(self, ask: Callable[[BaseInferenceSession], T]) -> T:
        """The answer, if need be of the next server."""
        return self._asked(partial(self._answered, ask))

    def _answered(self, ask: Callable[[BaseInferenceSession], T]) -> T:
        return self._guarded(partial(ask, self._inner()))

    def _guarded(self, run: Callable[[], T]) -> T:
        """What `run` finds. Raises EngineDiedError for whatever goes wrong because the server is gone."""
        try:
            return run()
        except EvalkitError as error:
            self._verify()
            # Those of the engine may want more than a message.
            kind = next(cls for cls in type(error).__mro__ if cls.__module__ == EvalkitError.__module__)
            raise kind(self._public(str(error))) from error

    def _public(self, text: str) -> str:
        """A message without the name and the address that a server of ours happened to have."""
        if self._server is None:
            return text
        text = text.replace(f"at {self._server.base_url} ", "").replace(self._server.base_url, "the server")
        return text.replace(self._server.served_name, str(self._description.get("model", "the model")))

    # ── requests ────────────────────────────────────────────────────────────────────────────────────────
    def _answers(self, name: str, requests: Mapping[int, Request], batch_size: int | None) -> Iterator[tuple[int, Any]]:
        exact = self._answered(lambda inner: _exact(inner, list(requests.values())))
        answers = getattr(self._inner(), name)(zip(requests, exact, strict=True), batch_size=batch_size)
        with closing(answers):
            while (found := self._answered(lambda _: next(answers, None))) is not None:
                number, output = found
                if output.error is not None:
                    # A server that is gone fails requests before it is known to be.
                    self._verify()
                    output = replace(output, error=self._public(output.error))
                yield number, output

    # ── what the run asks ───────────────────────────────────────────────────────────────────────────────
    @property
    def takes_messages(self) -> bool:
        """Whether the server applies the chat template."""
        return self._call(lambda inner: inner.takes_messages)

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """Chat messages as text. Raises RequestError where there is no template."""
        options = {"tools": tools, "add_generation_prompt": add_generation_prompt, **variables}
        return self._call(lambda inner: inner.apply_chat_template(messages, **options))

    def too_long(self, requests: Sequence[Request]) -> list[TooLong]:
        """The requests that do not fit. Raises ModelError for what the server cannot do."""
        return self._call(lambda inner: inner.too_long(requests))

    def token_counts(self) -> TokenCounts | None:
        """Tokens since the session was built, or None where the server does not say."""
        return self._inner().token_counts()

    def gc(self) -> None:
        """Release reusable caches."""
        self._inner().gc()

    def describe_execution(self) -> dict[str, Any]:
        """What the server says of itself, and which Python and packages it runs under."""
        found = self._inner().describe_execution() or {}
        if self._server is None:
            return {**found, **self._description}
        kept = {name: value for name, value in found.items() if name not in OF_THE_PROCESS}
        return {**kept, **self._description, "server": dict(self._server.about)}


def _exact(inner: BaseInferenceSession, requests: Sequence[Any]) -> list[Any]:
    """The requests with their prompts as token ids, so that the server adds none of its own.

    A prompt that has to be cut, or that no tokenizer here can encode, stays as it is.
    """
    tokenizer, limit = getattr(inner, "tokenizer", None), getattr(inner, "max_length", None)
    exact = list(requests)
    texts = {i: text for i, request in enumerate(requests) if (text := _text(inner, request)) is not None}
    if tokenizer is None or limit is None or not texts:
        return exact
    for index, ids in zip(texts, tokenizer.encode_batch(list(texts.values())), strict=True):
        if len(ids) + exact[index].max_new_tokens <= limit:
            given = tuple(ids) or (tokenizer.prefix_token_id,)
            exact[index] = replace(exact[index], prompt=None, messages=None, tools=None, input_ids=given)
    return exact


def _text(inner: BaseInferenceSession, request: Request) -> str | None:
    """What a generation request continues; None where that is not for us to say."""
    if not isinstance(request, GenerationRequest) or request.input_ids is not None:
        return None
    if request.messages is None or request.prompt is not None:
        # With both it is no request; the session says so.
        return request.prompt if request.messages is None else None
    try:
        if inner.takes_messages:
            return None
        return inner.apply_chat_template(request.messages, tools=request.tools, **dict(request.chat_template_kwargs))
    except RequestError:
        # It fails alone, with the session's own words.
        return None
