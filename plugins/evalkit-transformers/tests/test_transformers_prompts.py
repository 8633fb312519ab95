"""What a request is made into before the model reads it: templates, token ids, limits; and what comes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_sessions import answer, prompt_ids

from evalkit.errors import RequestError
from evalkit.model import Model
from evalkit.requests import (
    GenerationRequest,
)
from evalkit.testing.reference import (
    PROMPTS,
    greedy_requests,
    same_answer,
)
from evalkit_transformers.engine import Transformers
from evalkit_transformers.session import TransformersSession

TEMPLATE = (
    "{% if tools %}{% for tool in tools %}[{{ tool.function.name }}]{% endfor %}{% endif %}"
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant{{ ' thinks' if enable_thinking else '' }}:{% endif %}"
)
MESSAGES = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"})
TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}


@pytest.mark.parametrize("as_file", [False, True])
def test_messages_tools_and_variables_reach_the_template(llama_path: Path, tmp_path: Path, as_file: bool) -> None:
    """A chat request is the text of the given template: messages, tools, variables, and the answer's opening."""
    template = tmp_path / "template.jinja"
    template.write_text(TEMPLATE, encoding="utf-8")
    model = Model(str(llama_path), chat_template=str(template) if as_file else TEMPLATE)
    with TransformersSession(Transformers(dtype="float32", device="cpu"), model) as session:
        plain = GenerationRequest(messages=MESSAGES, max_new_tokens=4)
        full = replace(plain, tools=(TOOL,), chat_template_kwargs={"enable_thinking": True})
        texts = ("system: Be brief.\nuser: Hi\nassistant:", "[weather]system: Be brief.\nuser: Hi\nassistant thinks:")
        for request, text in zip((plain, full), texts, strict=True):
            assert session.prompt_ids(request) == tuple(prompt_ids(session, text))
            written = GenerationRequest(prompt=text, max_new_tokens=4)
            assert same_answer(answer(session, request), answer(session, written))
        assert session.apply_chat_template(MESSAGES, add_generation_prompt=False).endswith("user: Hi\n")


def test_a_template_that_refuses_fails_its_request_alone(llama_path: Path) -> None:
    """A template's own error becomes that request's error, on one line; the others are answered."""
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system\nmessages') }}{% endif %}ok"
    model = Model(str(llama_path), chat_template=template)
    with TransformersSession(Transformers(dtype="float32", device="cpu"), model) as session:
        refused, answered = session.generate(
            [GenerationRequest(messages=MESSAGES[index:], max_new_tokens=2) for index in (0, 1)]
        )
        with pytest.raises(RequestError, match="no system"):
            session.apply_chat_template(MESSAGES)
    assert refused.finish_reason == "error"
    assert "no system messages" in (refused.error or "")
    assert answered.error is None


def test_special_tokens_of_the_template_are_single_tokens(llama: TransformersSession) -> None:
    """The markers of a chat template are read as the special tokens that they are, and none is added."""
    request = GenerationRequest(messages=MESSAGES)
    ids = llama.prompt_ids(request)
    assert ids.count(1) == 3
    assert ids[0] == 1
    assert llama.tokenizer.decode(ids, skip_special=False) == llama.apply_chat_template(MESSAGES)


def test_input_ids_are_taken_as_they_are(tiny: TransformersSession) -> None:
    """A prompt of token ids gives what its text gives."""
    ids = prompt_ids(tiny, PROMPTS[2])
    given_ids = answer(tiny, GenerationRequest(input_ids=ids, max_new_tokens=8))
    assert same_answer(given_ids, answer(tiny, GenerationRequest(prompt=PROMPTS[2], max_new_tokens=8)))


def test_a_request_that_cannot_fit_fails_alone(llama: TransformersSession) -> None:
    """A request that leaves no room for its prompt, or has no prompt, gets an error; the others are answered."""
    requests = [
        GenerationRequest(prompt=PROMPTS[0], max_new_tokens=3),
        GenerationRequest(prompt=PROMPTS[0], max_new_tokens=256),
        GenerationRequest(max_new_tokens=3),
        GenerationRequest(prompt="two", input_ids=[5], max_new_tokens=3),
        GenerationRequest(prompt="", max_new_tokens=3),
    ]
    outputs = llama.generate(requests)
    assert [output.error is None for output in outputs] == [True, False, False, False, True]
    assert all("\n" not in (output.error or "") for output in outputs)
    assert [output.finish_reason for output in outputs[1:4]] == ["error"] * 3
    assert "256" in (outputs[1].error or "")


def test_a_long_prompt_keeps_its_end(llama: TransformersSession) -> None:
    """Of a prompt that is too long, the last tokens that leave room for the answer are read, and a note says so."""
    ids = prompt_ids(llama, "There were three apples on the table. " * 30)
    limit = llama.max_length - 6
    assert len(ids) > limit
    long, cut = llama.generate([GenerationRequest(input_ids=part, max_new_tokens=6) for part in (ids, ids[-limit:])])
    assert long.token_ids == cut.token_ids
    assert (long.usage, len(cut.notes)) == (cut.usage, 0)
    assert any("truncated" in note for note in long.notes)


def test_outputs_arrive_as_they_finish(llama: TransformersSession) -> None:
    """generate_continuous names every request once, also those that failed."""
    requests = {f"id-{index}": request for index, request in enumerate(greedy_requests())}
    requests["bad"] = GenerationRequest(prompt="x", max_new_tokens=1000)
    requests["beams"] = GenerationRequest(prompt=PROMPTS[1], max_new_tokens=4, num_beams=2)
    found = list(llama.generate_continuous(iter(requests.items()), batch_size=2))
    assert sorted(key for key, _ in found) == sorted(requests)
    expected = llama.generate(list(requests.values()))
    outputs = dict(found)
    assert all(same_answer(outputs[key], other) for key, other in zip(requests, expected, strict=True))
