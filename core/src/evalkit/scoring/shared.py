"""Group prompts that share a long prefix, so that generation computes it once and keeps it for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evalkit.scoring.forest import Forest, SpanTable, build_forest

LEAST_SHARED = 32
"""Tokens that a further shared prefix must bring: below it, switching groups costs more than it saves."""


@dataclass(frozen=True, slots=True)
class PrefixGroup:
    """Prompts (by index, in lexicographic order) that all begin with the same `prefix` tokens."""

    prefix: int
    members: tuple[int, ...]


def prefix_groups(prompts: Sequence[Sequence[int]]) -> list[PrefixGroup]:
    """Groups that together hold every prompt once. A prefix leaves at least one token of each prompt."""
    if not prompts:
        return []
    forest = build_forest(SpanTable.fed_whole(prompts))
    ending: dict[int, list[int]] = {}
    for index, node in enumerate(forest.leaf.tolist()):
        ending.setdefault(node, []).append(index)
    groups: list[PrefixGroup] = []
    pending = [forest.root]
    while pending:
        node = pending.pop()
        members, further = _members(forest, node, ending)
        pending += further
        if members:
            shortest = min(len(prompts[index]) for index in members)
            depth = int(forest.end[node]) if node != forest.root and len(members) > 1 else 0
            groups.append(PrefixGroup(min(depth, shortest - 1), tuple(members)))
    return groups


def _members(forest: Forest, top: int, ending: dict[int, list[int]]) -> tuple[list[int], list[int]]:
    """Prompts that end below `top`, less those of further groups; and the tops of these."""
    members, further, stack = [], [], [top]
    while stack:
        node = stack.pop()
        shared = forest.has_children_at(node) or len(ending.get(node, ())) > 1
        begins_group = shared and forest.end[node] - forest.end[top] >= LEAST_SHARED
        if node != top and begins_group:
            further.append(node)
            continue
        members += ending.get(node, [])
        first, last = forest.child_offsets[node], forest.child_offsets[node + 1]
        stack.extend(forest.children[first:last][::-1].tolist())
    return members, further


def common_length(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Tokens with which both begin."""
    low, high = 0, min(len(one), len(other))
    # By halves, because comparing slices is much quicker than comparing tokens one by one.
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
