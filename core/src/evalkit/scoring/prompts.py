"""Spans as prompts for an engine that schedules requests itself, in the order that suits its prefix cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from evalkit.scoring.forest import sorted_prefixes
from evalkit.scoring.spans import ScoredTokens, Span

NOTHING = ScoredTokens((), True, ())


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request: read `ids`, and say the log-probabilities of `ids[start:]` and of `next_ids`.

    Each of `ids[start:]` is given all before it; each of `next_ids` might come behind `ids`. A prompt that wants
    neither is only to be read, for the cache. `tops` most likely tokens are wanted beside each of `ids[start:]`.
    """

    ids: tuple[int, ...]
    start: int
    next_ids: tuple[int, ...] = ()
    tops: int = 0

    @property
    def scored(self) -> int:
        """Tokens of the prompt itself that are scored: each needs logits of its own."""
        return len(self.ids) - self.start


@dataclass(frozen=True, slots=True)
class PromptScores:
    """The answer to a prompt: scores of `ids[start:]`, those of `next_ids`, and the likeliest token behind `ids`.

    `computed` is how many tokens went through the model for it.
    """

    scored: ScoredTokens = NOTHING
    next_logprobs: tuple[float, ...] = ()
    best: int | None = None
    computed: int = 0


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """What an engine can do in one request.

    `next_ids` is how many tokens it may be asked for behind a prompt; with 0 the last token of each text is part of
    its prompt. `block` is the size of the prefix cache's blocks, where scores of a prompt may begin behind what is
    cached; with 0 each prompt is read anew. `scored` bounds the scored tokens of one prompt, `in_flight` those of all
    that run: they cost memory by the size of the vocabulary. With `whole` all tokens of a prompt do, if any is scored.
    """

    next_ids: int = 0
    block: int = 0
    scored: int | None = None
    in_flight: int | None = None
    whole: bool = False

    def cost(self, prompt: Prompt) -> int:
        """Tokens of a prompt that need logits of their own."""
        return len(prompt.ids) if self.whole and prompt.scored else prompt.scored


@dataclass(slots=True)
class _Group:
    """What is asked of one prompt: by which spans, and by each which token behind it."""

    asked: list[tuple[int, int | None]] = field(default_factory=list)

    @property
    def next_ids(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(token for _, token in self.asked if token is not None))


class PromptPlan:
    """Prompts for some spans, in order, and how their answers become the spans' scores.

    Continuations of one context ask for their first tokens in one prompt behind it. A context of a single
    continuation is read ahead: a prompt that is only read needs logits of its last token alone. Long spans are scored
    piece by piece, each behind what the cache has of the one before.
    """

    def __init__(self, spans: Sequence[Span], limits: PromptLimits) -> None:
        self.limits = limits
        self.prompts: list[Prompt] = []
        self._spans: list[list[int]] = []
        """The spans that each prompt scores."""
        self._places: list[dict[int, int | None]] = [{} for _ in spans]
        """Of each span its prompts, in order, and for each the place of the span's token in `next_ids`."""
        self._answers: list[dict[int, PromptScores]] = [{} for _ in spans]
        self._plan(spans)

    def answered(self, number: int, scores: PromptScores) -> Iterator[tuple[int, ScoredTokens]]:
        """Take the answer to prompt `number`; yield `(span, scores)` of every span that is now complete."""
        for span in self._spans[number]:
            places, answers = self._places[span], self._answers[span]
            if number in places:
                answers[number] = scores
            if places and len(answers) == len(places):
                yield span, self._join(span)
                places.clear()
                answers.clear()

    def failed(self, number: int) -> Iterator[int]:
        """The spans that cannot be scored because prompt `number` cannot be answered; each is named once."""
        for span in self._spans[number]:
            if self._places[span]:
                self._places[span].clear()
                self._answers[span].clear()
                yield span

    # ── planning ────────────────────────────────────────────────────────────────────────────────────────
    def _plan(self, spans: Sequence[Span]) -> None:
        groups = list(self._groups(spans).items())
        for position, common in zip(*sorted_prefixes([ids for (ids, _, _), _ in groups]), strict=True):
            (ids, start, tops), group = groups[position]
            self._read_ahead(ids, start, common)
            targets = group.next_ids
            for first in range(0, max(len(targets), 1), max(self.limits.next_ids, 1)):
                chosen = targets[first : first + self.limits.next_ids]
                owners = [(span, token) for span, token in group.asked if token is None or token in chosen]
                self._add(Prompt(ids, start, chosen, tops), owners)

    def _groups(self, spans: Sequence[Span]) -> dict[tuple[tuple[int, ...], int, int], _Group]:
        """What is asked, by the tokens to read, the first scored one, and how many likely ones are wanted."""
        continuations = Counter(span.ids[: span.start] for span in dict.fromkeys(spans))
        groups: dict[tuple[tuple[int, ...], int, int], _Group] = {}

        def ask(number: int, ids: tuple[int, ...], start: int, tops: int, token: int | None) -> None:
            groups.setdefault((ids, start, tops), _Group()).asked.append((number, token))

        for number, span in enumerate(spans):
            ids, start, context = span.ids, span.start, span.ids[: span.start]
            if span.tops or not self.limits.next_ids:
                ask(number, ids, start, span.tops, None)
            elif self.limits.block and continuations[context] > 1:
                ask(number, context, start, 0, ids[start])
                if len(ids) > start + 1:
                    ask(number, span.fed, start + 1, 0, ids[-1])
            else:
                ask(number, span.fed, start, 0, ids[-1])
        return groups

    def _read_ahead(self, ids: tuple[int, ...], start: int, common: int) -> None:
        """A prompt for the cache, where the one before has not filled it up to the scored tokens."""
        block = self.limits.block
        if not block or start == len(ids):
            return
        whole = (start - 1) // block * block
        if whole > common // block * block:
            self.prompts.append(Prompt(ids[:whole], whole))
            self._spans.append([])

    def _add(self, prompt: Prompt, owners: list[tuple[int, int | None]]) -> None:
        pieces = list(self._cut(prompt))
        for piece in pieces:
            for span, token in owners:
                behind = piece is pieces[-1] and token is not None
                self._places[span][len(self.prompts)] = prompt.next_ids.index(token) if behind else None
            self.prompts.append(piece)
            self._spans.append([span for span, _ in owners])

    def _cut(self, prompt: Prompt) -> Iterator[Prompt]:
        """Prompts of no more scored tokens than an engine has room for."""
        most, block, start = self.limits.scored, self.limits.block, prompt.start
        while most and block and len(prompt.ids) - start > most:
            # Just behind the first token of a block: the cache then ends where the next piece needs its first logits.
            end = max((start + most - 1) // block * block + 1, start + 1)
            yield Prompt(prompt.ids[:end], start, (), prompt.tops)
            start = end
        yield Prompt(prompt.ids, start, prompt.next_ids, prompt.tops)

    # ── answers ─────────────────────────────────────────────────────────────────────────────────────────
    def _join(self, span: int) -> ScoredTokens:
        logprobs: list[float] = []
        likely: list[tuple[tuple[int, float], ...]] = []
        greedy = True
        for number, place in self._places[span].items():
            answer = self._answers[span][number]
            logprobs += answer.scored.logprobs
            greedy = greedy and answer.scored.is_greedy
            likely += answer.scored.top or ()
            if place is not None:
                logprobs.append(answer.next_logprobs[place])
                greedy = greedy and answer.best == self.prompts[number].next_ids[place]
        return ScoredTokens(tuple(logprobs), greedy, tuple(likely) if len(likely) == len(logprobs) else None)
