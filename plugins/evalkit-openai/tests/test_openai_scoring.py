"""Log-likelihoods: a server that does not honour echo is refused, one that does scores as the engine behind it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import ModelError
from evalkit.model import Model
from evalkit.requests import GenerationRequest, LoglikelihoodRequest, RollingLoglikelihoodRequest
from evalkit.scoring.pairs import MERGED
from evalkit.testing.fake import Fake
from evalkit_openai.echo import continuation_start, read_echo
from evalkit_openai.scorers import GREEDY_UNKNOWN

ECHO = {"completions", "chat", "tokenizer"}
TEXT_ONLY = {"completions"}
PAIRS = [
    LoglikelihoodRequest(context, continuation)
    for context in ("The sky is", "Two and two make ", "A\n\nB")
    for continuation in (" blue", "four", " seven hundred", "ß")
]
TEXTS = [RollingLoglikelihoodRequest("The river was low that year." * n) for n in (1, 3, 40)]


@pytest.mark.parametrize("routes", [{"completions", "eval"}, ECHO])
def test_scores_are_those_of_the_engine_behind(kit: Any, routes: set[str]) -> None:
    """By either way, scores equal those of the same model used directly; long texts are scored in windows."""
    session = kit.connect(kit.serve(routes=routes, max_length=2048))
    direct = Fake().build(Model("any"))
    for ours, theirs in zip(session.loglikelihood(PAIRS), direct.loglikelihood(PAIRS), strict=True):
        assert ours.error is None
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-9)
        assert (ours.is_greedy, ours.token_count) == (theirs.is_greedy, theirs.token_count)
    rolled = zip(session.loglikelihood_rolling(TEXTS), direct.loglikelihood_rolling(TEXTS), strict=True)
    assert all(ours.logprob == pytest.approx(theirs.logprob, abs=1e-6) for ours, theirs in rolled)


def test_long_texts_are_windowed_by_us(kit: Any) -> None:
    """Over echo a text longer than the context is scored in windows, every token once."""
    session = kit.connect(kit.serve(routes=ECHO, max_length=64))
    direct = Fake(max_length=62).build(Model("any"))
    [ours], [theirs] = session.loglikelihood_rolling(TEXTS[2:]), direct.loglikelihood_rolling(TEXTS[2:])
    assert ours.token_count == theirs.token_count == len(TEXTS[2].text)
    assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-6)


def test_prompts_go_as_text_where_there_is_no_tokenizer(kit: Any) -> None:
    """Without a tokenizer scores are the same; the boundary is found in the tokens that come back."""
    session = kit.connect(kit.serve(routes=TEXT_ONLY))
    direct = Fake().build(Model("any"))
    ascii_pairs = [pair for pair in PAIRS if pair.continuation.isascii()]
    for ours, theirs in zip(session.loglikelihood(ascii_pairs), direct.loglikelihood(ascii_pairs), strict=True):
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-9)
    assert session.describe_execution()["scoring"] == "echo, text"


def test_what_text_cannot_tell_is_an_error(kit: Any) -> None:
    """An empty context and characters that tokens cut fail alone, with the next step."""
    session = kit.connect(kit.serve(routes=TEXT_ONLY))
    fine, first, broken = session.loglikelihood(
        [PAIRS[0], LoglikelihoodRequest("", "The sky"), LoglikelihoodRequest("The sky", " ist weiß")]
    )
    assert fine.error is None
    assert "first token. Give a tokenizer" in first.error
    assert "do not spell the continuation. Give a tokenizer" in broken.error


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"echo": "ignored"}, "log-probabilities"),
        ({"echo": "shifted"}, "belong to other tokens"),
        ({"echo": "shifted", "scores_what_it_writes": False}, "belong to other tokens"),
        ({"echo": "random"}, "when it is asked again|belong to other tokens"),
        ({"echo": "equal"}, "same log-probability for every token"),
    ],
)
@pytest.mark.parametrize("routes", [ECHO, TEXT_ONLY])
def test_a_server_without_honest_echo_is_refused(
    kit: Any, routes: set[str], options: dict[str, Any], cause: str
) -> None:
    """It is refused before anything is scored, with what is wrong and what to do."""
    session = kit.connect(kit.serve(routes=routes, **options))
    with pytest.raises(ModelError, match=f"cannot score: .*({cause}).* Choose tasks that generate"):
        session.too_long(PAIRS)
    with pytest.raises(ModelError, match="cannot score"):
        session.loglikelihood(PAIRS)
    assert session.generate([GenerationRequest(prompt="So", max_new_tokens=2)])[0].error is None


def test_a_server_need_not_score_what_it_writes(kit: Any) -> None:
    """Echo is trusted, too, where what the server wrote itself is the likeliest at each place."""
    assert kit.connect(kit.serve(routes=ECHO, scores_what_it_writes=False)).scorer.greedy


def test_greedy_is_unknown_without_other_tokens(kit: Any) -> None:
    """Where the server names only the prompt's own tokens, no answer is called greedy, and the output says so."""
    session = kit.connect(kit.serve(routes=ECHO, tops=False))
    output = session.loglikelihood(PAIRS[:1])[0]
    assert not output.is_greedy
    assert output.notes == (GREEDY_UNKNOWN,)


def test_the_way_to_score_can_be_chosen(kit: Any) -> None:
    """The routes come first; echo where it is asked for; nothing where nothing is."""
    double = kit.serve()
    assert kit.connect(double).scorer.name == "eval routes"
    assert kit.connect(double, scoring="echo").scorer.name == "echo, token ids"
    assert kit.connect(double, scoring="echo", tokenizer="none").scorer.name == "echo, text"
    with pytest.raises(ModelError, match="scoring=none"):
        kit.connect(double, scoring="none").loglikelihood(PAIRS)
    with pytest.raises(ModelError, match="no scoring routes"):
        kit.connect(kit.serve(routes=ECHO), scoring="eval").loglikelihood(PAIRS)
    with pytest.raises(ModelError, match="offers no tokenizer"):
        kit.connect(kit.serve(routes=TEXT_ONLY), tokenizer="remote").loglikelihood(PAIRS)


def test_prompts_that_do_not_fit_are_found_first(kit: Any) -> None:
    """With a tokenizer, prompts longer than the context are known before the run; cut ones say so."""
    session = kit.connect(kit.serve(routes=ECHO, max_length=64), tokenizer="remote")
    long = "word " * 40
    requests = [
        LoglikelihoodRequest(long, " end"),
        GenerationRequest(prompt=long, max_new_tokens=4),
        GenerationRequest(prompt="So", max_new_tokens=4),
        LoglikelihoodRequest("So", " " + long),
    ]
    found = {item.index: item.fatal for item in session.too_long(requests)}
    assert found == {0: False, 1: False, 3: True}
    assert session.loglikelihood(requests[:1])[0].notes[0].startswith("truncated")
    assert session.generate(requests[1:2])[0].notes[0].startswith("truncated")


# ── answers of echo ─────────────────────────────────────────────────────────────────────────────────────────
@given(st.lists(st.text("ab c", min_size=1, max_size=3), min_size=2, max_size=12), st.data())
def test_the_continuation_is_found(tokens: list[str], data: st.DataObject) -> None:
    """Wherever the text is cut, scoring begins with the token that holds the cut."""
    text = "".join(tokens)
    cut = data.draw(st.integers(0, len(text) - 1))
    start, merged = continuation_start(tokens, text[cut:])
    begin = sum(map(len, tokens[:start]))
    assert begin <= cut < begin + len(tokens[start])
    assert merged == (begin < cut)


def test_a_token_over_the_boundary_is_noted(kit: Any) -> None:
    """The note is the core's."""
    assert continuation_start(["The", " sky is", " blue"], "is blue") == (1, True)
    assert "merges" in MERGED


@pytest.mark.parametrize("tokens", [["", "日"], ["", "", "🙂"]])
def test_hidden_tokens_at_the_boundary_are_not_guessed_at(tokens: list[str]) -> None:
    """A token without text before a character of several tokens may be either side's."""
    with pytest.raises(ValueError, match="where the continuation begins"):
        continuation_start(["<s>", "a", *tokens], tokens[-1])


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"choices": []},
        {"choices": [{"text": "x", "logprobs": None}]},
        {"choices": [{"logprobs": {"token_logprobs": [None, -1.0], "tokens": ["a"]}}]},
        {"choices": [{"logprobs": {"token_logprobs": [None, 2.0, -1.0], "tokens": ["a", "b", "c"]}}]},
    ],
)
def test_an_answer_that_is_none_is_refused(answer: Any) -> None:
    """Whatever is missing or impossible is an error, not a score."""
    with pytest.raises(ValueError, match=r"[a-z]"):
        read_echo(answer, (1, 2))


def test_ids_decide_where_texts_are_equal() -> None:
    """Two tokens of one text: only by their ids can the likelier be told."""
    logprobs = {"tokens": ["a", ""], "token_logprobs": [None, -3.0], "top_logprobs": [None, {"": -3.0}]}
    exact = [None, {"7": {"logprob": -3.0}, "9": {"logprob": -0.5}}]
    answer = {"choices": [{"logprobs": logprobs}]}
    assert read_echo(answer, (1, 7)).greedy == (None, True)
    answer["choices"][0]["prompt_logprobs"] = exact
    assert read_echo(answer, (1, 7)).greedy == (None, False)
    assert read_echo({**answer, "usage": {"completion_tokens": 0}}).greedy == (None, False)
