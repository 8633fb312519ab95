"""Put a question behind its description and examples, as plain text or through a chat template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evalkit.requests import Message

ChatTemplate = Callable[[Sequence[Message]], str]


@dataclass(frozen=True, slots=True)
class Shot:
    """An example: its question, and its answer behind a delimiter."""

    question: str
    delimiter: str
    answer: str

    def render(self, end: str) -> str:
        """The example as text. An empty answer has neither delimiter (lm-evaluation-harness)."""
        return self.question + (self.delimiter + self.answer + end if self.answer else "")


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that stands before a document's question."""

    description: str = ""
    shots: tuple[Shot, ...] = ()
    delimiter: str = "\n\n"
    chat_template: ChatTemplate | None = None

    def render(self, question: str) -> str:
        """The text the model continues. With a chat template, shots and question are one user message."""
        shots = "".join(shot.render(self.delimiter) for shot in self.shots)
        if self.chat_template is None:
            return self.description + shots + question
        system = [{"role": "system", "content": self.description}] if self.description else []
        return self.chat_template([*system, {"role": "user", "content": shots + question}])
