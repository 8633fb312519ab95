"""The contract between evalkit and a backend: an engine holds options, a session holds a loaded model."""

from __future__ import annotations

import dataclasses
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from evalkit.errors import RequestError
from evalkit.model import Model
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

if TYPE_CHECKING:
    from evalkit.runner import BoundModel

T = TypeVar("T")
Feed = Iterator[tuple[Any, GenerationRequest | None] | None]
"""What a server has to answer: `(key, request)`; `(key, None)` to withdraw one; None where nothing waits at present."""
UNANSWERED = "the engine left this request unanswered"
DEFAULT_BATCH_SIZE = 16
REDACTED = "***"
SECRET_WORDS = ("key", "apikey", "token", "secret", "secrets", "password", "authorization", "credentials")
SECRET_SHAPE = re.compile(
    r"(sk-|hf_|gh[opsu]_|github_pat_|glpat-|xox[abp]-|AKIA|AIza)[\w-]{12,}|(Bearer|Basic) [\w.+/=-]{20,}|.*://[^/@\s]+:[^/@\s]+@.*"
)
"""Keys of well-known services, and a URL with a password, whatever the option is called."""
SHORTEST_SECRET, SHORTEST_PART = 8, 16
"""Characters of an environment variable's value that may be a whole option, or a part of one."""


class BaseEngine(ABC):
    """A backend's options. Subclasses are dataclasses whose fields are the `--engine-arg` names."""

    __slots__ = ()

    neutral_options: ClassVar[frozenset[str]] = frozenset()
    """Options that change no answer (a batch size, say): the answer cache looks past them, and past no other."""

    @property
    def is_remote(self) -> bool:
        """Whether, with these options, a model is a name on a server that somebody else may change at any time."""
        return False

    @abstractmethod
    def build(self, model: Model) -> BaseInferenceSession:
        """Load `model` and return the session that owns it. Raises ModelError, MissingDependencyError."""

    def model(self, path: str, **options: Any) -> BoundModel:
        """This engine with a model; `.run("hellaswag", limit=100)` evaluates it."""
        # The runner stands below the contract: imported on use, so that plugins import only the contract.
        from evalkit.runner import BoundModel

        return BoundModel(self, Model(path=path, **options))

    def to_dict(self) -> dict[str, Any]:
        """The engine's class and options as plain data, secrets redacted."""
        options: dict[str, Any] = dataclasses.asdict(self) if dataclasses.is_dataclass(self) else {}
        return {"class": type(self).__name__, **redact(options)}


class BaseInferenceSession(ABC):
    """A loaded model. Use as a context manager, or call `close`."""

    __slots__ = ()

    @property
    def takes_messages(self) -> bool:
        """Whether conversations are sent as messages, because the chat template is applied elsewhere."""
        return False

    @abstractmethod
    def generate(self, requests: list[GenerationRequest], *, batch_size: int | None = None) -> list[GenerationOutput]:
        """Answer every request, in order."""

    @abstractmethod
    def generate_continuous(
        self, requests: Iterable[tuple[Any, GenerationRequest]], *, batch_size: int | None = None
    ) -> Iterator[tuple[Any, GenerationOutput]]:
        """Yield `(request_id, output)` once for every request, in order of completion."""

    @abstractmethod
    def loglikelihood(
        self, requests: list[LoglikelihoodRequest], *, batch_size: int | None = None
    ) -> list[LoglikelihoodOutput]:
        """Score every continuation given its context, in order."""

    @abstractmethod
    def loglikelihood_rolling(
        self, requests: list[RollingLoglikelihoodRequest], *, batch_size: int | None = None
    ) -> list[RollingLoglikelihoodOutput]:
        """Score every token of each text exactly once, in order."""

    @abstractmethod
    def gc(self) -> None:
        """Release reusable caches between tasks; the model stays loaded."""

    def keep_prefixes(self, wanted: bool = True) -> None:  # noqa: B027  # most sessions have nothing to keep
        """Told where calls follow each other whose texts begin alike, as at a server.

        What all texts of a scoring call begin with may then stay in the cache until something else is asked. No score
        depends on it.
        """

    @abstractmethod
    def close(self) -> None:
        """Release everything. May be called more than once."""

    def generate_live(
        self, feed: Feed, *, wants_parts: Callable[[Any], bool] = lambda key: True
    ) -> Iterator[tuple[Any, GenerationPart | GenerationOutput]]:
        """Serve a feed until it ends: yield each request's parts, where they are wanted, and then its one output.

        The feed is read between steps, so that requests join those that are running; while nothing runs it may block,
        and should. A withdrawn request is answered by an error. Here, what waits is answered together, without parts.
        """
        waiting: dict[Any, GenerationRequest] = {}
        for arrival in chain(feed, [None]):
            if arrival is None:
                left, waiting = waiting, {}
                for key, output in self.generate_continuous(tuple(left.items())):
                    del left[key]
                    yield key, output
                # Whoever feeds would wait for them for ever.
                yield from ((key, GenerationOutput(finish_reason="error", error=UNANSWERED)) for key in left)
            elif arrival[1] is not None:
                waiting[arrival[0]] = arrival[1]
            elif waiting.pop(arrival[0], None) is not None:
                yield arrival[0], GenerationOutput(finish_reason="error", error="withdrawn")

    def loglikelihood_continuous(
        self, requests: Iterable[tuple[Any, LoglikelihoodRequest]], *, batch_size: int | None = None
    ) -> Iterator[tuple[Any, LoglikelihoodOutput]]:
        """Yield `(request_id, output)` as scores arrive; here in fixed batches."""
        for batch in batched(requests, batch_size or DEFAULT_BATCH_SIZE):
            outputs = self.loglikelihood([request for _, request in batch], batch_size=batch_size)
            yield from ((key, output) for (key, _), output in zip(batch, outputs, strict=True))

    def loglikelihood_rolling_continuous(
        self, requests: Iterable[tuple[Any, RollingLoglikelihoodRequest]], *, batch_size: int | None = None
    ) -> Iterator[tuple[Any, RollingLoglikelihoodOutput]]:
        """Yield `(request_id, output)` as texts are scored; here in fixed batches."""
        for batch in batched(requests, batch_size or DEFAULT_BATCH_SIZE):
            outputs = self.loglikelihood_rolling([request for _, request in batch], batch_size=batch_size)
            yield from ((key, output) for (key, _), output in zip(batch, outputs, strict=True))

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """Render chat messages to the text the model sees. Raises RequestError where there is no template."""
        raise RequestError(
            f"{type(self).__name__} has no chat template. Leave out --apply-chat-template, or choose another engine"
        )

    def describe_execution(self) -> dict[str, Any] | None:
        """What is true of the running session now (device, dtype, attention, batching); stable values only."""
        return None

    def token_counts(self) -> TokenCounts | None:
        """Tokens since the session was built, or None where the backend does not say."""
        return None

    def too_long(self, requests: Sequence[Request]) -> list[TooLong]:
        """The requests that do not fit the model's context; empty where the session cannot tell."""
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class ContinuousSession(BaseInferenceSession):
    """A session over the three continuous calls: the calls with lists are these, put in order."""

    @abstractmethod
    def loglikelihood_continuous(
        self, requests: Iterable[tuple[Any, LoglikelihoodRequest]], *, batch_size: int | None = None
    ) -> Iterator[tuple[Any, LoglikelihoodOutput]]:
        """Yield `(request_id, output)` as scores arrive."""

    @abstractmethod
    def loglikelihood_rolling_continuous(
        self, requests: Iterable[tuple[Any, RollingLoglikelihoodRequest]], *, batch_size: int | None = None
    ) -> Iterator[tuple[Any, RollingLoglikelihoodOutput]]:
        """Yield `(request_id, output)` as texts are scored."""

    def generate(self, requests: list[GenerationRequest], *, batch_size: int | None = None) -> list[GenerationOutput]:
        """Answer every request, in order."""
        return _in_order(self.generate_continuous(enumerate(requests), batch_size=batch_size))

    def loglikelihood(
        self, requests: list[LoglikelihoodRequest], *, batch_size: int | None = None
    ) -> list[LoglikelihoodOutput]:
        """Score every continuation given its context, in order."""
        return _in_order(self.loglikelihood_continuous(enumerate(requests), batch_size=batch_size))

    def loglikelihood_rolling(
        self, requests: list[RollingLoglikelihoodRequest], *, batch_size: int | None = None
    ) -> list[RollingLoglikelihoodOutput]:
        """Score every token of each text exactly once, in order."""
        return _in_order(self.loglikelihood_rolling_continuous(enumerate(requests), batch_size=batch_size))


def _in_order(outputs: Iterable[tuple[int, T]]) -> list[T]:
    return [output for _, output in sorted(outputs, key=lambda pair: pair[0])]


@dataclasses.dataclass(frozen=True, slots=True)
class TooLong:
    """Request number `index` needs `length` tokens where `limit` fit; `fatal`: truncation cannot help."""

    index: int
    length: int
    limit: int
    fatal: bool = False


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive lists of at most `size` items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def redact(value: Any, name: str = "") -> Any:
    """A copy of plain data in which secrets are replaced by `REDACTED`: by the name of their key, or by their look."""
    if isinstance(value, Mapping):
        return {key: redact(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item, name) for item in value]
    return REDACTED if isinstance(value, str) and value and (_names_secret(name) or _is_secret(value)) else value


def _names_secret(name: str) -> bool:
    # "max_tokens" and "tokenizer" name no secret: only a whole word does, as in "api_key" and "apiKey". "api_key_env"
    # says where one is.
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]
    return words[-1:] != ["env"] and any(word in SECRET_WORDS for word in words)


def _is_secret(text: str) -> bool:
    """Whether `text` looks like a secret, or is or holds one of the environment's."""
    if SECRET_SHAPE.fullmatch(text):
        return True
    secrets = (value for name, value in os.environ.items() if len(value) >= SHORTEST_SECRET and _names_secret(name))
    # A short one may be a plain word, which any text may hold.
    return any(secret == text or (len(secret) >= SHORTEST_PART and secret in text) for secret in secrets)


def without_redacted(value: Any) -> Any:
    """A copy of plain data without what `redact` replaced: an option left out has its default again."""
    if isinstance(value, Mapping):
        return {key: without_redacted(item) for key, item in value.items() if item != REDACTED}
    if isinstance(value, (list, tuple)):
        return [without_redacted(item) for item in value if item != REDACTED]
    return value
