"""Our formulas give the numbers of scipy and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evalkit.statistics.bootstrap import bootstrap
from evalkit.statistics.intervals import clustered_error, student, wilson
from evalkit.statistics.paired import compare_means, holm, mcnemar, permutation
from evalkit.statistics.power import needed_documents, smallest_difference
from evalkit.tasks.metrics import mean


@pytest.mark.parametrize(("hits", "count"), [(0, 5), (1, 1), (7, 40), (380, 400), (400, 400)])
def test_wilson_is_scipys_and_statsmodels(hits: int, count: int) -> None:
    """Wilson's interval without correction for continuity."""
    found = [float(limit) for limit in wilson(hits, count)]
    assert found == pytest.approx(list(stats.binomtest(hits, count).proportion_ci(method="wilson")), abs=1e-12)
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    assert found == pytest.approx(list(proportion.proportion_confint(hits, count, method="wilson")), abs=1e-12)


@pytest.mark.parametrize(("worse", "better"), [(0, 0), (0, 6), (3, 9), (25, 25), (120, 170)])
def test_mcnemar_is_statsmodels(worse: int, better: int) -> None:
    """The exact test, from the table of both runs' answers."""
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    expected = tables.mcnemar([[10, worse], [better, 20]], exact=True).pvalue
    assert float(mcnemar(worse, better)) == pytest.approx(expected)


def test_student_is_scipys() -> None:
    """The paired interval, and that of a mean."""
    before, after = np.random.default_rng(1).normal(size=(2, 25))
    assert compare_means(before, after).interval == pytest.approx(stats.ttest_rel(after, before).confidence_interval())
    expected = stats.ttest_1samp(before, 0).confidence_interval()
    assert student(before.mean(), stats.sem(before), 24) == pytest.approx((expected.low, expected.high))


def test_permutation_is_scipys() -> None:
    """All signs of ten differences."""
    gains = np.random.default_rng(2).normal(0.3, 1, 10)
    expected = stats.permutation_test((gains, np.zeros(10)), lambda a, b: np.sum(a - b), permutation_type="samples")
    assert permutation(gains) == pytest.approx(expected.pvalue)


def test_clustered_errors_are_statsmodels() -> None:
    """The error of an intercept with clusters; its factor (n - 1) / (n - k) is 1 here, as k is 1."""
    api = pytest.importorskip("statsmodels.api")
    generator, clusters = np.random.default_rng(3), np.repeat(np.arange(12), 5)
    values = generator.normal(size=12)[clusters] + generator.normal(size=60)
    fitted = api.OLS(values, np.ones(60)).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    assert clustered_error(values, clusters.tolist()) == (pytest.approx(fitted.bse[0]), 12)


def test_holm_is_statsmodels() -> None:
    """Corrected p-values, in the order given."""
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = np.random.default_rng(4).uniform(size=30) ** 3
    assert holm(p_values.tolist()) == pytest.approx(multitest.multipletests(p_values, method="holm")[1].tolist())


@pytest.mark.parametrize(("variance", "difference"), [(0.25, 0.02), (0.1, 0.05), (1.5, 0.3)])
def test_power_is_statsmodels(variance: float, difference: float) -> None:
    """Documents for a power of 80 %: a normal test's, whose other tail is too small to count."""
    power = pytest.importorskip("statsmodels.stats.power")
    expected = power.NormalIndPower(ddof=0).solve_power(
        effect_size=difference / variance**0.5, alpha=0.05, power=0.8, ratio=0
    )
    assert needed_documents(variance, difference) == pytest.approx(expected, abs=1)
    assert smallest_difference(variance, round(expected)) == pytest.approx(difference, rel=0.01)


def test_bootstrap_is_close_to_scipys() -> None:
    """BCa limits of a skewed mean, up to what other draws make of them."""
    values = np.random.default_rng(5).exponential(size=80).tolist()
    found = bootstrap(mean, mean(values), values)
    expected = stats.bootstrap((values,), np.mean, n_resamples=9999, rng=np.random.default_rng(6)).confidence_interval
    assert found == pytest.approx((expected.low, expected.high), abs=0.03)
