"""A prompt is the harness's, as plain text and through a chat template, with instructions, turns and begun answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.model import Model
from evalkit.tasks.context import Context, SessionTemplate, Shot, chat_template, joined
from evalkit.testing.fake import Fake

SHOTS = (Shot("Q1", " ", "A1"), Shot("Q2", " ", ""))


def _template(messages: Sequence[Any], *, add_generation_prompt: bool = True) -> str:
    turns = "".join(f"<{m['role']}>{m['content']}</>\n" for m in messages)
    return turns + ("<assistant>" if add_generation_prompt else "")


def _stripping(messages: Sequence[Any], *, add_generation_prompt: bool = True) -> str:
    turns = "".join(f"<{m['role']}>{m['content'].strip()}</>\n" for m in messages)
    return turns + ("<assistant>" if add_generation_prompt else "")


def test_an_instruction_stands_before_the_description() -> None:
    """Behind the delimiter of examples, unless one of them has white space there."""
    assert Context("Answer.", SHOTS[:1], system="Be brief.").render("Q") == "Be brief.\n\nAnswer.Q1 A1\n\nQ"
    assert Context("Answer.\n", system="Be brief.\n").render("Q") == "Be brief.\nAnswer.\nQ"


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [("a", "b", "a b"), ("a ", "b", "a b"), ("a", "\nb", "a\nb"), ("", "b", "b"), ("a", "", "a")],
)
def test_texts_are_joined_by_white_space_once(before: str, after: str, text: str) -> None:
    """The delimiter only goes where there is none."""
    assert joined(before, after, " ") == text


def test_a_conversation_in_one_turn() -> None:
    """Examples are part of the question."""
    context = Context("D", SHOTS, chat_template=_template, system="S")
    assert context.render("Q") == "<system>S\n\nD</>\n<user>Q1 A1\n\nQ2Q</>\n<assistant>"


def test_a_conversation_in_several_turns() -> None:
    """Each example is a question and an answer; an empty answer is no turn."""
    context = Context("", SHOTS, chat_template=_template, multiturn=True)
    assert context.render("Q") == "<user>Q1</>\n<assistant>A1</>\n<user>Q2</>\n<user>Q</>\n<assistant>"


def test_a_begun_answer_is_gone_on_with() -> None:
    """As text behind the question; in a conversation within the assistant's turn, which stays open."""
    assert Context(answer_prefix="It is").render("Q") == "Q It is"
    assert Context(answer_prefix="It is").render("Q\n") == "Q\nIt is"
    context = Context(chat_template=_template, answer_prefix="It is")
    assert context.render("Q") == "<user>Q</>\n<assistant>It is"


def test_white_space_of_a_begun_answer_survives_the_template() -> None:
    """Many templates strip what is said."""
    context = Context(chat_template=_stripping, answer_prefix="```python\n")
    assert context.render("Q") == "<user>Q</>\n<assistant>```python\n"


def test_a_session_may_take_messages() -> None:
    """Where the server applies the template, a question is asked in messages; what begins an answer is still text."""
    session: BaseInferenceSession = Fake().build(Model("any"))
    template = SessionTemplate(session, {"enable_thinking": False}, sends_messages=True)
    context = Context("Answer.", SHOTS[:1], chat_template=template, multiturn=True)
    asked = context.asked("Q")
    assert [message["role"] for message in asked["messages"]] == ["system", "user", "assistant", "user"]
    assert asked["chat_template_kwargs"] == {"enable_thinking": False}
    assert "prompt" not in asked
    begun = Context(chat_template=template, answer_prefix="So:")
    assert begun.asked("Q") == {"prompt": begun.render("Q")}
    assert not chat_template(session, {}).sends_messages
    assert Context(chat_template=chat_template(session, {})).asked("Q") == {"prompt": "<user>Q\n<assistant>"}
