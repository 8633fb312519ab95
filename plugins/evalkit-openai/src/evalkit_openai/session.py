"""The session: the contract over a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from evalkit.engine import ContinuousSession, TooLong
from evalkit.errors import ConfigError, ModelError, RequestError, one_line
from evalkit.model import Model
from evalkit.requests import (
    GenerationOutput,
    GenerationRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Message,
    Request,
    RollingLoglikelihoodOutput,
    RollingLoglikelihoodRequest,
)
from evalkit.scoring.pairs import Tokenizer, encode_pairs
from evalkit.tokenizers import load_tokenizer
from evalkit_openai.client import Client
from evalkit_openai.engine import OpenAICompatible
from evalkit_openai.generation import check
from evalkit_openai.generator import Generator, Prompt
from evalkit_openai.probe import check_echo
from evalkit_openai.scorers import TRUNCATED, Echo, EvalRoutes, Scorer
from evalkit_openai.server import Server
from evalkit_openai.tokenizers import RemoteTokenizer, remote_tokenizer
from evalkit_openai.workers import Job, Workers

MODEL_FIELDS = ("revision", "dtype", "adapter", "options")
SCORES = "Choose tasks that generate, or a server that scores: evalkit serve-model, vLLM, SGLang"


class OpenAISession(ContinuousSession):
    """A model behind a server. What the server can do is found out when it is first needed."""

    def __init__(self, engine: OpenAICompatible, model: Model) -> None:
        if unused := [name for name in MODEL_FIELDS if getattr(model, name)]:
            raise ConfigError(f"the server decides about {unused[0]!r}. Leave out --model-arg {unused[0]}=")
        self.engine = engine
        self.model = model
        self.client = Client(engine)
        self.workers = Workers(self.client.close)
        self.server = Server(self.client, model.path)
        self._tokenizers: dict[str, Tokenizer | None] = {}
        self._scorer: Scorer | None = None
        try:
            self.workers.run(self.server.connect)
        except BaseException:
            self.close()
            raise
        self.max_length = engine.max_length or model.max_length or self.server.max_length
        self.generator = Generator(self.client, self.server)

    # ── tokens ──────────────────────────────────────────────────────────────────────────────────────────
    @property
    def tokenizer(self) -> Tokenizer | None:
        """The local tokenizer, the server's, or None. Raises ModelError where the one asked for is not there."""
        if "found" not in self._tokenizers:
            self._tokenizers["found"] = self._find_tokenizer()
        return self._tokenizers["found"]

    def _find_tokenizer(self) -> Tokenizer | None:
        chosen, given = self.engine.tokenizer, self.model.tokenizer_path
        if chosen == "none":
            return None
        if chosen not in ("auto", "remote") or (chosen == "auto" and given):
            return load_tokenizer(replace(self.model, tokenizer_path=given if chosen == "auto" else chosen))
        try:
            return remote_tokenizer(self.client, self.workers, self.model.path, self.model.chat_template)
        except ModelError:
            if chosen == "remote":
                raise
            return None

    def _own_tokenizer(self) -> Tokenizer | None:
        """The tokenizer where one was asked for, or is in use already: others are not worth the requests."""
        asked = self.engine.tokenizer not in ("auto", "none") or self.model.tokenizer_path
        return self.tokenizer if asked else self._tokenizers.get("found")

    # ── scoring ─────────────────────────────────────────────────────────────────────────────────────────
    @property
    def scorer(self) -> Scorer:
        """How this server scores. Raises ModelError where it cannot, rather than score at chance."""
        if self._scorer is None:
            self._scorer = self._find_scorer()
        return self._scorer

    def _find_scorer(self) -> Scorer:
        scoring = self.engine.scoring
        if scoring == "none":
            raise ModelError(f"scoring=none asks for no log-likelihoods. {SCORES}")
        if scoring in ("auto", "eval") and self.workers.run(partial(EvalRoutes.probe, self.client, self.server)):
            return EvalRoutes(self.client, self.server)
        if scoring == "eval":
            raise ModelError(
                f"the server at {self.client.url} has no scoring routes (/v1/eval/loglikelihood). "
                "Use --engine-arg scoring=echo, or serve the model with evalkit serve-model"
            )
        return self._find_echo()

    def _find_echo(self) -> Scorer:
        problem = ""
        for tokenizer in dict.fromkeys((self.tokenizer, None)):
            encode = None if tokenizer is None else partial(_encode, tokenizer)
            try:
                greedy = check_echo(self._complete, encode)
            except (ValueError, LookupError, TypeError, RequestError) as error:
                problem = one_line(error)
            else:
                return Echo(self.client, self.server, tokenizer, self.max_length, greedy=greedy)
        raise ModelError(f"the server at {self.client.url} cannot score: {problem}. {SCORES}")

    def _complete(self, body: dict[str, Any]) -> Any:
        full = {"model": self.server.model, **body, **self.engine.extra_body}
        return self.workers.run(partial(self.client.post, "/completions", full))

    def loglikelihood_continuous(
        self, requests: Iterable[tuple[Any, LoglikelihoodRequest]], *, batch_size: int | None = None
    ) -> Iterator[tuple[Any, LoglikelihoodOutput]]:
        """Yield `(request_id, output)` as scores arrive."""
        if pairs := list(requests):
            in_flight = self._in_flight(batch_size)
            yield from _flat(self.workers.stream(self.scorer.score(pairs, in_flight), in_flight))

    def loglikelihood_rolling_continuous(
        self, requests: Iterable[tuple[Any, RollingLoglikelihoodRequest]], *, batch_size: int | None = None
    ) -> Iterator[tuple[Any, RollingLoglikelihoodOutput]]:
        """Yield `(request_id, output)` as texts are scored."""
        if texts := list(requests):
            in_flight = self._in_flight(batch_size)
            yield from _flat(self.workers.stream(self.scorer.roll(texts, in_flight), in_flight))

    # ── generation ──────────────────────────────────────────────────────────────────────────────────────
    @property
    def takes_messages(self) -> bool:
        """Whether conversations are sent as they are, for the server's own template."""
        return self.engine.api == "chat" or (self.engine.api == "auto" and self.workers.run(self.server.has_chat))

    def generate_continuous(
        self, requests: Iterable[tuple[Any, GenerationRequest]], *, batch_size: int | None = None
    ) -> Iterator[tuple[Any, GenerationOutput]]:
        """Yield `(request_id, output)` in order of completion; an answer that arrives is replaced by a request."""
        jobs = ((key, self._generation(request)) for key, request in requests)
        yield from self.workers.stream(jobs, self._in_flight(batch_size))

    def _generation(self, request: GenerationRequest) -> Job[GenerationOutput]:
        try:
            check(request)
            prompt = None if self._is_chat(request) else self._prompt(request)
        except RequestError as error:
            return partial(_failed, one_line(error))
        return partial(self.generator.answer, request, prompt)

    def _is_chat(self, request: GenerationRequest) -> bool:
        return self.engine.api == "chat" or (self.engine.api == "auto" and request.messages is not None)

    def _prompt(self, request: GenerationRequest) -> Prompt:
        """What /completions is sent: the text, or token ids where it had to be cut. Raises RequestError."""
        if request.input_ids is not None:
            return Prompt(list(request.input_ids))
        text = request.prompt or ""
        if request.messages is not None:
            text = self.apply_chat_template(request.messages, tools=request.tools, **request.chat_template_kwargs)
        tokenizer = self._own_tokenizer()
        if tokenizer is None or self.max_length is None:
            return Prompt(text)
        ids, room = _encode(tokenizer, text), self.max_length - request.max_new_tokens
        if len(ids) <= room:
            return Prompt(text)
        if room <= 0:
            raise RequestError(f"{request.max_new_tokens} new tokens leave no room in a context of {self.max_length}")
        return Prompt(ids[-room:], (TRUNCATED.format(length=len(ids), limit=room),))

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """Chat messages as text, where there is a tokenizer to do it. Raises RequestError elsewhere."""
        if self.tokenizer is None:
            raise RequestError(
                f"the server at {self.client.url} offers no chat template. Give a tokenizer with "
                "--engine-arg tokenizer=PATH, or leave out --apply-chat-template"
            )
        return self.tokenizer.apply_chat_template(
            messages, tools=tools, add_generation_prompt=add_generation_prompt, **variables
        )

    def _in_flight(self, batch_size: int | None) -> int:
        return max(1, self.engine.batch_size if batch_size is None else batch_size)

    # ── what the run asks ───────────────────────────────────────────────────────────────────────────────
    def too_long(self, requests: Sequence[Request]) -> list[TooLong]:
        """The requests that do not fit, as far as a tokenizer tells. Raises ModelError for what the server cannot do.

        A run calls this before its first request.
        """
        pairs = [(i, r) for i, r in enumerate(requests) if isinstance(r, LoglikelihoodRequest)]
        written = [(i, r) for i, r in enumerate(requests) if isinstance(r, GenerationRequest)]
        # Asking for the scorer finds out whether the server can score.
        if len(written) < len(requests) and not isinstance(self.scorer, Echo):
            pairs = []
        if any(not self._is_chat(request) for _, request in written):
            self.workers.run(self.server.completions)
        return [*self._long_pairs(pairs), *self._long_prompts(written)]

    def _long_pairs(self, pairs: Sequence[tuple[int, LoglikelihoodRequest]]) -> Iterator[TooLong]:
        if (tokenizer := self._own_tokenizer()) is None or self.max_length is None:
            return
        limit = self.max_length - 1
        encoded = encode_pairs(tokenizer, [request for _, request in pairs])
        for (index, _), pair in zip(pairs, encoded, strict=True):
            if (length := len(pair.context) + len(pair.continuation)) > limit:
                yield TooLong(index, length, limit, fatal=len(pair.continuation) >= limit)

    def _long_prompts(self, requests: Sequence[tuple[int, GenerationRequest]]) -> Iterator[TooLong]:
        texts = [(i, r) for i, r in requests if r.prompt is not None]
        if not texts or (tokenizer := self._own_tokenizer()) is None or self.max_length is None:
            return
        encoded = tokenizer.encode_batch([request.prompt or "" for _, request in texts])
        for (index, request), ids in zip(texts, encoded, strict=True):
            room = self.max_length - request.max_new_tokens
            if len(ids) > room:
                yield TooLong(index, len(ids), max(room, 0), fatal=room <= 0)

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────
    def gc(self) -> None:
        """Release encoded texts."""
        if isinstance(tokenizer := self._tokenizers.get("found"), RemoteTokenizer):
            tokenizer.forget()

    def close(self) -> None:
        """Close the connections."""
        self.workers.close()

    def describe_execution(self) -> dict[str, Any]:
        """The server, what it says of its model, and what was found out about it."""
        entry, headers = self.server.entry, self.client.headers
        found = {
            "backend": "openai",
            "base_url": self.client.url,
            "model": self.server.model,
            "owned_by": entry.get("owned_by"),
            "root": entry.get("root"),
            "server": headers.get("server"),
            "server_version": self.server.version or headers.get("openai-version"),
            "api": self.engine.api,
            "scoring": self._scorer.name if self._scorer else None,
            "tokenizer": self._tokenizer_name(),
            "max_length": self.max_length,
            "in_flight": self._in_flight(None),
        }
        return {name: value for name, value in found.items() if value is not None}

    def _tokenizer_name(self) -> str | None:
        if (tokenizer := self._tokenizers.get("found")) is None:
            return None
        return "remote" if isinstance(tokenizer, RemoteTokenizer) else "local"


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode_batch([text])[0]


async def _failed(message: str) -> GenerationOutput:
    return GenerationOutput(finish_reason="error", error=message)


def _flat(groups: Iterable[tuple[list[Any], list[Any]]]) -> Iterator[tuple[Any, Any]]:
    for keys, outputs in groups:
        yield from zip(keys, outputs, strict=True)
