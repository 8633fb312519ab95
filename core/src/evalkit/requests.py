"""What is asked of a session and what it answers: frozen values, the same for every engine.

Log-probabilities are natural logarithms. An answer with `error` set is a request that failed alone; it is
reported and never scored as a wrong answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Message = Mapping[str, Any]
"""One chat message as OpenAI clients write it: `{"role": ..., "content": text or content parts}`."""

FinishReason = Literal["stop", "length", "error"]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Text to continue: exactly one of `prompt`, `messages` and `input_ids`.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1 and `min_p` 0 switch that limit off. `n` asks for several
    independent samples (the first is the output's text, the others its `alternatives`). `logprobs` asks for
    the log-probability of each generated token and of that many most likely tokens beside it.
    """

    prompt: str | None = None
    messages: Sequence[Message] | None = None
    input_ids: Sequence[int] | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    stop: Sequence[str] = ()
    max_new_tokens: int = 256
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    n: int = 1
    num_beams: int = 1
    logprobs: int | None = None

    @property
    def is_sampled(self) -> bool:
        """Whether the answer depends on a random number generator."""
        return self.temperature > 0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One generated token: its log-probability under the model, before any sampling limit."""

    token_id: int
    token: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds from the start of the request's batch: to its first token, and to its end."""

    first_token: float
    total: float


@dataclass(frozen=True, slots=True)
class GenerationOutput:
    """Generated text, ending before the first stop string."""

    text: str = ""
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason = "stop"
    logprobs: tuple[TokenLogprob, ...] | None = None
    usage: Usage | None = None
    timing: Timing | None = None
    alternatives: tuple[GenerationOutput, ...] = ()
    error: str | None = None
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GenerationPart:
    """What is new of an answer that is still being made: text that no further token can change, and its tokens."""

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    sample: int = 0
    """Number of the sample, where a request asks for several."""


@dataclass(frozen=True, slots=True)
class LoglikelihoodRequest:
    """A continuation to score given its context; the context may be empty."""

    context: str
    continuation: str
    context_ids: tuple[int, ...] | None = None
    """Token ids of the context, where the caller has encoded the pair itself (both or neither)."""
    continuation_ids: tuple[int, ...] | None = None
    logprobs: int | None = None
    """So many most likely tokens are wanted beside each scored one."""


@dataclass(frozen=True, slots=True)
class LoglikelihoodOutput:
    """Summed log-probability of the continuation; `is_greedy`: greedy decoding would have produced it."""

    logprob: float = 0.0
    is_greedy: bool = False
    token_count: int = 0
    token_logprobs: tuple[float, ...] | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] | None = None
    """At each scored token's place the most likely tokens, best first: (token id, log-probability)."""


@dataclass(frozen=True, slots=True)
class RollingLoglikelihoodRequest:
    """A whole text to score, every token exactly once."""

    text: str
    input_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class RollingLoglikelihoodOutput:
    """Summed log-probability of a text."""

    logprob: float = 0.0
    token_count: int = 0
    token_logprobs: tuple[float, ...] | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


Request = GenerationRequest | LoglikelihoodRequest | RollingLoglikelihoodRequest
Output = GenerationOutput | LoglikelihoodOutput | RollingLoglikelihoodOutput


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of the answered requests: what one pass each would cost, the distinct ones, and those computed for them.

    `unique` counts the nodes of the forest of all token sequences; `computed` is what went through the
    model, padding included. computed / unique is 1 at best.
    """

    requested: int = 0
    unique: int = 0
    computed: int = 0

    def __add__(self, other: TokenCounts) -> TokenCounts:
        return TokenCounts(self.requested + other.requested, self.unique + other.unique, self.computed + other.computed)


def generated_tokens(outputs: Iterable[Output]) -> int:
    """Tokens that were generated for these outputs, all samples of each counted."""
    texts = (output for output in outputs if isinstance(output, GenerationOutput))
    return sum(_written(sample) for output in texts for sample in (output, *output.alternatives))


def _written(output: GenerationOutput) -> int:
    return output.usage.completion_tokens if output.usage else len(output.token_ids)
