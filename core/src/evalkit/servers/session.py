"""The session behind a server: asked through the engine `openai`, and with a new server in the place of a dead one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, TypeVar

from evalkit.engine import BaseInferenceSession, ContinuousSession, TooLong
from evalkit.errors import EngineDiedError, EvalkitError, RequestError, RunError
from evalkit.requests import (
    GenerationOutput,
    GenerationRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Message,
    Request,
    RollingLoglikelihoodOutput,
    RollingLoglikelihoodRequest,
    TokenCounts,
)
from evalkit.servers.process import ServerProcess

T = TypeVar("T")
OF_THE_PROCESS = ("backend", "base_url", "model", "root", "server")
"""What is another each time that a server is started, or says nothing."""


class ServedSession(ContinuousSession):
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
            self._session = self._connect(self._server)
        except BaseException:
            self._end()
            raise

    def _again(self, error: EngineDiedError) -> None:
        """A new server in the place of one that died. Raises the last error where there were enough."""
        while True:
            self._end()
            if self.restarts <= 0:
                raise error
            self.restarts -= 1
            try:
                self._begin()
                return
            except EngineDiedError as again:
                error = again

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

    def _asked(self, ask: Callable[[BaseInferenceSession], T]) -> T:
        """The answer to a call, if need be of the next server."""
        while True:
            try:
                return self._answered(ask)
            except EngineDiedError as error:
                self._again(error)

    def _answered(self, ask: Callable[[BaseInferenceSession], T]) -> T:
        inner = self._inner()
        try:
            return ask(inner)
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
    def _stream(self, name: str, requests: Iterable[tuple[Any, Request]], batch_size: int | None) -> Iterator[Any]:
        """Outputs under their keys as they are made."""
        left = dict(enumerate(requests))
        while left:
            try:
                for number, output in self._answers(name, list(left.items()), batch_size):
                    key, _ = left.pop(number)
                    yield key, output
                assert not left, "the engine 'openai' left requests unanswered"
            except EngineDiedError as error:
                self._again(error)

    def _answers(
        self, name: str, asked: list[tuple[int, tuple[Any, Request]]], batch_size: int | None
    ) -> Iterator[tuple[int, Any]]:
        exact = self._answered(lambda inner: _exact(inner, [request for _, (_, request) in asked]))
        requests = zip((number for number, _ in asked), exact, strict=True)
        answers = getattr(self._inner(), name)(requests, batch_size=batch_size)
        with closing(answers):
            while (found := self._answered(lambda _: next(answers, None))) is not None:
                number, output = found
                if output.error is not None:
                    # A server that is gone fails requests before it is known to be.
                    self._verify()
                    output = replace(output, error=self._public(output.error))
                yield number, output

    def generate_continuous(
        self, requests: Iterable[tuple[Any, GenerationRequest]], *, batch_size: int | None = None
    ) -> Iterator[tuple[Any, GenerationOutput]]:
        """Yield `(request_id, output)` in order of completion."""
        return self._stream("generate_continuous", requests, batch_size)

    def loglikelihood_continuous(
        self, requests: Iterable[tuple[Any, LoglikelihoodRequest]], *, batch_size: int | None = None
    ) -> Iterator[tuple[Any, LoglikelihoodOutput]]:
        """Yield `(request_id, output)` as scores arrive."""
        return self._stream("loglikelihood_continuous", requests, batch_size)

    def loglikelihood_rolling_continuous(
        self, requests: Iterable[tuple[Any, RollingLoglikelihoodRequest]], *, batch_size: int | None = None
    ) -> Iterator[tuple[Any, RollingLoglikelihoodOutput]]:
        """Yield `(request_id, output)` as texts are scored."""
        return self._stream("loglikelihood_rolling_continuous", requests, batch_size)

    # ── what the run asks ───────────────────────────────────────────────────────────────────────────────
    @property
    def takes_messages(self) -> bool:
        """Whether the server applies the chat template."""
        return self._asked(lambda inner: inner.takes_messages)

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
        return self._asked(lambda inner: inner.apply_chat_template(messages, **options))

    def too_long(self, requests: Sequence[Request]) -> list[TooLong]:
        """The requests that do not fit. Raises ModelError for what the server cannot do."""
        return self._asked(lambda inner: inner.too_long(requests))

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
    texts = {i: text for i, request in enumerate(requests) if (text := _text(inner, request)) is not None}
    exact = list(requests)
    if tokenizer is None or limit is None or not texts:
        return exact
    for (index, request), ids in zip(
        ((i, requests[i]) for i in texts), tokenizer.encode_batch(list(texts.values())), strict=True
    ):
        if len(ids) + request.max_new_tokens <= limit:
            given = tuple(ids) or (tokenizer.prefix_token_id,)
            exact[index] = replace(request, prompt=None, messages=None, tools=None, input_ids=given)
    return exact


def _text(inner: BaseInferenceSession, request: Request) -> str | None:
    """What a generation request continues; None where that is not for us to say."""
    if not isinstance(request, GenerationRequest) or request.input_ids is not None:
        return None
    if request.messages is None or request.prompt is not None:
        return request.prompt if request.messages is None else None
    try:
        if inner.takes_messages:
            return None
        return inner.apply_chat_template(request.messages, tools=request.tools, **dict(request.chat_template_kwargs))
    except RequestError:
        # It fails alone, with the session's own words.
        return None
