"""Completions and chats through OpenAI's own client, whole and as streams."""

from __future__ import annotations

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from evalkit_http.openai.server import ModelServer, build_openai_compatible_server

GREEDY = {"model": "any", "temperature": 0, "max_tokens": 12}
TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the capital of France?"}]


def test_completions(openai_client: OpenAI) -> None:
    """Text, reason and usage; a list of prompts has its choices in order; the answers are those of each alone."""
    prompts = ["The capital of France is", "The sun is", "A man is standing"]
    alone = [openai_client.completions.create(prompt=prompt, **GREEDY).choices[0].text for prompt in prompts]
    together = openai_client.completions.create(prompt=prompts, **GREEDY)
    assert [choice.text for choice in together.choices] == alone
    assert [choice.index for choice in together.choices] == [0, 1, 2]
    assert together.usage is not None
    assert 0 < together.usage.completion_tokens <= 36


def test_streams_spell_the_whole_answer(openai_client: OpenAI) -> None:
    """Chunks joined are the answer; the last one but usage has the reason; usage comes when it is asked for."""
    whole = openai_client.completions.create(prompt="The capital", **GREEDY)
    chunks = list(
        openai_client.completions.create(
            prompt="The capital", stream=True, stream_options={"include_usage": True}, **GREEDY
        )
    )
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:-1]] == [whole.choices[0].finish_reason]
    assert chunks[-1].usage == whole.usage
    assert not any(chunk.usage for chunk in chunks[:-1])
    assert len(chunks) > 3


def test_chat_streams_spell_the_whole_answer(openai_client: OpenAI) -> None:
    """The role comes first, then text, then the reason."""
    whole = openai_client.chat.completions.create(messages=TALK, **GREEDY).choices[0]
    chunks = list(openai_client.chat.completions.create(messages=TALK, stream=True, **GREEDY))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.message.content
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason


def test_streams_of_several_samples_keep_them_apart(openai_client: OpenAI) -> None:
    """Each choice's chunks are its own, for every prompt."""
    body: dict[str, Any] = {"prompt": ["One", "Two"], "model": "any", "n": 3, "seed": 5, "max_tokens": 6}
    whole = [choice.text for choice in openai_client.completions.create(**body).choices]
    texts = [""] * 6
    for chunk in openai_client.completions.create(stream=True, **body):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == whole
    assert len(set(whole)) > 2


def test_streamed_logprobs_are_those_of_the_whole(openai_client: OpenAI) -> None:
    """Tokens, values and offsets, chunk by chunk; and in a chat's own shape."""
    body = {"prompt": "The capital", "logprobs": 2, "echo": False, **GREEDY}
    whole = openai_client.completions.create(**body).choices[0].logprobs
    parts = [chunk.choices[0].logprobs for chunk in openai_client.completions.create(stream=True, **body)]
    assert whole is not None
    assert [offset for part in parts if part for offset in part.text_offset or []] == whole.text_offset
    values = [value for part in parts if part for value in part.token_logprobs or []]
    assert values == pytest.approx(whole.token_logprobs, abs=1e-4)
    chat = openai_client.chat.completions.create(messages=TALK, logprobs=True, top_logprobs=3, **GREEDY).choices[0]
    assert chat.logprobs is not None
    for token in chat.logprobs.content or []:
        assert len(token.top_logprobs) == 3
        assert token.logprob == token.top_logprobs[0].logprob
        assert token.bytes is None or bytes(token.bytes).decode() == token.token


def test_each_request_of_a_crowd_has_its_own_values(openai_client: OpenAI) -> None:
    """Answers that run side by side have their own lengths, stops and seeds: the same as alone."""
    bodies = [
        {"prompt": "The capital", "max_tokens": 3 + number, "temperature": number % 3, "seed": number, "n": 1}
        for number in range(12)
    ]
    bodies += [{**body, "stop": ["e"]} for body in bodies]

    def text(body: dict[str, Any]) -> str:
        return openai_client.completions.create(model="any", **body).choices[0].text

    alone = [text(body) for body in bodies]
    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(text, bodies)) == alone
    assert not any("e" in found for found in alone[12:])


def test_stops_end_a_text_and_are_not_in_it(openai_client: OpenAI) -> None:
    """A string, a list, an empty list."""
    whole = openai_client.completions.create(prompt="The capital", stop=[], **GREEDY).choices[0]
    stop = whole.text[4:6]
    for given in (stop, [stop], ["never seen", stop]):
        cut = openai_client.completions.create(prompt="The capital", stop=given, **GREEDY).choices[0]
        assert cut.text == whole.text.partition(stop)[0]
        assert cut.finish_reason == "stop"


def test_a_chat_is_the_template_s_text(openai_client: OpenAI) -> None:
    """Parts of text are joined; tokens are counted as the template spells them; no token is added twice."""
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "there"}]}]
    joined = [{"role": "user", "content": "Hello\nthere"}]
    first, second = (openai_client.chat.completions.create(messages=messages, **GREEDY) for messages in (parts, joined))
    assert first.choices == second.choices
    text = "<|im_start|>user\nHello\nthere<|im_end|>\n<|im_start|>assistant\n"
    plain = openai_client.completions.create(prompt=text, **GREEDY)
    assert plain.choices[0].text == first.choices[0].message.content
    assert plain.usage == first.usage


def test_models(openai_client: OpenAI) -> None:
    """The one model is listed, and any name may be asked for; another one's card is not found."""
    (model,) = openai_client.models.list().data
    assert openai_client.models.retrieve(model.id).id == model.id == "hf"
    with pytest.raises(NotFoundError):
        openai_client.models.retrieve("gpt-4")


REFUSED = [
    ("/v1/completions", {"prompt": "a", "best_of": 3}, "best_of"),
    ("/v1/completions", {"prompt": "a", "suffix": "b"}, "suffix"),
    ("/v1/completions", {"prompt": "a", "n": 0}, "n"),
    ("/v1/completions", {"prompt": "a", "n": 129}, "n"),
    ("/v1/completions", {"prompt": "a", "logprobs": 21}, "logprobs"),
    ("/v1/completions", {"prompt": "a", "max_tokens": -1}, "max_tokens"),
    ("/v1/completions", {"prompt": "a", "max_tokens": 100_000}, "max_tokens"),
    ("/v1/completions", {"prompt": "a", "temperature": -1}, "temperature"),
    ("/v1/completions", {"prompt": "a", "presence_penalty": 1}, "presence_penalty"),
    ("/v1/completions", {"prompt": "a", "logit_bias": {"1": 5}}, "logit_bias"),
    ("/v1/completions", {"prompt": []}, "prompt"),
    ("/v1/completions", {"prompt": [[]]}, "prompt"),
    ("/v1/completions", {"prompt": [1, "a"]}, "prompt"),
    ("/v1/completions", {"prompt": [10_000_000]}, "prompt"),
    ("/v1/completions", {"prompt": [-1]}, "prompt"),
    ("/v1/completions", {"prompt": True}, "prompt"),
    ("/v1/completions", {"prompt": [[1]] * 1025}, "in parts"),
    ("/v1/completions", {}, "prompt"),
    ("/v1/completions", {"prompt": "a", "stop": 5}, "stop"),
    ("/v1/completions", {"prompt": "\ud800"}, "surrogate"),
    ("/v1/completions", {"prompt": "a" * 5000}, "holds"),
    ("/v1/chat/completions", {"messages": []}, "messages"),
    ("/v1/chat/completions", {"messages": [{"content": "a"}]}, "role"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": 5}]}, "content"),
    ("/v1/chat/completions", {"messages": TALK, "response_format": {"type": "json_object"}}, "response_format"),
    ("/v1/chat/completions", {"messages": TALK, "tool_choice": "required"}, "tool_choice"),
    ("/v1/chat/completions", {"messages": TALK, "tools": [{"type": "web"}]}, "tool"),
    ("/v1/chat/completions", {"messages": TALK, "top_logprobs": 3}, "logprobs"),
    (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "image_url",
    ),
    ("/tokenize", {"prompt": 5}, "prompt"),
    ("/detokenize", {"tokens": [10_000_000]}, "tokens"),
    ("/v1/eval/loglikelihood", {"requests": [{"context": "a"}]}, "continuation"),
    ("/v1/eval/loglikelihood", {"requests": {}}, "requests"),
]


@pytest.mark.parametrize(("path", "body", "word"), REFUSED)
def test_what_cannot_be_is_refused_in_one_sentence(
    tiny_server: ModelServer, path: str, body: dict[str, Any], word: str
) -> None:
    """Status 400 in OpenAI's shape, before anything is in line, and the server goes on."""
    data = json.dumps(body).encode()
    answer = httpx.post(tiny_server.url + path, content=data, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert word in error["message"]
    assert "\n" not in error["message"]


TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}
TEMPLATE = "{% for tool in tools or [] %}<{{ tool.function.name }}>{% endfor %}{{ messages[0].content }}{{ mood }}"


def test_the_template_sees_tools_and_variables(tiny: Path) -> None:
    """Tools, unless the client wants none called, and variables, but none that has a field of its own."""
    pytest.importorskip("evalkit_transformers")
    asked = [
        ({"tools": [TOOL]}, "<add>Hi"),
        ({"tools": [TOOL], "tool_choice": "none"}, "Hi"),
        ({"chat_template_kwargs": {"mood": " there", "tools": [TOOL], "messages": []}}, "Hi there"),
    ]
    model = {"model_args": {"chat_template": TEMPLATE}}
    with build_openai_compatible_server("transformers", str(tiny), **model) as server:
        for body, text in asked:
            talk = {"messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 1, **body}
            usage = httpx.post(f"{server.url}/v1/chat/completions", json=talk).json()["usage"]
            ids = httpx.post(f"{server.url}/tokenize", json={"prompt": text}).json()["tokens"]
            assert (usage["prompt_tokens"], usage["completion_tokens"]) == (len(ids), 1)
            assert httpx.post(f"{server.url}/detokenize", json={"tokens": ids}).json()["prompt"] == text


def test_openai_s_client_understands_refusals(openai_client: OpenAI) -> None:
    """As its own errors."""
    with pytest.raises(BadRequestError, match="holds 512 tokens"):
        openai_client.completions.create(model="any", prompt="a", max_tokens=1000)


def test_unknown_keys_and_nulls_are_tolerated(ask: Any) -> None:
    """As clients send them; an empty key is none."""
    body = {"prompt": "a", "max_tokens": 2, "user": "x", "stop": None, "logit_bias": None, "guided": {"a": [1]}}
    assert ask("/v1/completions", **body)["choices"]


def test_an_empty_bearer_is_tolerated(fake_server: ModelServer) -> None:
    """lm-evaluation-harness sends one where it has no key."""
    request = urllib.request.Request(
        f"{fake_server.url}/v1/completions",
        data=b'{"prompt": "a", "max_tokens": 1}',
        headers={"Authorization": "Bearer ", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def test_openai_s_defaults(ask_tiny: Any) -> None:
    """16 tokens, sampled: without a seed no two answers are alike, with one all are."""
    answers = [ask_tiny("/v1/completions", prompt="The") for _ in range(4)]
    assert all(answer["usage"]["completion_tokens"] <= 16 for answer in answers)
    assert len({answer["choices"][0]["text"] for answer in answers}) > 1
    same = {ask_tiny("/v1/completions", prompt="The", seed=-3)["choices"][0]["text"] for _ in range(3)}
    assert len(same) == 1


def test_no_tokens_are_an_empty_answer(ask: Any) -> None:
    """With and without a stream."""
    assert ask("/v1/completions", prompt="abc", max_tokens=0)["choices"][0]["text"] == ""
    assert ask("/v1/completions", prompt="abc", max_tokens=0, echo=True)["choices"][0]["text"] == "abc"
