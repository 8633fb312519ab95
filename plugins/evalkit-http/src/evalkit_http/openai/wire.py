"""The bodies that clients send. Unknown keys are left out; known ones that would change an answer are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

MOST_LOGPROBS = 20
MOST_SAMPLES = 128
MOST_STOPS = 128
MOST_TOKENS = 2**31 - 1


def wrong(problem: str) -> PydanticCustomError:
    """What is wrong with a body, in these words."""
    return PydanticCustomError("wrong", "{problem}", {"problem": problem})


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise wrong("half a surrogate pair is no text") from error
    return text


def _in_one_sentence(sentence: str) -> WrapValidator:
    """One message where a value fits none of several types, instead of one for each."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            raise wrong(sentence) from error

    return WrapValidator(check)


Text = Annotated[str, AfterValidator(_encodable)]
TokenId = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
Prompt = Annotated[
    Text | list[TokenId] | list[Text] | list[list[TokenId]],
    _in_one_sentence("a prompt is a string, a list of strings, token ids or a list of lists of token ids"),
]
Stop = Annotated[
    Text | Annotated[list[Text], Field(max_length=MOST_STOPS)] | None,
    _in_one_sentence(f"stop is a string or a list of at most {MOST_STOPS} strings"),
]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Body(BaseModel):
    """What all bodies share."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        # Clients write null for "the default".
        return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


class StreamOptions(Body):
    """What a stream ends with."""

    include_usage: bool = False


class Sampling(Body):
    """How tokens are chosen. The defaults are OpenAI's."""

    temperature: Annotated[Finite, Field(ge=0)] = 1.0
    top_p: Annotated[Finite, Field(ge=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1, le=MOST_TOKENS)] = 0
    min_p: Annotated[Finite, Field(ge=0, le=1)] = 0.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop = None
    n: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] = 1
    min_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] = 0
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    presence_penalty: Finite = 0.0
    frequency_penalty: Finite = 0.0
    repetition_penalty: Finite = 1.0
    logit_bias: dict[str, Finite] = {}

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return tuple(filter(None, [self.stop] if isinstance(self.stop, str) else self.stop or ()))

    @model_validator(mode="after")
    def _refuse_what_changes_answers(self) -> Sampling:
        neutral = {"presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0, "logit_bias": {}}
        for name, value in neutral.items():
            if getattr(self, name) != value:
                raise wrong(f"{name} is not supported: leave it out")
        return self


class CompletionBody(Sampling):
    """POST /v1/completions."""

    prompt: Prompt
    max_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] = 16
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    best_of: int | None = None
    suffix: str = ""
    add_special_tokens: bool = True

    @model_validator(mode="after")
    def _check(self) -> CompletionBody:
        if self.best_of not in (None, self.n):
            raise wrong(f"best_of is not supported: leave it out, or make it n ({self.n})")
        if self.suffix:
            raise wrong("suffix is not supported: the model writes on, it fills nothing in")
        if not self.prompts:
            raise wrong("prompt is an empty list: give one prompt or more")
        if any(isinstance(prompt, list) and not prompt for prompt in self.prompts):
            raise wrong("a prompt of token ids has one token or more")
        if self.min_tokens > self.max_tokens:
            raise wrong(f"min_tokens is {self.min_tokens}, more than max_tokens ({self.max_tokens})")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """One text or list of token ids for each prompt."""
        given: Any = self.prompt
        return [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else given


class ResponseFormat(Body):
    """What an answer looks like."""

    type: str


class ChatBody(Sampling):
    """POST /v1/chat/completions."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: Any = "auto"
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] = 0
    response_format: ResponseFormat = ResponseFormat(type="text")
    chat_template_kwargs: dict[str, Any] = {}
    add_generation_prompt: bool = True

    @model_validator(mode="after")
    def _check(self) -> ChatBody:
        _check_texts(self.messages, "messages")
        _check_texts(self.tools, "tools")
        _check_texts(self.chat_template_kwargs, "chat_template_kwargs")
        if self.tool_choice not in ("none", "auto"):
            raise wrong("tool_choice is 'none' or 'auto': no answer can be forced to be a call")
        if self.response_format.type != "text":
            raise wrong(f"response_format {self.response_format.type!r} is not supported: only 'text' is")
        if self.top_logprobs and not self.logprobs:
            raise wrong("top_logprobs needs logprobs: true")
        return self


def _check_texts(value: Any, name: str) -> None:
    for text in _texts(value):
        try:
            _encodable(text)
        except PydanticCustomError as error:
            raise wrong(f"{name}: {error}") from error


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


class TokenizeBody(Body):
    """POST /tokenize."""

    prompt: Text
    add_special_tokens: bool = True


class DetokenizeBody(Body):
    """POST /detokenize."""

    tokens: list[TokenId]


def _both_or_neither(first: str, second: str) -> Callable[[Any], Any]:
    def check(item: Any) -> Any:
        if (getattr(item, first) is None) != (getattr(item, second) is None):
            raise wrong(f"{first} and {second} come together")
        return item

    return check


class PairItem(Body):
    """A continuation to score given its context, as texts or as token ids; the ids count where both are given."""

    context: Text | None = None
    continuation: Text | None = None
    context_ids: list[TokenId] | None = None
    continuation_ids: list[TokenId] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> PairItem:
        _both_or_neither("context", "continuation")(self)
        _both_or_neither("context_ids", "continuation_ids")(self)
        if self.context is None and self.context_ids is None:
            raise wrong("give context and continuation, or context_ids and continuation_ids")
        return self


class TextItem(Body):
    """A text to score, or its token ids; the ids count where both are given."""

    text: Text | None = None
    input_ids: list[TokenId] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> TextItem:
        if self.text is None and self.input_ids is None:
            raise wrong("give text or input_ids")
        return self


class PairsBody(Body):
    """POST /v1/eval/loglikelihood."""

    requests: list[PairItem]


class RollingBody(Body):
    """POST /v1/eval/loglikelihood/rolling."""

    requests: list[TextItem]
