"""Log-likelihoods over HTTP: by the routes made for it, or by `echo`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from evalkit.engine import batched
from evalkit.errors import RequestError, one_line
from evalkit.requests import (
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    RollingLoglikelihoodOutput,
    RollingLoglikelihoodRequest,
)
from evalkit.scoring.pairs import MERGED, EncodedPair, Tokenizer, encode_pairs, move_whitespace
from evalkit.scoring.windows import rolling_spans
from evalkit_openai.client import Client, RefusedError
from evalkit_openai.echo import Echoed, continuation_start, echo_body, read_echo
from evalkit_openai.server import Server
from evalkit_openai.workers import Job

GROUP = 16
"""Requests of one call to the scoring routes: the server computes what they share once."""
TRUNCATED = "truncated: {length} tokens, of which the last {limit} fit the context"
TOKENIZER = "Give a tokenizer with --engine-arg tokenizer=PATH, if the server takes token ids"
GREEDY_UNKNOWN = "whether it is greedy is unknown: the server names no other tokens"

Pairs = Sequence[tuple[Any, LoglikelihoodRequest]]
Texts = Sequence[tuple[Any, RollingLoglikelihoodRequest]]
ScoreJobs = Iterator[tuple[list[Any], Job[list[LoglikelihoodOutput]]]]
RollingJobs = Iterator[tuple[list[Any], Job[list[RollingLoglikelihoodOutput]]]]


class Scorer(Protocol):
    """A way to score; jobs name the requests that they answer."""

    name: str

    def score(self, pairs: Pairs, in_flight: int) -> ScoreJobs:
        """Jobs that score pairs."""
        ...

    def roll(self, texts: Texts, in_flight: int) -> RollingJobs:
        """Jobs that score whole texts."""
        ...


class EvalRoutes:
    """/v1/eval/loglikelihood and /v1/eval/loglikelihood/rolling, which evalkit's own server has."""

    name = "eval routes"
    path = "/eval/loglikelihood"

    def __init__(self, client: Client, server: Server) -> None:
        self.client = client
        self.server = server

    @classmethod
    async def probe(cls, client: Client, server: Server) -> bool:
        """Whether the server has the routes and scores by them."""
        body = {"model": server.model, "requests": [{"context": "1, 2, 3,", "continuation": " 4"}]}
        try:
            [found] = (await client.post(cls.path, body))["results"]
            return found.get("error") is None and found["logprob"] < 0 and found["token_count"] > 0
        except (RefusedError, LookupError, ValueError, TypeError, AttributeError):
            return False

    def score(self, pairs: Pairs, in_flight: int) -> ScoreJobs:
        """Groups of neighbouring pairs."""
        for group in batched(pairs, GROUP if in_flight > 1 else 1):
            bodies = [_pair_body(request) for _, request in group]
            yield [key for key, _ in group], partial(self._score, bodies)

    def roll(self, texts: Texts, in_flight: int) -> RollingJobs:
        """One text a call."""
        for key, request in texts:
            body = {"text": request.text} if request.input_ids is None else {"input_ids": list(request.input_ids)}
            yield [key], partial(self._roll, body)

    async def _score(self, bodies: list[dict[str, Any]]) -> list[LoglikelihoodOutput]:
        try:
            found = await self._ask(self.path, bodies)
            return [_read_score(item) for item in found]
        except RefusedError as error:
            if len(bodies) > 1:
                return [output for body in bodies for output in await self._score([body])]
            return [LoglikelihoodOutput(error=one_line(error))]
        except RequestError as error:
            return [LoglikelihoodOutput(error=one_line(error)) for _ in bodies]

    async def _roll(self, body: dict[str, Any]) -> list[RollingLoglikelihoodOutput]:
        try:
            [found] = await self._ask(f"{self.path}/rolling", [body])
            return [RollingLoglikelihoodOutput(**_shared_fields(found))]
        except RequestError as error:
            return [RollingLoglikelihoodOutput(error=one_line(error))]

    async def _ask(self, path: str, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        characters = sum(len(str(value)) for body in bodies for value in body.values())
        answer = await self.client.post(path, {"model": self.server.model, "requests": bodies}, tokens=characters // 4)
        results = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(results, list) or len(results) != len(bodies):
            raise RequestError(f"the server at {self.client.url} answered {len(bodies)} requests with something else")
        return results


class Echo:
    """/v1/completions with `echo` and `logprobs`; prompts as token ids where there is a tokenizer, else as text."""

    def __init__(
        self, client: Client, server: Server, tokenizer: Tokenizer | None, max_length: int | None, *, greedy: bool
    ) -> None:
        self.client = client
        self.server = server
        self.tokenizer = tokenizer
        # One token is generated behind each prompt, and needs a place.
        self.limit = None if max_length is None else max_length - 1
        self.greedy = greedy
        self.name = f"echo, {'text' if tokenizer is None else 'token ids'}"

    def score(self, pairs: Pairs, in_flight: int) -> ScoreJobs:
        """A call for each pair."""
        if self.tokenizer is None:
            for key, request in pairs:
                yield [key], lambda request=request: self._score(self._score_text(request))  # type: ignore[misc]
            return
        encoded = encode_pairs(self.tokenizer, [request for _, request in pairs])
        for (key, _), pair in zip(pairs, encoded, strict=True):
            yield [key], lambda pair=pair: self._score(self._score_ids(pair))  # type: ignore[misc]

    def roll(self, texts: Texts, in_flight: int) -> RollingJobs:
        """A call for each text, or for each window of it."""
        for key, request in texts:
            # A tokenizer that asks the server cannot be asked on the loop.
            yield [key], partial(self._roll, request, self._windows(request))

    def _windows(self, request: RollingLoglikelihoodRequest) -> list[tuple[list[int], int]] | None:
        if self.tokenizer is None:
            return None
        ids = request.input_ids
        tokens = tuple(self.tokenizer.encode_batch([request.text])[0]) if ids is None else tuple(ids)
        # A span has one token more than its limit, which only the model is not fed.
        limit = len(tokens) + 1 if self.limit is None else self.limit - 1
        spans = rolling_spans(tokens, self.tokenizer.prefix_token_id, limit)
        return [(list(span.ids), span.start) for span in spans]

    async def _score(self, scoring: Any) -> list[LoglikelihoodOutput]:
        try:
            return [await scoring]
        except RequestError as error:
            return [LoglikelihoodOutput(error=one_line(error))]

    async def _score_ids(self, pair: EncodedPair) -> LoglikelihoodOutput:
        if not pair.continuation:
            raise RequestError("the continuation is empty")
        ids, notes = [*pair.context, *pair.continuation], pair.notes
        if self.limit is not None and len(ids) > self.limit:
            if len(pair.continuation) >= self.limit:
                raise RequestError(f"the continuation alone has {len(pair.continuation)} tokens, {self.limit} fit")
            notes = (*notes, TRUNCATED.format(length=len(ids), limit=self.limit))
            ids = ids[-self.limit :]
        return self._output(await self._echo(ids), len(ids) - len(pair.continuation), notes)

    async def _score_text(self, request: LoglikelihoodRequest) -> LoglikelihoodOutput:
        if request.continuation_ids is not None:
            raise RequestError(f"token ids cannot be sent: prompts are sent as text. {TOKENIZER}")
        if not request.continuation:
            raise RequestError("the continuation is empty")
        context, continuation = move_whitespace(request.context, request.continuation)
        echoed = await self._echo(context + continuation)
        try:
            start, merged = continuation_start(echoed.tokens, continuation)
        except ValueError as error:
            raise RequestError(f"{self._fault(error)}. {TOKENIZER}") from error
        return self._output(echoed, start, (MERGED,) if merged else ())

    def _output(self, echoed: Echoed, start: int, notes: tuple[str, ...]) -> LoglikelihoodOutput:
        logprobs = self._behind(echoed, start)
        flags = echoed.greedy[start:]
        known = self.greedy and None not in flags
        notes = notes if known else (*notes, GREEDY_UNKNOWN)
        return LoglikelihoodOutput(sum(logprobs), known and all(flags), len(logprobs), logprobs, notes=notes)

    def _behind(self, echoed: Echoed, start: int) -> tuple[float, ...]:
        logprobs = [value for value in echoed.logprobs[start:] if value is not None]
        if len(logprobs) < len(echoed.logprobs) - start:
            raise RequestError(
                f"the server at {self.client.url} gives no log-probability of a text's first token. {TOKENIZER}"
            )
        return tuple(logprobs)

    async def _roll(
        self, request: RollingLoglikelihoodRequest, windows: list[tuple[list[int], int]] | None
    ) -> list[RollingLoglikelihoodOutput]:
        logprobs: list[float] = []
        try:
            if windows is None:
                if request.input_ids is not None:
                    raise RequestError(f"token ids cannot be sent: prompts are sent as text. {TOKENIZER}")
                echoed = await self._echo(request.text)
                logprobs += self._behind(echoed, continuation_start(echoed.tokens, request.text)[0])
            for ids, start in windows or ():
                logprobs += self._behind(await self._echo(ids), start)
        except (RequestError, ValueError) as error:
            return [RollingLoglikelihoodOutput(error=one_line(error))]
        return [RollingLoglikelihoodOutput(sum(logprobs), len(logprobs), tuple(logprobs))]

    async def _echo(self, prompt: str | list[int]) -> Echoed:
        length = len(prompt) // 4 if isinstance(prompt, str) else len(prompt)
        body = {"model": self.server.model, **echo_body(prompt), **self.client.engine.extra_body}
        answer = await self.client.post("/completions", body, tokens=length + 1)
        try:
            return read_echo(answer, None if isinstance(prompt, str) else prompt)
        except (ValueError, TypeError, LookupError) as error:
            raise RequestError(self._fault(error)) from error

    def _fault(self, error: Exception) -> str:
        return f"the server at {self.client.url} did not score this text: {one_line(error)}"


def _pair_body(request: LoglikelihoodRequest) -> dict[str, Any]:
    if request.context_ids is not None and request.continuation_ids is not None:
        return {"context_ids": list(request.context_ids), "continuation_ids": list(request.continuation_ids)}
    return {"context": request.context, "continuation": request.continuation}


def _read_score(found: dict[str, Any]) -> LoglikelihoodOutput:
    fields = _shared_fields(found)
    return LoglikelihoodOutput(**fields, is_greedy=bool(found.get("is_greedy")))


def _shared_fields(found: dict[str, Any]) -> dict[str, Any]:
    """What outputs of both kinds have. Raises RequestError where it is not there."""
    try:
        if found.get("error") is not None:
            return {"error": str(found["error"])}
        tokens = found.get("token_logprobs")
        if math.isnan(float(found["logprob"])):
            return {"error": "the server's log-probability is not a number"}
        return {
            "logprob": float(found["logprob"]),
            "token_count": int(found["token_count"]),
            "token_logprobs": None if tokens is None else tuple(map(float, tokens)),
            "notes": tuple(map(str, found.get("notes") or ())),
        }
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RequestError(f"the server's answer lacks a field, or has a wrong value: {one_line(error)}") from error
