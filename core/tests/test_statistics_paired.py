"""Comparing two systems: p-values are uniform where nothing differs, intervals hold the true difference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evalkit.statistics.intervals import student
from evalkit.statistics.paired import bonett_price, changes, compare_means, compare_shares, holm, mcnemar, permutation

CHANCE = 0.01
"""Below this, a test of uniformity fails; it would once in a hundred other choices of the seeds."""


def test_mcnemar_is_uniform_under_the_null() -> None:
    """Two equally good systems: every p-value is as likely as any other."""
    changed = np.random.default_rng(1).binomial(40_000, 0.3, size=2000)
    worse = np.random.default_rng(2).binomial(changed, 0.5)
    assert stats.kstest(mcnemar(worse, changed - worse), "uniform").pvalue > CHANCE


def test_mcnemar_never_claims_too_much() -> None:
    """With few changes p-values come in steps, and stay on the safe side."""
    changed = np.random.default_rng(3).integers(1, 30, size=20_000)
    worse = np.random.default_rng(4).binomial(changed, 0.5)
    found = mcnemar(worse, changed - worse)
    for level in (0.01, 0.05, 0.1, 0.5):
        assert (found <= level).mean() <= level * 1.05


@pytest.mark.parametrize("skewed", [False, True])
def test_permutation_is_uniform_under_the_null(skewed: bool) -> None:
    """Values other than 0 and 1, with long tails, too."""
    chance = np.random.default_rng(5)
    draw = chance.standard_exponential if skewed else chance.standard_normal
    gains = draw((1000, 60)) - draw((1000, 60))
    found = [permutation(row, draws=499, seed=number) for number, row in enumerate(gains)]
    assert stats.kstest(found, "uniform").pvalue > CHANCE


def test_permutation_of_many_is_uniform_under_the_null() -> None:
    """Where the smaller differences are drawn together."""
    gains = np.random.default_rng(6).standard_t(3, size=(400, 3000))
    found = [permutation(row, draws=199, seed=number) for number, row in enumerate(gains)]
    assert stats.kstest(found, "uniform").pvalue > CHANCE


def test_clustered_permutation_is_uniform_under_the_null() -> None:
    """Documents of a cluster win and lose together; their signs are flipped together."""
    chance, clusters = np.random.default_rng(7), np.repeat(np.arange(40), 5).tolist()
    found = []
    for _ in range(300):
        gains = np.repeat(chance.standard_normal(40), 5) + chance.standard_normal(200)
        found.append(compare_means(np.zeros(200), gains, clusters).p_value)
    assert stats.kstest(found, "uniform").pvalue > CHANCE


@pytest.mark.parametrize("count", [60, 500])
def test_interval_of_shares_covers(count: int) -> None:
    """The true difference is in the interval 93 to 97 times of 100."""
    chances = [0.12, 0.2, 0.68]
    worse, better, _ = np.random.default_rng(8).multinomial(count, chances, size=20_000).T
    low, high = bonett_price(worse, better, count)
    assert 0.93 <= ((low <= 0.08) & (high >= 0.08)).mean() <= 0.97


def test_interval_of_means_covers() -> None:
    """So it is for other values."""
    gains = np.random.default_rng(9).laplace(0.1, 1, size=(4000, 50))
    low, high = student(gains.mean(1), gains.std(1, ddof=1) / 50**0.5, 49)
    assert 0.93 <= ((low <= 0.1) & (high >= 0.1)).mean() <= 0.97


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_scipys_binomial_test(worse: int, better: int) -> None:
    """The exact test of the changes, both directions alike."""
    expected = stats.binomtest(worse, worse + better).pvalue if worse + better else 1.0
    assert mcnemar(worse, better) == pytest.approx(expected)


def test_permutation_finds_the_exact_p_value() -> None:
    """Of eight differences all 256 signs can be tried; ties count as being as large."""
    gains = np.array([0.3, 0.1, 0.1, -0.2, 0.5, 0.4, -0.1, 0.2])
    sums = [abs(np.dot(signs, abs(gains))) for signs in itertools.product((-1, 1), repeat=8)]
    exact = np.mean(np.array(sums) >= abs(gains.sum()) - 1e-9)
    assert permutation(gains) == pytest.approx(exact)
    more = np.concatenate([gains, gains])
    assert permutation(more) == pytest.approx(permutation(more, draws=20_000, seed=1), abs=0.02)


def test_the_large_and_the_rest_are_drawn_alike() -> None:
    """Thousands of differences get the p-value of a t test, which holds for so many."""
    gains = np.random.default_rng(10).normal(0.02, 1, 8000)
    assert permutation(gains) == pytest.approx(stats.ttest_1samp(gains, 0).pvalue, abs=0.02)


def test_nothing_changed() -> None:
    """Equal answers: no difference, no doubt about a large one, p = 1."""
    same = np.array([0.0, 1.0] * 50)
    found = compare_shares(same, same)
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert found.interval is not None
    assert found.interval[0] < 0 < found.interval[1]
    found = compare_means(same * 3, same * 3)
    assert (found.difference, found.p_value, found.interval, found.detectable) == (0.0, 1.0, None, None)


def test_equal_differences_have_no_spread_to_judge_by() -> None:
    """Two documents, both better by a half: nothing says how far others would be from it."""
    found = compare_means(np.zeros(2), np.full(2, 0.5))
    assert (found.difference, found.p_value, found.interval, found.detectable) == (0.5, 0.5, None, None)


def test_one_document_right_or_wrong() -> None:
    """A single share has a wide interval, and no small p-value."""
    for before, after in itertools.product((0.0, 1.0), repeat=2):
        found = compare_shares(np.array([before]), np.array([after]))
        assert found.p_value == 1
        assert found.interval is not None
        assert found.interval[0] <= found.difference <= found.interval[1] or abs(found.difference) == 1
        assert found.interval[1] - found.interval[0] > 1


def test_clusters_of_one_are_documents() -> None:
    """Where every document is a cluster of its own, the results are those without clusters."""
    before, after = np.random.default_rng(12).normal(size=(2, 30))
    plain, clustered = compare_means(before, after), compare_means(before, after, range(30))
    assert plain.interval is not None
    assert plain.interval == pytest.approx(clustered.interval)
    assert plain.p_value == clustered.p_value
    assert plain.interval == pytest.approx(stats.ttest_rel(after, before).confidence_interval())


def test_two_clusters_prove_nothing() -> None:
    """However many documents they hold: with two signs to flip, one comparison in two is as large."""
    before, after = np.zeros(200), np.random.default_rng(13).normal(3, 1, 200)
    found = compare_means(before, after, [0, 1] * 100)
    assert found.p_value == 0.5
    assert found.interval is not None
    assert compare_means(before, after, [0] * 200).interval is None


def test_rounding_is_no_change() -> None:
    """Sums in another order differ in their last digits: that is neither better nor worse, and no evidence."""
    before = np.random.default_rng(14).normal(-500, 20, 50)
    found = compare_means(before, before * (1 + 1e-15))
    assert (found.difference, found.p_value) == (0.0, 1.0)


def test_infinities_are_compared() -> None:
    """What is hopeless in both runs did not change; what became hopeless did."""
    infinite = np.array([np.inf, np.inf, 1.0])
    assert changes(infinite, np.array([np.inf, 2.0, np.inf])).tolist() == [0.0, -np.inf, np.inf]


def test_one_document_says_nothing() -> None:
    """A single difference has no interval."""
    found = compare_means(np.array([0.2]), np.array([0.7]))
    assert (found.difference, found.interval, found.detectable) == (pytest.approx(0.5), None, None)
    assert found.p_value == pytest.approx(1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_plain_and_bonferroni(p_values: list[float]) -> None:
    """Corrected values keep the order, are never smaller, and never larger than all times their number."""
    found = holm(p_values)
    for plain, corrected in zip(p_values, found, strict=True):
        assert plain <= corrected <= min(1.0, plain * len(p_values)) or corrected >= max(
            p for p, c in zip(p_values, found, strict=True) if c == corrected
        )
    order = sorted(range(len(found)), key=p_values.__getitem__)
    assert [found[i] for i in order] == sorted(found)


def test_holm_by_hand() -> None:
    """The smallest of three counts three times, the next twice."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_holm_keeps_its_promise() -> None:
    """Of twenty comparisons without a difference, one is claimed in 5 of 100 cases at most."""
    p_values = np.random.default_rng(11).uniform(size=(2000, 20))
    assert np.mean([min(holm(row.tolist())) <= 0.05 for row in p_values]) <= 0.065
