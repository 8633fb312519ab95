"""Intervals of 95 % hold the truth 95 times of 100, whatever kind of metric they are of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evalkit.statistics.bootstrap import bootstrap
from evalkit.statistics.contributions import contributions
from evalkit.statistics.intervals import cluster_sums, clustered_error, combined, student, wilson
from evalkit.statistics.metrics import clustered_interval, metric_interval
from evalkit.tasks.metrics import BUILT_IN, Metric, macro_f1, mean_stderr, no_stderr, target_perplexity

METRICS = {metric.name: metric for metric in BUILT_IN}
RUNS = 4000
NOMINAL = (0.93, 0.97)


def generator() -> np.random.Generator:
    return np.random.default_rng(7)


def covered(limits: Any, truth: Any) -> float:
    low, high = limits
    return float(np.mean((low <= truth) & (truth <= high)))


def interval(name: str, values: list[Any]) -> tuple[float, float]:
    metric = METRICS[name]
    value = metric.aggregate(values)
    found = metric_interval(metric, value, metric.stderr(values), values)
    assert found is not None
    assert found[0] <= value <= found[1]
    return found


@pytest.mark.parametrize("count", [50, 200, 1000])
@pytest.mark.parametrize("share", [(0.05, 0.3), (0.3, 0.7), (0.7, 0.95)])
def test_wilson_covers(count: int, share: tuple[float, float]) -> None:
    """Shares of right answers, from few documents and near 0 and 1, too."""
    truth = generator().uniform(*share, size=20_000)
    hits = np.random.default_rng(8).binomial(count, truth)
    assert NOMINAL[0] <= covered(wilson(hits, count), truth) <= NOMINAL[1]


@pytest.mark.parametrize("count", [10, 100])
def test_student_covers(count: int) -> None:
    """Means of values between 0 and 1."""
    values = generator().beta(2, 3, size=(RUNS, count))
    limits = student(values.mean(1), values.std(1, ddof=1) / math.sqrt(count), count - 1)
    assert NOMINAL[0] <= covered(limits, 0.4) <= NOMINAL[1]


def test_perplexity_covers() -> None:
    """A ratio of sums over pages of uneven length, on the scale of logarithms."""
    chance, truth, hits = generator(), math.exp(2.5), 0
    for _ in range(1000):
        words = chance.integers(20, 200, 100)
        pages = list(zip((-words * chance.normal(2.5, 0.4, 100)).tolist(), words.tolist(), strict=True))
        low, high = interval("word_perplexity", pages)
        hits += low <= truth <= high
    assert NOMINAL[0] <= hits / 1000 <= NOMINAL[1]


def test_clusters_cover_where_documents_alone_do_not() -> None:
    """Questions about one text are right or wrong together: only the clustered interval knows."""
    chance, clusters = generator(), [number // 10 for number in range(600)]
    found = {True: 0, False: 0}
    for _ in range(1000):
        easy = np.repeat(chance.beta(1, 1, 60), 10)
        values = (chance.random(600) < easy).astype(float).tolist()
        value = sum(values) / 600
        alone = metric_interval(METRICS["acc"], value, mean_stderr(values), values)
        together = clustered_interval(METRICS["acc"], value, values, clusters)
        assert alone is not None
        assert together is not None
        for knows, (low, high) in ((False, alone), (True, together[1])):
            found[knows] += low <= 0.5 <= high
    assert NOMINAL[0] <= found[True] / 1000 <= NOMINAL[1]
    assert found[False] / 1000 < 0.85


def test_groups_cover() -> None:
    """A group's interval, put together from its tasks' own."""
    chance, sizes = generator(), np.array([40, 100, 300])
    truth = np.array([0.9, 0.5, 0.7])
    weights, hits = sizes / sizes.sum(), 0
    for _ in range(RUNS):
        right = chance.binomial(sizes, truth)
        lows, highs = wilson(right, sizes)
        shares = right / sizes
        parts = list(zip(weights, shares, zip(lows, highs, strict=True), strict=True))
        low, high = combined(float((weights * shares).sum()), parts)
        hits += low <= (weights * truth).sum() <= high
    assert NOMINAL[0] <= hits / RUNS <= NOMINAL[1]


@given(st.integers(1, 300), st.data())
def test_wilson_is_scipys(count: int, data: st.DataObject) -> None:
    """The limits equal those of scipy.stats, and hold the share."""
    hits = data.draw(st.integers(0, count))
    low, high = wilson(hits, count)
    theirs = stats.binomtest(hits, count).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= low <= hits / count <= high <= 1


def test_mean_is_scipys() -> None:
    """Means of other values get the interval of a one-sample t test."""
    values = [0.1, 0.5, 0.9, 0.4, 0.75]
    theirs = stats.ttest_1samp(values, 0).confidence_interval()
    metric = Metric("mass", lambda scored: None)
    found = metric_interval(metric, sum(values) / 5, mean_stderr(values), values)
    assert found == pytest.approx((theirs.low, theirs.high))


def test_limits_stay_possible() -> None:
    """A share never leaves [0, 1], nor is its interval empty where all are right; a perplexity stays positive."""
    assert interval("acc", [1.0] * 20)[1] == 1.0
    assert interval("acc", [1.0] * 20)[0] == pytest.approx(0.8389, abs=1e-4)
    assert interval("perplexity", [-1.0, -9.0, -2.0])[0] > 0


def test_nothing_is_said_where_nothing_is_known() -> None:
    """One document, or an infinite perplexity, has no interval."""
    assert metric_interval(METRICS["perplexity"], 2.7, None, [-1.0]) is None
    assert metric_interval(METRICS["perplexity"], math.inf, math.inf, [-1e6, -1e6]) is None
    assert clustered_interval(METRICS["acc"], 0.5, [0.0, 1.0], ["a", "a"]) is None


def test_one_cluster_a_document_changes_nothing() -> None:
    """The clustered error of independent documents is the plain one."""
    values = generator().normal(size=50)
    found = clustered_error(values, range(50))
    assert found == (pytest.approx(mean_stderr(values.tolist())), 50)
    assert cluster_sums(np.array([1.0, 2.0, 4.0]), ["b", "a", "b"]).tolist() == [5.0, 2.0]


@pytest.mark.parametrize("name", ["perplexity", "word_perplexity", "bits_per_byte"])
def test_contributions_give_the_standard_error(name: str) -> None:
    """Linearised contributions have the metric as their mean, and its own standard error."""
    chance, metric = generator(), METRICS[name]
    logprobs, units = chance.uniform(-9, -1, 40).tolist(), chance.integers(1, 9, 40).tolist()
    values = logprobs if name == "perplexity" else list(zip(logprobs, units, strict=True))
    value = metric.aggregate(values)
    parts = contributions(metric.aggregate, value, values)
    assert parts is not None
    assert parts.mean() == pytest.approx(value)
    assert mean_stderr(parts.tolist()) == pytest.approx(metric.stderr(values))


def test_left_out_documents_give_the_same_contributions() -> None:
    """What is known by leaving documents out agrees with the formula, where there is one."""
    values = generator().uniform(-3, -2, 200).tolist()
    value = target_perplexity(values)
    formula = contributions(target_perplexity, value, values)
    jackknife = contributions(lambda items: target_perplexity(items), value, values)
    assert formula is not None
    assert jackknife is not None
    assert jackknife == pytest.approx(formula, rel=0.01)


def test_bootstrap_stands_in_for_formulas() -> None:
    """F1 has an interval, always the same one, that narrows with more documents."""
    chance, widths = generator(), []
    for count in (50, 5000):
        gold = (chance.random(count) < 0.5).tolist()
        values = [
            (int(right), int(right != slip), 2)
            for right, slip in zip(gold, (chance.random(count) < 0.2).tolist(), strict=True)
        ]
        metric, value = Metric("f1", lambda scored: None, macro_f1, no_stderr), macro_f1(values)
        found = metric_interval(metric, value, None, values)
        assert found is not None
        assert found == bootstrap(macro_f1, value, values)
        assert found[0] < value < found[1]
        widths.append(found[1] - found[0])
    assert widths[0] / widths[1] == pytest.approx(10, rel=0.2)


def test_an_aggregate_that_refuses_resamples_has_no_interval() -> None:
    """Its score stands, without an interval."""

    def picky(values: Any) -> float:
        if len(set(values)) < 3:
            raise RuntimeError("one of each, please")
        return 0.123

    assert metric_interval(Metric("picky", lambda scored: None, picky, no_stderr), 0.123, None, ["a", "b", "c"]) is None


def test_equal_values_have_no_spread_to_judge_by() -> None:
    """A mean of equal values has no interval of no width; a share keeps Wilson's, which says how few there are."""
    metric = Metric("f1", lambda scored: None)
    assert metric_interval(metric, 0.3, 0.0, [0.3] * 20) is None
    assert metric_interval(metric, 0.1, 1.4e-17, [0.1] * 20) is None
    assert metric_interval(metric, 1.0, 0.0, [1.0] * 20) == pytest.approx((0.8389, 1), abs=1e-4)
    assert clustered_interval(metric, 0.3, [0.3] * 4, [0, 0, 1, 1]) is None


def test_an_aggregate_that_refuses_a_document_less_has_no_contributions() -> None:
    """Metrics from elsewhere may want two classes, say: the comparison goes on without them."""

    def picky(values: Any) -> float:
        if len(set(values)) < 2:
            raise ValueError("one class only")
        return float(max(values) - min(values)) ** 2

    assert contributions(picky, 9.0, [1, 4, 1, 1]) is None
    assert contributions(picky, 9.0, [1, 4, 1, 4]) is not None
