"""However sequences join, leave and guess: each gives what it gives alone, within the limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.decoding import Limits, Row, stream, take, with_backoff
from evalkit.errors import OutOfMemoryError
from evalkit.requests import GenerationOutput, GenerationRequest
from evalkit.sessions import DecodeRequest

END = 0


class Letters:
    """A tokenizer of which a token is a letter; the first ends a text."""

    prefix_token_id = 1
    eos_token_ids = frozenset({END})
    eos_text = None
    vocab_size = 6

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return "".join(".abcde"[token] for token in ids if not (skip_special and token == END))


def following(text: Sequence[int]) -> int:
    """The token that the toy model wants: it repeats itself, and now and then ends."""
    return (3 * text[-1] + len(set(text[-3:])) + (len(text) % 5 == 0)) % 6


def alone(item: DecodeRequest) -> tuple[int, ...]:
    """What one request gives by itself."""
    text = list(item.prompt)
    while True:
        text.append(following(text))
        new = text[len(item.prompt) :]
        written = Letters().decode(new, skip_special=False)
        if text[-1] == END or len(new) == item.request.max_new_tokens or any(s in written for s in item.request.stop):
            return tuple(new)


class Toy:
    """A decoder whose logits are the texts themselves. It checks that it is used as it must be."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.texts: list[list[int]] = []
        self.fed: list[int] = []
        self.passes = 0

    def begin(self, prefix: tuple[int, ...]) -> None:
        assert not self.texts
        self.prefix = list(prefix)

    def admit(self, suffixes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        assert all(suffixes)
        assert len(suffixes) == 1 or sum(map(len, suffixes)) <= self.limits.admitted_tokens
        self.texts += [[*self.prefix, *suffix] for suffix in suffixes]
        self._check()
        return [tuple(text) for text in self.texts[len(self.texts) - len(suffixes) :]]

    def step(self, fed: list[list[int]]) -> list[list[tuple[int, ...]]]:
        self.passes += 1
        self.fed = [len(tokens) for tokens in fed]
        assert sum(self.fed) <= max(len(fed), self.limits.drafted_pass)
        found = []
        for text, tokens in zip(self.texts, fed, strict=True):
            found.append([(*text, *tokens[: count + 1]) for count in range(len(tokens))])
            text += tokens
        self._check()
        return found

    def keep(self, slot: int, tokens: int) -> None:
        assert 1 <= tokens <= self.fed[slot]
        del self.texts[slot][len(self.texts[slot]) - self.fed[slot] + tokens :]

    def drop(self, slot: int) -> None:
        last = self.texts.pop()
        if slot < len(self.texts):
            self.texts[slot] = last

    def _check(self) -> None:
        assert len(self.texts) <= self.limits.rows
        if self.limits.cache_tokens is not None and len(self.texts) > 1:
            own = sum(len(text) - len(self.prefix) for text in self.texts)
            assert len(self.prefix) + own <= self.limits.cache_tokens


def choose(row: Row, text: tuple[int, ...]) -> None:
    """The toy model's choice. What it reads must be the row's own text."""
    assert text == (*row.item.prompt, *row.watch.ids)
    take(Letters(), row, following(text))  # type: ignore[arg-type]


def asked(items: list[DecodeRequest], limits: Limits) -> tuple[dict[int, GenerationOutput], Toy]:
    toy = Toy(limits)
    outputs = list(stream(toy, Letters(), items, limits, lambda request, sample: None, choose))  # type: ignore[arg-type]
    assert len(outputs) == len(items)
    return dict(outputs), toy


TEXTS = st.lists(st.integers(1, 5), min_size=1, max_size=8)
STOPS = st.sampled_from([(), ("ab",), ("c", "dd")])


@st.composite
def requests(draw: Any) -> list[DecodeRequest]:
    """Prompts of which some share a long beginning."""
    shared = [draw(st.lists(st.integers(1, 5), min_size=size, max_size=size)) for size in (0, 40)]
    values = st.tuples(st.sampled_from(shared), TEXTS, st.integers(1, 30), STOPS, st.integers(1, 3))
    return [
        DecodeRequest(
            index, (*start, *tail), GenerationRequest(max_new_tokens=limit, stop=stop, n=samples, temperature=1.0)
        )
        for index, (start, tail, limit, stop, samples) in enumerate(draw(st.lists(values, max_size=8)))
    ]


LIMITS = st.builds(
    Limits,
    rows=st.integers(1, 6),
    admitted_tokens=st.integers(1, 60),
    draft_tokens=st.integers(0, 8),
    drafted_pass=st.integers(0, 20),
    cache_tokens=st.none() | st.integers(80, 160),
)


@settings(deadline=None)
@given(requests(), LIMITS)
def test_every_request_gives_what_it_gives_alone(items: list[DecodeRequest], limits: Limits) -> None:
    """Whatever shares a pass, the cache or a prefix, and whatever is guessed; limits are kept to."""
    outputs, _ = asked(items, limits)
    for item in items:
        output = outputs[item.index]
        samples = [output, *output.alternatives]
        assert [sample.token_ids for sample in samples] == [alone(item)] * item.request.n


def test_guesses_save_passes() -> None:
    """A text that repeats itself takes fewer passes than it has tokens."""
    request = GenerationRequest(max_new_tokens=60)
    item = max(
        (DecodeRequest(0, (a, b), request) for a in range(1, 6) for b in range(1, 6)), key=lambda i: len(alone(i))
    )
    plain, guessing = (asked([item], Limits(4, 100, tokens, 32))[1].passes for tokens in (0, 8))
    assert len(alone(item)) == plain + 1
    assert guessing < plain


def test_memory_that_runs_out_halves_the_rows_then_asks_one_by_one() -> None:
    """What does not fit alone fails alone; everything else is answered once."""
    items = [DecodeRequest(index, (1,), GenerationRequest(max_new_tokens=3)) for index in range(5)]
    seen: list[tuple[int, int]] = []

    def run(part: list[DecodeRequest], rows: int) -> Iterator[tuple[int, GenerationOutput]]:
        seen.append((len(part), rows))
        for item in part:
            if item.index == 2:
                raise OutOfMemoryError("no memory")
            yield item.index, GenerationOutput(text=str(item.index))

    found = dict(with_backoff(run, items, 4))
    assert seen[:3] == [(5, 4), (3, 2), (3, 1)]
    assert [found[index].text for index in (0, 1, 3, 4)] == ["0", "1", "3", "4"]
    assert found[2].error == "out of memory for this request alone: no memory"
