"""Generation for a server: requests arrive, and are withdrawn, while others are running."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from evalkit.decoding import sampling
from evalkit.decoding.group import Choose, Decoder, Group, Limits
from evalkit.decoding.rows import MakeGenerator, Row, make_rows
from evalkit.errors import OutOfMemoryError, one_line
from evalkit.requests import GenerationOutput, GenerationPart
from evalkit.scoring import Tokenizer, cut_at_stops
from evalkit.scoring.shared import LEAST_SHARED, common_length, prefix_groups
from evalkit.sessions import DecodeRequest

Feed = Iterator[DecodeRequest | int | None]
"""What arrives: requests, numbers of requests that are withdrawn, and None where nothing waits at present."""
LiveAnswers = Iterator[tuple[int, GenerationPart | GenerationOutput] | None]
"""Parts of answers and whole answers; None, so that whoever reads is asked as often as the feed is."""
RECENT = 16
"""Prompts that are remembered, to find out which prefix is worth keeping."""
INCOMPLETE = "\ufffd"
"""What a character is decoded to of which not all bytes are there."""


def live(
    decoder: Decoder,
    tokenizer: Tokenizer,
    feed: Feed,
    limits: Limits,
    wants_parts: Callable[[int], bool],
    generator: MakeGenerator = sampling.generator,
    choose: Choose | None = None,
) -> LiveAnswers:
    """Answer what arrives until the feed ends; a withdrawn request is answered by an error.

    Those that share a long prefix run together, and it is computed once. One that would better run behind another
    prefix waits, as do all behind it, until those that are running are done. Raises OutOfMemoryError.
    """
    choose = choose or functools.partial(sampling.choose, tokenizer)
    inbox = _Inbox(feed)
    while not (inbox.ended and not inbox.held):
        yield from map(_withdrawn, inbox.read())
        if not inbox.held:
            yield None
            continue
        prefix, items = inbox.first_group()
        rows = [row for item in items for row in make_rows(tokenizer, item, generator)]
        group = _LiveGroup(decoder, tokenizer, rows, len(prefix), limits, choose)
        yield from group.answer(inbox, prefix, wants_parts, generator)


def live_with_backoff(run: Callable[[Feed, int], LiveAnswers], feed: Feed, rows: int) -> LiveAnswers:
    """`run(feed, rows)`; where memory runs out, what is not answered goes on with half the rows, then one by one.

    An answer of which parts are out cannot begin anew: it ends with an error.
    """
    left: dict[int, DecodeRequest] = {}
    begun: set[int] = set()

    def arrivals() -> Feed:
        for item in feed:
            if isinstance(item, DecodeRequest):
                left[item.index] = item
            yield item

    source, again = arrivals(), list[DecodeRequest]()
    while True:
        alone = rows == 1 and bool(again)
        given: Feed = iter(again[:1]) if alone else chain(again, source)
        again, failure = again[1:] if alone else [], ""
        try:
            for answer in run(given, rows):
                if answer is not None and isinstance(answer[1], GenerationPart):
                    begun.add(answer[0])
                elif answer is not None:
                    left.pop(answer[0], None)
                    begun.discard(answer[0])
                yield answer
        except OutOfMemoryError as error:
            failure = one_line(error)
        if failure:
            lost = [*begun, *list(left)[:1]] if rows == 1 else list(begun)
            for index in dict.fromkeys(lost):
                del left[index]
                yield index, _error(f"out of memory: {failure}")
            begun.clear()
            again, rows = list(left.values()), max(1, rows // 2)
        elif not alone:
            return


class _Inbox:
    """What has arrived and has not begun."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.held: deque[DecodeRequest] = deque()
        self.recent: deque[tuple[int, ...]] = deque(maxlen=RECENT)
        self.ended = False

    def read(self) -> list[int]:
        """Take in what has arrived; the numbers of what was withdrawn."""
        withdrawn: list[int] = []
        for item in self.feed:
            if item is None:
                return withdrawn
            if isinstance(item, DecodeRequest):
                self.held.append(item)
            else:
                self.held = deque(held for held in self.held if held.index != item)
                withdrawn.append(item)
        self.ended = True
        return withdrawn

    def first_group(self) -> tuple[tuple[int, ...], list[DecodeRequest]]:
        """The oldest request with those that share a long prefix with it, and the prefix; they are held no more."""
        items = list(self.held)
        (group,) = (group for group in prefix_groups([item.prompt for item in items]) if 0 in group.members)
        members = [items[index] for index in sorted(group.members)]
        depth = group.prefix
        if len(members) == 1:
            shared = self._shared(members[0].prompt)
            depth = shared if shared >= LEAST_SHARED else 0
        chosen = {item.index for item in members}
        self.held = deque(item for item in items if item.index not in chosen)
        self.recent.extend(item.prompt for item in members)
        return members[0].prompt[:depth], members

    def joining(self, prefix: tuple[int, ...]) -> list[DecodeRequest]:
        """The oldest requests, as long as they are at home behind the prefix; they are held no more."""
        found = []
        while self.held and self._fits(self.held[0].prompt, prefix):
            found.append(self.held.popleft())
            self.recent.append(found[-1].prompt)
        return found

    def _fits(self, prompt: tuple[int, ...], prefix: tuple[int, ...]) -> bool:
        begins = len(prompt) > len(prefix) and prompt[: len(prefix)] == prefix
        return begins and self._shared(prompt) < len(prefix) + LEAST_SHARED

    def _shared(self, prompt: tuple[int, ...]) -> int:
        """Tokens that a prompt shares at most with recent ones; its last token is always its own."""
        return max((min(common_length(prompt, other), len(prompt) - 1) for other in self.recent), default=0)


class _LiveGroup(Group):
    """A group that others join."""

    def answer(
        self, inbox: _Inbox, prefix: tuple[int, ...], wants_parts: Callable[[int], bool], generator: MakeGenerator
    ) -> LiveAnswers:
        """Run until nothing is left and what waits belongs elsewhere, or the feed has ended."""
        self.slots, self.sent = self.limits.rows, dict[int, _Sent]()
        self.decoder.begin(prefix)
        while True:
            yield from self._withdraw(inbox.read())
            yield None
            for item in inbox.joining(prefix):
                self.waiting.extend(make_rows(self.tokenizer, item, generator))
            if not (self.waiting or self.active):
                if inbox.held or inbox.ended:
                    return
                continue
            if joining := self._joining():
                self._admit(joining)
            else:
                self._step()
            for row in self.active:
                if wants_parts(row.item.index):
                    yield from self._part(row)
            yield from self._leave()

    def _withdraw(self, numbers: Sequence[int]) -> LiveAnswers:
        for number in numbers:
            self.waiting = deque(row for row in self.waiting if row.item.index != number)
            self.finished.pop(number, None)
            for slot in reversed(range(len(self.active))):
                if self.active[slot].item.index == number:
                    self._free(slot)
            yield _withdrawn(number)

    def _free(self, slot: int) -> None:
        self.sent.pop(id(self.active[slot]), None)
        super()._free(slot)

    def _part(self, row: Row) -> Iterator[tuple[int, GenerationPart]]:
        """What is new of a row and cannot change any more."""
        sent = self.sent.setdefault(id(row), _Sent())
        text = settled_text(self.tokenizer, row)
        if len(text) > len(sent.text) and text.startswith(sent.text):
            logprobs = None if row.request.logprobs is None else tuple(row.logprobs[sent.tokens :])
            part = GenerationPart(text[len(sent.text) :], tuple(row.watch.ids[sent.tokens :]), logprobs, row.sample)
            sent.text, sent.tokens = text, len(row.watch.ids)
            yield row.item.index, part


class _Sent:
    """How far a row's parts are out."""

    def __init__(self) -> None:
        self.text = ""
        self.tokens = 0


def settled_text(tokenizer: Tokenizer, row: Row) -> str:
    """A row's text without what further tokens may change: half a character, or the beginning of a stop string."""
    text = tokenizer.decode(row.watch.ids)
    if row.finish is not None:
        return cut_at_stops(text, row.request.stop)
    text = cut_at_stops(text.rstrip(INCOMPLETE), row.request.stop)
    longest = max((_begun(text, stop) for stop in row.request.stop), default=0)
    return text[: len(text) - longest]


def _begun(text: str, stop: str) -> int:
    """Characters at the end of `text` with which `stop` may begin."""
    return next((size for size in range(min(len(stop), len(text)), 0, -1) if text.endswith(stop[:size])), 0)


def _withdrawn(number: int) -> tuple[int, GenerationOutput]:
    return number, _error("withdrawn")


def _error(problem: str) -> GenerationOutput:
    return GenerationOutput(finish_reason="error", error=problem)
