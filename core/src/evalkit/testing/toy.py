"""A toy decoder whose logits are texts: what schedules sequences is tested on it. Needs hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from evalkit.decoding import Limits, Row, stream, take
from evalkit.requests import GenerationOutput, GenerationRequest
from evalkit.sessions import DecodeRequest

END = 0


class Letters:
    """A tokenizer of which a token is a letter; the first ends a text."""

    prefix_token_id = 1
    eos_token_ids = frozenset({END})
    eos_text = None
    vocab_size = 6

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """A token a letter."""
        return [[".abcde".index(letter) for letter in text] for text in texts]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """A letter a token."""
        return "".join(".abcde"[token] for token in ids if not (skip_special and token == END))


def following(text: Sequence[int]) -> int:
    """The token that the toy model wants: it repeats itself, and now and then ends."""
    return (3 * text[-1] + len(set(text[-3:])) + (len(text) % 5 == 0)) % 6


class Toy:
    """A decoder whose logits are the texts themselves. It checks that it is used as it must be."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.texts: list[list[int]] = []
        self.fed: list[int] = []
        self.passes = 0

    def begin(self, prefix: tuple[int, ...]) -> None:
        """Begin a group."""
        assert not self.texts
        self.prefix = list(prefix)

    def admit(self, suffixes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """New sequences; their texts."""
        assert all(suffixes)
        assert len(suffixes) == 1 or sum(map(len, suffixes)) <= self.limits.admitted_tokens
        self.texts += [[*self.prefix, *suffix] for suffix in suffixes]
        self._check()
        return [tuple(text) for text in self.texts[len(self.texts) - len(suffixes) :]]

    def step(self, fed: list[list[int]]) -> list[list[tuple[int, ...]]]:
        """Further tokens; the text behind each."""
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
        """Forget what was guessed wrong."""
        assert 1 <= tokens <= self.fed[slot]
        del self.texts[slot][len(self.texts[slot]) - self.fed[slot] + tokens :]

    def drop(self, slot: int) -> None:
        """Free a slot."""
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
    """The output of each request by its number, and the decoder that made them."""
    toy = Toy(limits)
    outputs = list(stream(toy, Letters(), items, limits, lambda request, sample: None, choose))  # type: ignore[arg-type]
    assert len(outputs) == len(items)
    return dict(outputs), toy


TEXTS = st.lists(st.integers(1, 5), min_size=1, max_size=8)
STOPS = st.sampled_from([(), ("ab",), ("c", "dd")])


@st.composite
def toy_requests(draw: Any) -> list[DecodeRequest]:
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
