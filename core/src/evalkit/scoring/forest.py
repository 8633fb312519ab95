"""The prefix forest: all token sequences of a run as one radix tree, so that a shared prefix is computed once.

A node holds a run of tokens that all sequences below it share. Tokens are numpy arrays throughout: a hundred
thousand requests of five hundred tokens are fifty million numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from evalkit.scoring.spans import Span

Ints = NDArray[np.int64]
Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class SpanTable:
    """Many spans in three arrays: span i is `tokens[offsets[i]:offsets[i + 1]]`, scored from `starts[i]` on."""

    tokens: Tokens
    offsets: Ints
    starts: Ints
    tops: int = 0
    """The most that any span wants to know of likely tokens beside its own."""

    def __len__(self) -> int:
        return len(self.starts)

    @classmethod
    def of(cls, spans: Sequence[Span]) -> SpanTable:
        """The table of some spans."""
        offsets = np.zeros(len(spans) + 1, np.int64)
        np.cumsum([len(span.ids) for span in spans], out=offsets[1:])
        tokens = np.fromiter((token for span in spans for token in span.ids), np.int32, int(offsets[-1]))
        tops = max((span.tops for span in spans), default=0)
        return cls(tokens, offsets, np.array([span.start for span in spans], np.int64), tops)

    @classmethod
    def fed_whole(cls, sequences: Sequence[Sequence[int]]) -> SpanTable:
        """The table of sequences that are fed to their end: a stand-in follows, as a span's last token is not fed."""
        return cls.of([Span((*sequence, 0), len(sequence)) for sequence in sequences])


@dataclass(frozen=True, slots=True)
class Forest:
    """Nodes in post-order: every node stands behind its children, the virtual root (no tokens) last.

    Node k spells the tokens at depths `begin[k]` to `end[k]` of span `spelled_by[k]`. Its children are
    `children[child_offsets[k]:child_offsets[k + 1]]`. Tokens from depth `scored_from[k]` on are scored by a span
    that runs through the node. `leaf[i]` is the node in which span i ends. `fresh[i]` tokens of span i are fed by no
    span that is before it in the order of tokens.
    """

    table: SpanTable
    begin: Ints
    end: Ints
    spelled_by: Ints
    parent: Ints
    children: Ints
    child_offsets: Ints
    scored_from: Ints
    leaf: Ints
    fresh: Ints

    @property
    def root(self) -> int:
        """The virtual root."""
        return len(self.begin) - 1

    @property
    def has_children(self) -> NDArray[np.bool_]:
        """By node."""
        return np.diff(self.child_offsets) > 0

    def has_children_at(self, node: int) -> bool:
        """Whether anything follows one node."""
        return bool(self.child_offsets[node + 1] > self.child_offsets[node])

    @property
    def fed(self) -> Ints:
        """Tokens of each node that go through the model: all, but for the last of a node that nothing follows."""
        fed = self.end - self.begin - ~self.has_children
        fed[self.root] = 0
        return fed

    @property
    def requested(self) -> int:
        """Tokens that one pass a span would cost."""
        return int(np.diff(self.table.offsets).sum()) - len(self.table)

    @property
    def unique(self) -> int:
        """Tokens that need computing when each distinct one is computed once."""
        return int(self.fresh.sum())


def build_forest(table: SpanTable) -> Forest:
    """The forest of all spans, independent of their order."""
    order = _sorted_order(table)
    shared = _common_prefixes(table, order)
    nodes = _Nodes(len(table))
    nodes.add_all(order, shared, np.diff(table.offsets)[order])
    return nodes.finish(table, _fresh(table, order, shared))


def fresh_tokens(sequences: Sequence[Sequence[int]]) -> list[int]:
    """For each sequence, how many of its tokens are not in a prefix that it shares with one sorted before it.

    Their sum is the number of distinct tokens: the nodes of the prefix forest.
    """
    table = SpanTable.fed_whole(sequences)
    order = _sorted_order(table)
    found: list[int] = _fresh(table, order, _common_prefixes(table, order)).tolist()
    return found


def sorted_prefixes(sequences: Sequence[tuple[int, ...]]) -> tuple[list[int], list[int]]:
    """Sequences (by index) in lexicographic order, and how many leading tokens each shares with the one before it."""
    table = SpanTable.of([Span(ids, len(ids)) for ids in sequences])
    order = _sorted_order(table)
    return order.tolist(), _common_prefixes(table, order)


def _sorted_order(table: SpanTable) -> Ints:
    """Spans in lexicographic order of their tokens."""
    # Bytes compare as fast as memory can be read, once the most significant byte stands first.
    wide = table.tokens.astype(">u2" if len(table.tokens) and table.tokens.max() < 1 << 16 else ">u4")
    raw, size = wide.tobytes(), wide.dtype.itemsize
    bounds = (table.offsets * size).tolist()
    keys = [raw[a:b] for a, b in pairwise(bounds)]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def _common_prefixes(table: SpanTable, order: Ints) -> list[int]:
    """For each span in order, how many leading tokens it shares with the one before it."""
    shared = [0] * len(order)
    tokens, offsets = table.tokens, table.offsets.tolist()
    previous = tokens[:0]
    for place, index in enumerate(order.tolist()):
        current = tokens[offsets[index] : offsets[index + 1]]
        size = min(len(previous), len(current))
        differs = previous[:size] != current[:size]
        first = int(differs.argmax()) if size else 0
        shared[place] = first if size and differs[first] else size
        previous = current
    return shared


def _fresh(table: SpanTable, order: Ints, shared: list[int]) -> Ints:
    """Fed tokens of each span that the spans before it in order do not feed."""
    fed = np.diff(table.offsets)[order] - 1
    before = np.concatenate([[0], fed[:-1]])[: len(fed)]
    fresh = np.empty_like(fed)
    fresh[order] = fed - np.minimum(np.minimum(shared, before), fed)
    return fresh


class _Nodes:
    """Collects nodes in post-order while the sorted spans go by; open nodes wait on a stack."""

    def __init__(self, spans: int) -> None:
        self.begin: list[int] = []
        self.end: list[int] = []
        self.spelled_by: list[int] = []
        self.below: list[list[int]] = []
        self.leaf = [0] * spans
        # An open node: depth of its end, a span that spells it, its children, the spans that end in it.
        self.open: list[tuple[int, int, list[int], list[int]]] = [(0, 0, [], [])]

    def add_all(self, order: Ints, shared: list[int], lengths: Ints) -> None:
        """Add all spans, sorted."""
        for index, common, length in zip(order.tolist(), shared, lengths.tolist(), strict=True):
            self._close_deeper(common)
            if self.open[-1][0] < length:
                self.open.append((length, index, [], [index]))
            else:  # the same tokens as the span before
                self.open[-1][3].append(index)
        self._close_deeper(0)
        self._emit(0)

    def _close_deeper(self, depth: int) -> None:
        """Close all open nodes that end behind `depth`; make sure that a node ends there."""
        while self.open[-1][0] > depth:
            above = self.open[-2][0]
            if above < depth:
                self._split(depth)
                return
            self._emit(above)

    def _split(self, depth: int) -> None:
        """Cut the top node in two at `depth`: the lower part is finished, the upper one stays open."""
        index = self.open[-1][1]
        node = self._pop(depth)
        self.open.append((depth, index, [node], []))

    def _emit(self, begin: int) -> None:
        node = self._pop(begin)
        if self.open:
            self.open[-1][2].append(node)

    def _pop(self, begin: int) -> int:
        end, index, below, ending = self.open.pop()
        node = len(self.begin)
        self.begin.append(begin)
        self.end.append(end)
        self.spelled_by.append(index)
        self.below.append(below)
        for span in ending:
            self.leaf[span] = node
        return node

    def finish(self, table: SpanTable, fresh: Ints) -> Forest:
        """The forest, with what follows from its shape."""
        count = len(self.begin)
        child_offsets = np.zeros(count + 1, np.int64)
        np.cumsum([len(below) for below in self.below], out=child_offsets[1:])
        children = np.fromiter((child for below in self.below for child in below), np.int64, int(child_offsets[-1]))
        parent = np.full(count, -1, np.int64)
        parent[children] = np.repeat(np.arange(count), np.diff(child_offsets))
        begin, end = np.array(self.begin, np.int64), np.array(self.end, np.int64)
        leaf = np.array(self.leaf, np.int64)
        scored_from = _scored_from(table, begin, end, parent, leaf)
        spelled_by = np.array(self.spelled_by, np.int64)
        return Forest(table, begin, end, spelled_by, parent, children, child_offsets, scored_from, leaf, fresh)


def _scored_from(table: SpanTable, begin: Ints, end: Ints, parent: Ints, leaf: Ints) -> Ints:
    """Per node the first scored depth: the earliest start of any span that runs through, kept within the node."""
    earliest = np.full(len(begin), np.iinfo(np.int64).max)
    np.minimum.at(earliest, leaf, table.starts)
    values, above = earliest.tolist(), parent.tolist()
    for node in range(len(values) - 1):  # post-order: children come before their parents
        if values[node] < values[above[node]]:
            values[above[node]] = values[node]
    return np.clip(np.array(values, np.int64), begin, end)
