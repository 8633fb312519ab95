"""Cut a prefix forest into batches under a token budget, keeping shared prefixes resident while they are needed.

A batch holds whole subtrees ("units") that share one chain of ancestors. The chain is computed once, with the
first of its batches, and stays resident (its keys and values cached) until the last batch below it is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from evalkit.scoring.forest import Forest, Ints, Tokens


@dataclass(frozen=True, slots=True)
class TreeBatch:
    """Tokens for one pass. First come those that extend the resident chain, then whole units.

    Before the pass the resident chain is cut to `keep` tokens; after it, it holds `keep + chain` tokens.
    Tokens are in preorder: token i attends to what was kept and to each token j with `j <= i < reach[j]`.
    """

    keep: int
    chain: int
    tokens: Tokens
    positions: Ints
    """Depth of each token: its position in the text."""
    reach: Ints
    """For each token, one past the last of the tokens that attend to it."""
    units: tuple[tuple[int, int], ...]
    """(first token, one past the last) of each unit: no unit sees another."""
    rows: Ints
    """Tokens after which logits are needed, ascending."""
    target_rows: Ints
    """For each target, its row as an index into `rows`."""
    targets: Tokens
    slots: Ints
    """Where the score of each target goes."""
    tops: int = 0
    """So many most likely tokens are wanted beside each target."""


@dataclass(slots=True)
class Slots:
    """One slot for every scored token of the forest."""

    first: Ints
    count: int

    @classmethod
    def of(cls, forest: Forest) -> Slots:
        """Slots in the order of nodes."""
        sizes = forest.end - forest.scored_from
        first = np.cumsum(sizes) - sizes
        return cls(first, int(sizes.sum()))


def span_slots(forest: Forest, slots: Slots, span: int) -> Ints:
    """Slots of a span's scored tokens, in order."""
    start, node, parts = int(forest.table.starts[span]), int(forest.leaf[span]), []
    while node != forest.root and forest.end[node] > start:
        depth = max(int(forest.scored_from[node]), start)
        first = int(slots.first[node] + depth - forest.scored_from[node])
        parts.append(np.arange(first, first + int(forest.end[node]) - depth))
        node = int(forest.parent[node])
    return np.concatenate(parts[::-1])


@dataclass(slots=True)
class _Draft:
    """A batch in the making: pieces (node, first depth, one past the last) of the chain, and units by their top."""

    keep: int = 0
    chain: list[tuple[int, int, int]] = field(default_factory=list)
    units: list[int] = field(default_factory=list)
    size: int = 0


def plan_forest(forest: Forest, budget: int, *, holds_top: bool = False) -> Iterator[TreeBatch]:
    """Batches of at most `budget` tokens, in depth-first order.

    A subtree that fits the budget is a unit. The top of a larger one joins the chain, in pieces where it
    alone is too long; its children are planned below it. No batch mixes units of different chains. `holds_top`: what
    all texts begin with joins the chain however short it is, and so stays resident to the end.
    """
    return _Planner(forest, budget, holds_top).plan()


class _Planner:
    def __init__(self, forest: Forest, budget: int, holds_top: bool) -> None:
        self.forest, self.budget = forest, budget
        self.holds_top = holds_top
        self.fed: list[int] = forest.fed.tolist()
        self.begin: list[int] = forest.begin.tolist()
        self.parent = forest.parent.tolist()
        self.weight = self._weights()
        self.assembler = _Assembler(forest, self.weight)

    def _weights(self) -> list[int]:
        weight = list(self.fed)
        for node, above in enumerate(self.parent[:-1]):
            weight[above] += weight[node]
        return weight

    def plan(self) -> Iterator[TreeBatch]:
        """Walk the large nodes depth first; their small children fill batches."""
        large = [self.forest.root]
        draft = _Draft()
        while large:
            node = large.pop()
            draft, full = self._enter(draft, node)
            yield from map(self.assembler.build, full)
            limit, later = self.budget, []
            children = self._children(node)
            is_held = self.holds_top and node == self.forest.root and len(children) == 1
            for child in children:
                if self.weight[child] > limit or is_held:
                    later.append(child)
                    continue
                if draft.size + self.weight[child] > limit and (draft.units or draft.chain):
                    yield self.assembler.build(draft)
                    draft = _Draft(self._end(node))
                draft.units.append(child)
                draft.size += self.weight[child]
            if draft.units:
                yield self.assembler.build(draft)
                draft = _Draft(self._end(node))
            large.extend(reversed(later))
        if draft.chain:
            yield self.assembler.build(draft)

    def _enter(self, draft: _Draft, node: int) -> tuple[_Draft, list[_Draft]]:
        """Add a large node's tokens to the chain; the batches that this fills, and the draft that goes on."""
        full, begin = [], self.begin[node]
        depth, end = begin, begin + self.fed[node]
        if draft.keep + sum(b - a for _, a, b in draft.chain) != begin:
            # The draft belongs to another branch: what it still holds is done, and the chain cut back.
            full += [draft] if draft.chain else []
            draft = _Draft(begin)
        while depth < end:
            room = self.budget - draft.size
            if room <= 0:
                full.append(draft)
                draft = _Draft(depth)
                continue
            upto = min(end, depth + room)
            draft.chain.append((node, depth, upto))
            draft.size += upto - depth
            depth = upto
        return draft, full

    def _children(self, node: int) -> list[int]:
        offsets = self.forest.child_offsets
        found: list[int] = self.forest.children[offsets[node] : offsets[node + 1]].tolist()
        return found

    def _end(self, node: int) -> int:
        return self.begin[node] + self.fed[node]


class _Assembler:
    """Turns drafts into arrays."""

    def __init__(self, forest: Forest, weight: list[int]) -> None:
        self.forest = forest
        self.fed, self.weight = forest.fed, weight
        self.slots = Slots.of(forest)
        children, owners = forest.children, forest.parent[forest.children]
        # Children whose first token is scored: their targets hang on their parent's last token.
        scored = forest.scored_from[children] == forest.begin[children]
        self.heirs = children[scored & (owners != forest.root)]
        counts = np.bincount(forest.parent[self.heirs], minlength=len(forest.begin) + 1)
        self.heir_offsets = np.concatenate([[0], np.cumsum(counts)])
        self.heirs = self.heirs[np.argsort(forest.parent[self.heirs], kind="stable")]

    def build(self, draft: _Draft) -> TreeBatch:
        """The batch of a draft."""
        pieces, units = list(draft.chain), []
        ends: list[int] = []
        place = chain = sum(b - a for _, a, b in draft.chain)
        for top in draft.units:
            first = place
            place = self._add_unit(top, pieces, ends, place)
            units.append((first, place))
        node, start, stop = (np.array(column, np.int64) for column in zip(*pieces, strict=True))
        lengths = stop - start
        firsts = np.cumsum(lengths) - lengths
        positions = _ranges(start, lengths)
        tokens = self._tokens(np.repeat(node, lengths), positions)
        rows, target_rows, targets, slots = self._targets(node, start, stop, firsts)
        reach = np.repeat(np.array([place] * len(draft.chain) + ends, np.int64), lengths)
        kept = tuple(unit for unit in units if unit[1] > unit[0])
        tops = self.forest.table.tops
        return TreeBatch(draft.keep, chain, tokens, positions, reach, kept, rows, target_rows, targets, slots, tops)

    def _add_unit(self, top: int, pieces: list[tuple[int, int, int]], ends: list[int], place: int) -> int:
        """Append a subtree's nodes in preorder, and the place behind each one's subtree; that behind the last token."""
        forest, stack = self.forest, [top]
        while stack:
            node = stack.pop()
            begin, fed = int(forest.begin[node]), int(self.fed[node])
            if fed:
                pieces.append((node, begin, begin + fed))
                ends.append(place + self.weight[node])
                place += fed
            below = forest.children[forest.child_offsets[node] : forest.child_offsets[node + 1]]
            stack.extend(below[::-1].tolist())
        return place

    def _tokens(self, node: Ints, depth: Ints) -> Tokens:
        table = self.forest.table
        found: Tokens = table.tokens[table.offsets[self.forest.spelled_by[node]] + depth]
        return found

    def _targets(self, node: Ints, start: Ints, stop: Ints, firsts: Ints) -> tuple[Ints, Ints, Tokens, Ints]:
        """Rows, and for each target its row, token and slot: within the pieces, then at their ends."""
        forest = self.forest
        # Within a node the token at depth d is scored after the one at d - 1, if that is in this piece.
        low = np.maximum(forest.scored_from[node], start + 1)
        high = np.minimum(stop, forest.end[node] - 1) + 1
        counts = np.maximum(high - low, 0)
        inside = np.repeat(node, counts)
        depth = _ranges(low, counts)
        inner_rows = np.repeat(firsts - start, counts) + depth - 1
        # A piece that reaches its node's end has the first tokens of the scored children behind it.
        ends = np.flatnonzero(stop == forest.end[node])
        offsets = self.heir_offsets[node[ends]]
        sizes = self.heir_offsets[node[ends] + 1] - offsets
        heirs = self.heirs[_ranges(offsets, sizes)]
        outer_rows = np.repeat(firsts[ends] + stop[ends] - start[ends] - 1, sizes)
        rows, target_rows = np.unique(np.concatenate([inner_rows, outer_rows]), return_inverse=True)
        targets = np.concatenate([self._tokens(inside, depth), self._tokens(heirs, forest.begin[heirs])])
        first = self.slots.first
        slots = np.concatenate([first[inside] + depth - forest.scored_from[inside], first[heirs]])
        return rows, target_rows.reshape(-1), targets, slots


def _ranges(starts: Ints, counts: Ints) -> Ints:
    """`starts[0], starts[0] + 1, ...` for `counts[0]` numbers, then from `starts[1]`, and so on."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    found: Ints = np.arange(total) + np.repeat(starts - (ends - counts), counts)
    return found


def chain_batches(tokens: Sequence[int], budget: int) -> Iterator[TreeBatch]:
    """Batches that compute a prefix alone and leave it resident."""
    for first in range(0, len(tokens), budget):
        part = tokens[first : first + budget]
        yield _plain_batch(first, [part], chain=len(part))


def suffix_batch(keep: int, suffixes: Sequence[Sequence[int]]) -> TreeBatch:
    """One batch of texts behind a resident prefix, with logits needed at the end of each."""
    return _plain_batch(keep, suffixes, chain=0)


def _plain_batch(keep: int, parts: Sequence[Sequence[int]], chain: int) -> TreeBatch:
    lengths = np.array([len(part) for part in parts], np.int64)
    ends = np.cumsum(lengths)
    units = () if chain else tuple(zip((ends - lengths).tolist(), ends.tolist(), strict=True))
    nothing = np.zeros(0, np.int64)
    return TreeBatch(
        keep=keep,
        chain=chain,
        tokens=np.array([token for part in parts for token in part], np.int32),
        positions=_ranges(np.full(len(parts), keep, np.int64), lengths),
        reach=np.repeat(ends, lengths),
        units=units,
        rows=ends - 1,
        target_rows=nothing,
        targets=nothing.astype(np.int32),
        slots=nothing,
    )
