"""What lm-evaluation-harness's `local-completions` reads of a scored prompt, line by line."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.model import Model
from evalkit.requests import LoglikelihoodRequest
from evalkit.testing.fake import BOS, EOS, Fake
from evalkit_http.openai.server import ModelServer

SCORING = {"temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
IDS = [72, 101, 108, 108, 111, 32, 195, 169, 33]


def logprobs(answer: dict[str, Any], index: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = answer["choices"][index]["logprobs"]
    return found


def harness_reads(choice: dict[str, Any], context: int) -> tuple[float, bool]:
    """The sum and the greedy test, as the harness makes them."""
    values = choice["logprobs"]["token_logprobs"][context:-1]
    tops = choice["logprobs"]["top_logprobs"][context:-1]
    return sum(values), all(value == max(top.values()) for value, top in zip(values, tops, strict=True))


def test_there_is_an_entry_for_each_token_and_one_more(ask: Any) -> None:
    """A prompt of n tokens has n + 1 entries in all four lists: the generated token is the last."""
    found = logprobs(ask("/v1/completions", prompt=IDS, **SCORING))
    assert {len(values) for values in found.values()} == {len(IDS) + 1}


def test_only_the_first_entry_has_no_value(ask: Any) -> None:
    """Floats and objects everywhere but at index 0."""
    found = logprobs(ask("/v1/completions", prompt=IDS, **SCORING))
    assert found["token_logprobs"][0] is None
    assert found["top_logprobs"][0] is None
    assert all(isinstance(value, float) for value in found["token_logprobs"][1:])
    assert all(isinstance(top, dict) and top for top in found["top_logprobs"][1:])


def test_token_prompts_are_taken_as_they_are(ask: Any) -> None:
    """No BOS is added, and what is BOS already stays: the entries are those of the prompt's own tokens."""
    assert len(logprobs(ask("/v1/completions", prompt=[BOS, *IDS], **SCORING))["tokens"]) == len(IDS) + 2
    assert len(logprobs(ask("/v1/completions", prompt=[65], **SCORING))["tokens"]) == 2


def test_choices_come_in_order_one_a_prompt(ask: Any) -> None:
    """A batch of token prompts of several lengths: choice i is prompt i."""
    prompts = [IDS, [65], [66, 67], IDS[:4]]
    choices = ask("/v1/completions", prompt=prompts, **SCORING)["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert [len(choice["logprobs"]["tokens"]) - 1 for choice in choices] == [len(prompt) for prompt in prompts]
    alone = ask("/v1/completions", prompt=IDS[:4], **SCORING)["choices"][0]
    assert choices[3]["logprobs"] == alone["logprobs"]


@pytest.mark.parametrize("prompt", ["Hello é!", IDS, ["Hello é!"], [IDS]])
def test_all_forms_of_a_prompt_give_the_same(ask: Any, prompt: Any) -> None:
    """A string, token ids, and lists of them."""
    answer = ask("/v1/completions", prompt=prompt, **SCORING)
    assert logprobs(answer) == logprobs(ask("/v1/completions", prompt=IDS, **SCORING))
    assert answer["usage"] == {"prompt_tokens": len(IDS), "completion_tokens": 1, "total_tokens": len(IDS) + 1}


@given(context=st.lists(st.integers(0, EOS), min_size=1, max_size=12), data=st.data())
@settings(max_examples=25, deadline=None)
def test_the_harness_reads_the_session_s_own_scores(fake_server: ModelServer, context: list[int], data: Any) -> None:
    """Sum and greedy test are what the session says of the pair, special tokens included; greedy ones are seen."""
    session = Fake().build(Model("any"))
    request = {"context_ids": tuple(context)}
    greedy = session.loglikelihood([LoglikelihoodRequest("", "", **request, continuation_ids=(0,), logprobs=1)])
    best = greedy[0].top_logprobs[0][0][0]  # type: ignore[index]
    first = data.draw(st.sampled_from([best, 7, EOS]))
    continuation = [first, *data.draw(st.lists(st.integers(0, EOS), max_size=3))]
    (expected,) = session.loglikelihood([LoglikelihoodRequest("", "", **request, continuation_ids=tuple(continuation))])
    body = {"prompt": [context + continuation], **SCORING}
    answer = httpx.post(f"{fake_server.url}/v1/completions", json=body).json()
    read = harness_reads(answer["choices"][0], len(context))
    assert read == (pytest.approx(expected.logprob), expected.is_greedy)


def test_one_token_of_the_vocabulary_is_the_greedy_one(ask_tiny: Any) -> None:
    """Of all continuations by one token the harness takes one for greedy; each has one value, bit for bit, in both."""
    prompt = ask_tiny("/tokenize", prompt="The capital of France is")["tokens"]
    size = ask_tiny("/v1/completions", prompt=prompt, temperature=0, max_tokens=1)["usage"]["prompt_tokens"]
    choices = ask_tiny("/v1/completions", prompt=[[*prompt, token] for token in range(300)], **SCORING)["choices"]
    for choice in choices:
        found = choice["logprobs"]
        lists = (found["tokens"], found["token_logprobs"], found["top_logprobs"])
        for token, value, top in zip(*(values[1:] for values in lists), strict=True):
            assert top[token] == value
    read = [harness_reads(choice, size) for choice in choices]
    assert [greedy for _, greedy in read].count(True) <= 1
    best = max(range(len(read)), key=lambda token: read[token][0])
    assert [token for token, (_, greedy) in enumerate(read) if greedy] in ([], [best])


def test_prompts_may_be_as_long_as_the_context_less_one(ask_tiny: Any, tiny_server: ModelServer) -> None:
    """max_length - 1 tokens are scored; one more is refused in one sentence."""
    ids = [5 + number % 300 for number in range(512)]
    assert len(logprobs(ask_tiny("/v1/completions", prompt=[ids[:511]], **SCORING))["tokens"]) == 512
    refused = httpx.post(f"{tiny_server.url}/v1/completions", json={"prompt": [ids], **SCORING})
    assert refused.status_code == 400
    assert "holds 512 tokens" in refused.json()["error"]["message"]


def test_offsets_point_at_each_token_s_text(ask: Any) -> None:
    """Of a character over several tokens too: they all begin where it does."""
    text = "aé漢🙂z"
    found = ask("/v1/completions", prompt=text, **{**SCORING, "max_tokens": 0})["choices"][0]
    assert found["text"] == text
    offsets, tokens = found["logprobs"]["text_offset"], found["logprobs"]["tokens"]
    assert "".join(tokens) == text
    assert all(text[offset:].startswith(token) for offset, token in zip(offsets, tokens, strict=True))
    assert offsets == [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4]


def test_no_tokens_and_echo_score_the_prompt_alone(ask: Any) -> None:
    """max_tokens 0 keeps the log-probabilities: an entry a token, none for a generated one."""
    found = ask("/v1/completions", prompt=IDS, **{**SCORING, "max_tokens": 0})["choices"][0]
    assert len(found["logprobs"]["token_logprobs"]) == len(IDS)
    assert found["finish_reason"] == "length"


def test_echo_with_longer_answers_scores_both(ask_tiny: Any) -> None:
    """The prompt's scores are those of a scoring request, whatever is generated behind it."""
    body = {"prompt": "The capital of France", "temperature": 0, "logprobs": 1, "echo": True}
    one, more = (logprobs(ask_tiny("/v1/completions", **body, max_tokens=size)) for size in (1, 3))
    size = len(one["tokens"])
    assert more["tokens"][:size] == one["tokens"]
    assert more["token_logprobs"][1 : size - 1] == pytest.approx(one["token_logprobs"][1:-1], abs=1e-4)
    assert len(more["tokens"]) == size + 2
    assert more["token_logprobs"][size - 1] == pytest.approx(one["token_logprobs"][-1], abs=1e-4)


def test_zero_logprobs_name_the_chosen_token_alone(ask: Any) -> None:
    """And 20 name 20 tokens, or one more where the chosen one is not among them."""
    none = logprobs(ask("/v1/completions", prompt=IDS, **{**SCORING, "logprobs": 0}))
    assert all(len(top) == 1 for top in none["top_logprobs"][1:])
    many = logprobs(ask("/v1/completions", prompt=IDS, **{**SCORING, "logprobs": 20}))
    assert {len(top) for top in many["top_logprobs"][1:]} <= {20, 21}


def test_an_empty_prompt_is_scored_behind_the_prefix_token(ask: Any) -> None:
    """An empty string has one entry, the generated token's, and that has a value."""
    found = logprobs(ask("/v1/completions", prompt="", **SCORING))
    assert len(found["token_logprobs"]) == 1
    assert isinstance(found["token_logprobs"][0], float)
