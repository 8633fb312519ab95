"""TokenSession: the whole contract, written once over two token-level primitives.

An engine that owns a tokenizer and can run tokens implements `score_batch` and `decode_stream`; encoding,
truncation, windows, batching, back-off on memory, stops and counters are here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from evalkit.arrivals import TRUNCATED, LiveArrivals, with_notes
from evalkit.arrivals import DecodeRequest as DecodeRequest
from evalkit.engine import Feed, TooLong
from evalkit.errors import EvalkitError, RequestError, one_line
from evalkit.requests import (
    GenerationOutput,
    GenerationPart,
    GenerationRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Message,
    Request,
    RollingLoglikelihoodOutput,
    RollingLoglikelihoodRequest,
    TokenCounts,
)
from evalkit.scoring import (
    EncodedPair,
    ScoredTokens,
    Span,
    Tokenizer,
    encode_pairs,
    rolling_spans,
    truncated_span,
)
from evalkit.scoring.forest import fresh_tokens
from evalkit.scoring.pairs import encode_pairs_apart
from evalkit.span_sessions import SpanSession


class TokenSession(SpanSession):
    """A session over a tokenizer and two primitives. Scores depend neither on batches nor on order."""

    decoder_start: int | None = None
    """First decoder token of an encoder-decoder model."""

    def __init__(self, tokenizer: Tokenizer, *, max_length: int, batch_tokens: int) -> None:
        super().__init__(max_length=max_length, batch_tokens=batch_tokens)
        self.tokenizer = tokenizer

    # ── primitives ──────────────────────────────────────────────────────────────────────────────────────
    @abstractmethod
    def decode_stream(
        self, requests: list[DecodeRequest], *, batch_size: int | None = None
    ) -> Iterator[tuple[int, GenerationOutput]]:
        """Generate, yielding `(index, output)` as each request finishes."""

    joins_running = False
    """Whether the session implements `decode_live`, for the model that it holds."""

    def decode_live(
        self, feed: Iterator[DecodeRequest | int | None], wants_parts: Callable[[int], bool]
    ) -> Iterator[tuple[int, GenerationPart | GenerationOutput] | None]:
        """Generate for a feed of requests and of numbers of withdrawn ones; see `evalkit.decoding.live`."""
        raise TypeError(f"{type(self).__name__} says that requests join running ones, but has no decode_live")

    # ── scoring ─────────────────────────────────────────────────────────────────────────────────────────
    def loglikelihood_continuous(
        self, requests: Iterable[tuple[Any, LoglikelihoodRequest]], *, batch_size: int | None = None
    ) -> Iterator[tuple[Any, LoglikelihoodOutput]]:
        """Yield `(request_id, output)` as batches finish."""
        keys, asked = _unzip(requests)
        pairs = self.encode(asked)
        spans: list[Span] = []
        owners: list[int] = []
        for index, pair in enumerate(pairs):
            if problem := self._pair_problem(pair):
                yield keys[index], LoglikelihoodOutput(error=problem)
            else:
                spans.append(replace(self._span(pair), tops=asked[index].logprobs or 0))
                owners.append(index)
        for position, scored in self._score(spans, batch_size):
            index = owners[position]
            if isinstance(scored, str):
                yield keys[index], LoglikelihoodOutput(error=scored)
                continue
            yield (
                keys[index],
                LoglikelihoodOutput(
                    logprob=sum(scored.logprobs),
                    is_greedy=scored.is_greedy,
                    token_count=len(scored.logprobs),
                    token_logprobs=scored.logprobs,
                    notes=pairs[index].notes + self._truncation_note(pairs[index]),
                    top_logprobs=_first_tops(scored, asked[index].logprobs),
                ),
            )

    def loglikelihood_rolling_continuous(
        self, requests: Iterable[tuple[Any, RollingLoglikelihoodRequest]], *, batch_size: int | None = None
    ) -> Iterator[tuple[Any, RollingLoglikelihoodOutput]]:
        """Yield `(request_id, output)` once all windows of a text are scored."""
        keys, asked = _unzip(requests)
        if self.is_encoder_decoder:
            problem = "an encoder-decoder model has no rolling log-likelihood"
            yield from ((key, RollingLoglikelihoodOutput(error=problem)) for key in keys)
            return
        spans: list[Span] = []
        owners: list[int] = []
        windows: list[dict[int, ScoredTokens | str | None]] = []
        for index, tokens in enumerate(self._encode_texts(asked)):
            own = list(rolling_spans(tokens, self.tokenizer.prefix_token_id, self.max_length))
            windows.append({len(spans) + offset: None for offset in range(len(own))})
            spans.extend(own)
            owners.extend([index] * len(own))
            if not own:
                yield keys[index], RollingLoglikelihoodOutput()
        for position, scored in self._score(spans, batch_size):
            index = owners[position]
            windows[index][position] = scored
            if None not in windows[index].values():
                yield keys[index], _join_windows(windows[index].values())

    def encode(self, requests: Sequence[LoglikelihoodRequest]) -> list[EncodedPair]:
        """Token ids of every pair, encoded as lm-evaluation-harness does for this kind of model."""
        if self.is_encoder_decoder:
            return encode_pairs_apart(self.tokenizer, requests)
        return encode_pairs(self.tokenizer, requests)

    def _encode_texts(self, requests: Sequence[RollingLoglikelihoodRequest]) -> list[tuple[int, ...]]:
        encoded = self.tokenizer.encode_batch([request.text for request in requests])
        return [tuple(r.input_ids if r.input_ids is not None else e) for r, e in zip(requests, encoded, strict=True)]

    def _pair_problem(self, pair: EncodedPair) -> str | None:
        if not pair.continuation:
            return "the continuation is empty"
        if len(pair.continuation) > self.max_length:
            return f"the continuation alone has {len(pair.continuation)} tokens, the context holds {self.max_length}"
        return None

    def _pair_length(self, pair: EncodedPair) -> int:
        """Fed tokens of the longer side of what the model reads at once."""
        if self.is_encoder_decoder:
            return max(len(pair.context), len(pair.continuation))
        return len(pair.context) + len(pair.continuation) - 1

    def _truncation_note(self, pair: EncodedPair) -> tuple[str, ...]:
        length = self._pair_length(pair)
        return (TRUNCATED.format(length=length, limit=self.max_length),) if length > self.max_length else ()

    def _span(self, pair: EncodedPair) -> Span:
        if self.is_encoder_decoder:
            assert self.decoder_start is not None
            return Span((self.decoder_start, *pair.continuation), 1, source=pair.context[-self.max_length :])
        return truncated_span(pair.context, pair.continuation, self.max_length)

    # ── generation ──────────────────────────────────────────────────────────────────────────────────────
    def generate_continuous(
        self, requests: Iterable[tuple[Any, GenerationRequest]], *, batch_size: int | None = None
    ) -> Iterator[tuple[Any, GenerationOutput]]:
        """Yield `(request_id, output)` in order of completion."""
        self.forget_prefix()
        keys, asked = _unzip(requests)
        ready: list[DecodeRequest] = []
        notes: dict[int, tuple[str, ...]] = {}
        for index, request in enumerate(asked):
            try:
                ids = self.prompt_ids(request)
                limit = self.prompt_limit(request)
            except EvalkitError as error:
                yield keys[index], GenerationOutput(finish_reason="error", error=one_line(error))
                continue
            if len(ids) > limit:
                notes[index] = (TRUNCATED.format(length=len(ids), limit=limit),)
            ready.append(DecodeRequest(index, ids[-limit:], request))
        prompts = {item.index: item.prompt for item in ready}
        fresh = dict(zip(prompts, fresh_tokens(list(prompts.values())), strict=True))
        sizes = [len(item.prompt) + item.request.max_new_tokens for item in ready]
        if ready:
            self.make_room(max(sizes), sum(size * item.request.n for size, item in zip(sizes, ready, strict=True)))
        for index, output in self.decode_stream(ready, batch_size=batch_size):
            # Each generated token but the last is fed once; nothing shares it.
            produced = max(0, sum(len(o.token_ids) for o in (output, *output.alternatives)) - 1)
            self._count_answered(len(prompts[index]) + produced, fresh[index] + produced)
            yield keys[index], with_notes(output, notes.get(index, ()))

    def generate_live(
        self, feed: Feed, *, wants_parts: Callable[[Any], bool] = lambda key: True
    ) -> Iterator[tuple[Any, GenerationPart | GenerationOutput]]:
        """Serve a feed until it ends; requests join those that are running where the engine has `decode_live`."""
        if not self.joins_running:
            yield from super().generate_live(feed, wants_parts=wants_parts)
            return
        self.forget_prefix()
        self.make_room(self.max_length, self.max_length)
        arrivals = LiveArrivals(self, feed)
        for answer in self.decode_live(arrivals.read(), lambda index: wants_parts(arrivals.keys[index])):
            yield from arrivals.refused()
            if answer is not None:
                yield arrivals.answered(*answer)
        yield from arrivals.refused()

    def prompt_ids(self, request: GenerationRequest) -> tuple[int, ...]:
        """Token ids of a request's prompt. Raises RequestError."""
        self._check(request)
        given = [request.prompt is not None, request.messages is not None, request.input_ids is not None]
        if sum(given) != 1:
            raise RequestError("a generation request has exactly one of prompt, messages and input_ids")
        if request.input_ids is not None:
            ids = tuple(request.input_ids)
        else:
            ids = tuple(self.tokenizer.encode_batch([self._prompt_text(request)])[0])
        return ids or (self.tokenizer.prefix_token_id,)

    def _check(self, request: GenerationRequest) -> None:
        """Raise RequestError for values that no engine could honour."""
        least = {"max_new_tokens": 1, "min_new_tokens": 0, "n": 1, "num_beams": 1, "temperature": 0}
        for name, low in least.items():
            if getattr(request, name) < low:
                raise RequestError(f"{name} is {getattr(request, name)}, and must be {low} or more")
        if request.num_beams > 1 and request.n > request.num_beams:
            raise RequestError(f"n is {request.n}, but {request.num_beams} beams give no more than that many texts")
        if any(not 0 <= token < self.tokenizer.vocab_size for token in request.input_ids or ()):
            raise RequestError(f"input_ids must be in the vocabulary, 0 to {self.tokenizer.vocab_size - 1}")

    def _prompt_text(self, request: GenerationRequest) -> str:
        if request.messages is None:
            return request.prompt or ""
        return self.apply_chat_template(
            request.messages, tools=request.tools, add_generation_prompt=True, **request.chat_template_kwargs
        )

    def prompt_limit(self, request: GenerationRequest) -> int:
        """Tokens that a prompt may have. Raises RequestError where no room is left for it."""
        if self.is_encoder_decoder:
            return self.max_length
        if request.max_new_tokens >= self.max_length:
            raise RequestError(
                f"max_new_tokens {request.max_new_tokens} leaves no room for a prompt in a context of {self.max_length}"
            )
        return self.max_length - request.max_new_tokens

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """Chat messages as the text the model sees."""
        return self.tokenizer.apply_chat_template(
            messages, tools=tools, add_generation_prompt=add_generation_prompt, **variables
        )

    # ── what the run asks ───────────────────────────────────────────────────────────────────────────────
    def token_counts(self) -> TokenCounts:
        """Tokens since the session was built."""
        return self.counts

    def too_long(self, requests: Sequence[Request]) -> list[TooLong]:
        """The requests that do not fit the context. Rolling texts always do: they are cut into windows."""
        found = []
        scoring = [(i, r) for i, r in enumerate(requests) if isinstance(r, LoglikelihoodRequest)]
        for (index, _), pair in zip(scoring, self.encode([r for _, r in scoring]), strict=True):
            if (length := self._pair_length(pair)) > self.max_length:
                fatal = len(pair.continuation) > self.max_length
                found.append(TooLong(index, length, self.max_length, fatal))
        for index, request in enumerate(requests):
            if isinstance(request, GenerationRequest):
                length, room = len(self.prompt_ids(request)), self.max_length - request.max_new_tokens
                limit = self.max_length if self.is_encoder_decoder else room
                if length > limit:
                    found.append(TooLong(index, length, max(limit, 0), fatal=limit <= 0))
        return found


def _unzip(requests: Iterable[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    pairs = list(requests)
    return [key for key, _ in pairs], [request for _, request in pairs]


def _first_tops(scored: ScoredTokens, count: int | None) -> tuple[tuple[tuple[int, float], ...], ...] | None:
    """As many likely tokens as the request wants, of as many as its pass gave."""
    if count is None:
        return None
    top = scored.top if count else ((),) * len(scored.logprobs)
    return None if top is None else tuple(likely[:count] for likely in top)


def _join_windows(windows: Iterable[ScoredTokens | str | None]) -> RollingLoglikelihoodOutput:
    logprobs: list[float] = []
    for window in windows:
        if isinstance(window, str):
            return RollingLoglikelihoodOutput(error=window)
        assert window is not None
        logprobs.extend(window.logprobs)
    return RollingLoglikelihoodOutput(sum(logprobs), len(logprobs), tuple(logprobs))
