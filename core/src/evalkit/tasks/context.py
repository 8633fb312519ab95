"""Put a question behind its description and examples, as plain text or through a chat template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.engine import BaseInferenceSession
from evalkit.requests import Message

ChatTemplate = Callable[..., str]
"""`template(messages, add_generation_prompt=True)` gives the text of a conversation."""


@dataclass(frozen=True, slots=True)
class SessionTemplate:
    """A session's chat template with its variables; `sends_messages`: what is generated needs no text."""

    session: BaseInferenceSession
    variables: Mapping[str, Any]
    sends_messages: bool

    def __call__(self, messages: Sequence[Message], **more: Any) -> str:
        """The text of a conversation. Raises RequestError where the session has no template."""
        return self.session.apply_chat_template(messages, **{**self.variables, **more})


def chat_template(session: BaseInferenceSession, variables: Mapping[str, Any]) -> SessionTemplate:
    """The template of `session`."""
    return SessionTemplate(session, variables, session.takes_messages)


@dataclass(frozen=True, slots=True)
class Shot:
    """An example: its question, and its answer behind a delimiter."""

    question: str
    delimiter: str
    answer: str

    def render(self, end: str) -> str:
        """The example as text. An empty answer has neither delimiter (lm-evaluation-harness)."""
        return self.question + (self.delimiter + self.answer + end if self.answer else "")

    def turns(self) -> list[Message]:
        """The example as turns of a conversation."""
        answer = [_message("assistant", self.answer)] if self.answer else []
        return [_message("user", self.question), *answer]


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that stands around a document's question.

    `system` is the user's own instruction, before the task's description. `answer_prefix` begins the answer: the model
    goes on from it. With a chat template, examples are turns of their own if `multiturn`, else part of the question.
    """

    description: str = ""
    shots: tuple[Shot, ...] = ()
    delimiter: str = "\n\n"
    chat_template: ChatTemplate | None = None
    system: str = ""
    multiturn: bool = False
    answer_prefix: str = ""
    answer_delimiter: str = " "

    def render(self, question: str) -> str:
        """The text the model continues."""
        if self.chat_template is None:
            shots = "".join(shot.render(self.delimiter) for shot in self.shots)
            return self.instruction + shots + joined(question, self.answer_prefix, self.answer_delimiter)
        return self._conversation(self.chat_template, question)

    def asked(self, question: str) -> dict[str, Any]:
        """What a GenerationRequest asks with: messages where the session takes them, else the text."""
        template = self.chat_template
        # The beginning of an answer is text: few servers go on from a message.
        if isinstance(template, SessionTemplate) and template.sends_messages and not self.answer_prefix:
            return {"messages": tuple(self._turns(question)), "chat_template_kwargs": dict(template.variables)}
        return {"prompt": self.render(question)}

    @property
    def instruction(self) -> str:
        """The user's instruction and the task's description."""
        return joined(self.system, self.description, self.delimiter)

    def _turns(self, question: str) -> list[Message]:
        turns = [_message("system", self.instruction)] if self.instruction else []
        if self.multiturn:
            turns += [turn for shot in self.shots for turn in shot.turns()]
            turns.append(_message("user", question))
        else:
            shots = "".join(shot.render(self.delimiter) for shot in self.shots)
            turns.append(_message("user", shots + question))
        return turns

    def _conversation(self, template: ChatTemplate, question: str) -> str:
        turns = self._turns(question)
        if not self.answer_prefix:
            return template(turns)
        return continued(template, [*turns, _message("assistant", self.answer_prefix)])


def continued(template: ChatTemplate, messages: Sequence[Message]) -> str:
    """The text of a conversation whose last message the model goes on with: nothing stands behind that message."""
    text = template(messages, add_generation_prompt=False)
    last = str(messages[-1]["content"])
    # Some templates strip the message.
    stripped = last.strip()
    end = text.rindex(stripped) + len(stripped)
    return text[:end] + last[len(last.rstrip()) :]


def joined(before: str, after: str, delimiter: str) -> str:
    """Both texts, with `delimiter` between them where neither has white space there."""
    if before and after and not (before[-1].isspace() or after[0].isspace()):
        return before + delimiter + after
    return before + after


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
