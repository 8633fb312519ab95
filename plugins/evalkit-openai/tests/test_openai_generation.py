"""Generation over HTTP: each request's own values, on whatever route, and answers of every shape."""

from __future__ import annotations

from typing import Any

import pytest

from evalkit.errors import ModelError, RequestError
from evalkit.requests import GenerationRequest
from evalkit_openai import generation

PLAIN = GenerationRequest(prompt="Once upon a time", max_new_tokens=24)
HELLO = ({"role": "user", "content": "Say hello."},)


def answer(**choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "finish_reason": "stop", **choice}], "usage": {"prompt_tokens": 3}}


def test_values_travel_under_openai_names(kit: Any) -> None:
    """Every value of a request arrives, and no default is sent that a server might refuse."""
    double = kit.serve()
    session = kit.connect(double, extra_body={"user": "me"}, seed=9)
    request = GenerationRequest(
        prompt="So", max_new_tokens=7, min_new_tokens=2, temperature=0.5, top_p=0.9, top_k=5, min_p=0.1, seed=4
    )
    session.generate([request, PLAIN])
    full, plain = sorted(double.bodies("/v1/completions"), key=len, reverse=True)
    sent = {"max_tokens": 7, "min_tokens": 2, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 4}
    assert full == {"model": "fake", "prompt": "So", "user": "me", "return_token_ids": True, **sent}
    assert {"top_p", "top_k", "min_p", "min_tokens", "n", "stop", "logprobs"}.isdisjoint(plain)
    assert plain["seed"] == 9


def test_more_stops_than_the_api_takes(kit: Any) -> None:
    """Four stop strings are sent; the text ends before the first of all."""
    double = kit.serve()
    session = kit.connect(double)
    free = session.generate([PLAIN])[0].text
    stops = ("!!!", "???", "###", "@@@", free[4], "")
    output = session.generate([GenerationRequest(prompt=PLAIN.prompt, max_new_tokens=24, stop=stops)])[0]
    assert output.text == free.split(free[4])[0]
    assert output.finish_reason == "stop"
    assert double.bodies("/v1/completions")[-1]["stop"] == list(stops[:4])


@pytest.mark.parametrize("honours_n", [True, False])
def test_several_samples(kit: Any, honours_n: bool) -> None:
    """`n` texts come back, in order, also from a server that gives one at a time; they differ."""
    session = kit.connect(kit.serve(honours_n=honours_n))
    request = GenerationRequest(prompt="So", max_new_tokens=8, temperature=1.0, seed=3, n=3)
    first, again = session.generate([request, request])
    texts = [first.text, *(other.text for other in first.alternatives)]
    assert len(set(texts)) == 3
    assert first == again


def test_fields_that_a_server_ignores_are_not_sent_in_vain(kit: Any) -> None:
    """A value that would change nothing is an error that names it; other requests are answered."""
    session = kit.connect(kit.serve(own_fields=("top_k",)))
    refused, passed, plain = session.generate(
        [
            GenerationRequest(prompt="So", temperature=1.0, seed=1, min_p=0.1, max_new_tokens=4),
            GenerationRequest(prompt="So", temperature=1.0, seed=1, top_k=3, max_new_tokens=4),
            PLAIN,
        ]
    )
    assert "ignores 'min_p'. Leave it out" in refused.error
    assert passed.error is plain.error is None


@pytest.mark.parametrize(
    "values",
    [{"num_beams": 2}, {"max_new_tokens": 0}, {"messages": HELLO}, {"prompt": None}, {"n": 0}, {"temperature": -1.0}],
)
def test_what_cannot_be_asked_is_an_error(kit: Any, values: dict[str, Any]) -> None:
    """Nothing is sent for a request that has no right answer over this API."""
    double = kit.serve()
    session = kit.connect(double)
    assert session.generate([GenerationRequest(**{"prompt": "So", **values})])[0].error
    assert not double.bodies("/v1/completions")


# ── routes ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_messages_and_prompts_have_a_route_each(kit: Any) -> None:
    """Messages go to the chat route as they are, prompts are continued."""
    double = kit.serve()
    session = kit.connect(double)
    tools = ({"type": "function", "function": {"name": "f"}},)
    request = GenerationRequest(
        messages=HELLO, tools=tools, chat_template_kwargs={"enable_thinking": False}, max_new_tokens=4, logprobs=2
    )
    assert all(output.error is None for output in session.generate([PLAIN, request]))
    [body] = double.bodies("/v1/chat/completions")
    assert body["messages"] == list(HELLO)
    assert body["tools"] == list(tools)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
    assert session.takes_messages


def test_a_prompt_becomes_a_message_only_where_asked(kit: Any) -> None:
    """`api=chat` sends a prompt as one user message; else a server without /completions is named in one line."""
    double = kit.serve(routes={"chat"})
    assert kit.connect(double, api="chat").generate([PLAIN])[0].error is None
    assert double.bodies("/v1/chat/completions")[-1]["messages"] == [{"role": "user", "content": PLAIN.prompt}]
    for ask in ("generate", "too_long"):
        with pytest.raises(ModelError, match="--engine-arg api=chat"):
            getattr(kit.connect(double), ask)([PLAIN])


def test_messages_without_a_chat_route(kit: Any) -> None:
    """`api=completions` renders them with the tokenizer's template, where there is one."""
    double = kit.serve()
    session = kit.connect(double, api="completions")
    assert not session.takes_messages
    session.generate([GenerationRequest(messages=HELLO, max_new_tokens=4)])
    assert double.bodies("/v1/completions")[-1]["prompt"] == "<user>Say hello.\n<assistant>"
    bare = kit.connect(kit.serve(routes={"completions"}), api="completions")
    with pytest.raises(RequestError, match="offers no chat template"):
        bare.apply_chat_template(HELLO)
    assert "chat template" in bare.generate([GenerationRequest(messages=HELLO)])[0].error


def test_the_limit_has_two_names(kit: Any) -> None:
    """A server that knows max_completion_tokens only is understood from its refusal."""
    double = kit.serve()
    session = kit.connect(double, batch_size=0)
    message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    double.faults.append(kit.faults["status"](400, message))
    session.generate([GenerationRequest(messages=HELLO, max_new_tokens=4)] * 2)
    assert [body.get("max_completion_tokens") for body in double.bodies("/v1/chat/completions")] == [None, 4, 4]


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_calls_of_tools_and_thoughts_are_kept() -> None:
    """An answer without text is one where the model called a tool, refused, or only thought."""
    calls = [{"function": {"name": "f", "arguments": "{}"}}]
    called = answer(message={"content": None, "tool_calls": calls}, finish_reason="tool_calls")
    [output] = generation.read_answer(called, PLAIN)
    assert (output.text, output.finish_reason, output.metadata) == ("", "stop", {"tool_calls": calls})
    thought = answer(message={"content": None, "reasoning_content": "hm"}, finish_reason="length")
    [output] = generation.read_answer(thought, PLAIN)
    assert (output.text, output.finish_reason) == ("", "length")


def test_a_filtered_answer_is_an_error() -> None:
    """What a content filter held back is not the model's answer."""
    [output] = generation.read_answer(answer(text="", finish_reason="content_filter"), PLAIN)
    assert output.error


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_what_a_server_broke_off_is_no_answer(reason: str) -> None:
    """A text that the server could not finish is not scored as if it were whole."""
    with pytest.raises(ValueError, match="broke the answer off"):
        generation.read_answer(answer(text="The", finish_reason=reason), PLAIN)


def test_an_outage_tells_nothing_of_fields(kit: Any) -> None:
    """Whether a server reads a field is asked again when an outage came in between."""
    server = kit.serve(own_fields=())
    session = kit.connect(server, retries=0)
    request = GenerationRequest(prompt="So", temperature=1.0, seed=1, min_p=0.1, max_new_tokens=4)
    session.generate([PLAIN])
    server.probe_faults.append(kit.faults["status"](503))
    errors = [session.generate([request])[0].error for _ in range(2)]
    assert "503" in str(errors[0])
    assert "ignores 'min_p'" in str(errors[1])


@pytest.mark.parametrize(
    "found", [None, [], {}, {"choices": None}, {"choices": [3]}, answer(), answer(text=None), answer(message={})]
)
def test_an_answer_without_text_is_none(found: Any) -> None:
    """A missing text is never an empty one."""
    with pytest.raises(ValueError, match="the answer has no"):
        generation.read_answer(found, PLAIN)


def test_logprobs_of_both_routes() -> None:
    """Tokens, their log-probabilities and the likeliest beside them, in the one shape of the core."""
    asked = GenerationRequest(prompt="So", logprobs=1)
    chat = [{"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -0.1}]}]
    plain = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"b": -0.1}]}
    for found in ({"content": chat}, plain):
        [output] = generation.read_answer(answer(text="a", logprobs=found), asked)
        [token] = output.logprobs or ()
        assert (token.token, token.logprob, token.top) == ("a", -0.5, ((-1, "b", -0.1),))
