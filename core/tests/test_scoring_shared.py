"""Groups of prompts with a shared prefix."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evalkit.scoring.shared import LEAST_SHARED, PrefixGroup, prefix_groups

prompts = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(0, 2), max_size=5)).map(
        lambda pair: tuple([pair[0]] * (LEAST_SHARED * pair[0]) + pair[1] + [9])
    ),
    max_size=20,
)


@given(prompts)
def test_every_prompt_is_in_one_group_and_begins_with_its_prefix(found: list[tuple[int, ...]]) -> None:
    """Groups hold each prompt once; members agree on the prefix and have something behind it."""
    groups = prefix_groups(found)
    assert sorted(index for group in groups for index in group.members) == list(range(len(found)))
    for group in groups:
        assert len({found[index][: group.prefix] for index in group.members}) == 1
        assert all(len(found[index]) > group.prefix for index in group.members)


def test_few_shot_prompts_share_their_examples() -> None:
    """Prompts behind the same examples make one group, others do not cost them their prefix."""
    examples = tuple(range(100, 400))
    other = tuple(range(500, 700))
    found = prefix_groups([(*examples, 1, 2), (*other, 7, 8), (*examples, 3, 4, 5), (*other, 9), (1, 2)])
    assert sorted(found, key=lambda group: group.members) == [
        PrefixGroup(300, (0, 2)),
        PrefixGroup(200, (1, 3)),
        PrefixGroup(0, (4,)),
    ]


def test_equal_prompts_keep_their_last_token() -> None:
    """A prefix is never a whole prompt: generation starts from its last token."""
    assert prefix_groups([(1,) * 50, (1,) * 50]) == [PrefixGroup(49, (0, 1))]
