"""Groups of tasks: p-values are uniform where nothing differs, intervals hold the true weighted difference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from evalkit.statistics import stratified
from evalkit.statistics.paired import Floats, compare_means, compare_shares, permutation
from evalkit.statistics.stratified import Stratum, compare_strata

Draw = Callable[[np.random.Generator, int, int], tuple[Floats, Floats]]
CHANCE = 0.01
"""Below this, a test of uniformity fails; it would once in a hundred other choices of the seeds."""
SIZES = (30, 12, 60, 20)


def shares(generator: np.random.Generator, size: int, task: int) -> tuple[Floats, Floats]:
    """Right and wrong answers: tasks differ in how often, and by how much, the second system is better."""
    drawn = generator.random(size)
    worse, better = drawn < 0.2, drawn > 0.9 - 0.05 * task
    return worse.astype(float), better.astype(float)


def values(generator: np.random.Generator, size: int, task: int) -> tuple[Floats, Floats]:
    """Other values, each task with a spread and a difference of its own."""
    return np.zeros(size), generator.normal(0.3 * task - 0.2, 1 + task, size)


def strata(generator: np.random.Generator, draw: Draw, *, weighted: bool) -> list[Stratum]:
    numbered = enumerate(SIZES)
    return [Stratum(*draw(generator, size, task), weight=size if weighted else 1.0) for task, size in numbered]


def truth(differences: list[float], *, weighted: bool) -> float:
    return float(np.average(differences, weights=SIZES if weighted else None))


@pytest.fixture
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulations need many p-values, and none of them exactly."""
    seeds = iter(range(10**6))
    monkeypatch.setattr(stratified, "permutation", lambda gains: permutation(gains, draws=199, seed=next(seeds)))


@pytest.mark.usefixtures("_few_draws")
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(("draw", "differences"), [(shares, [-0.1, -0.05, 0.0, 0.05]), (values, [-0.2, 0.1, 0.4, 0.7])])
def test_interval_covers(draw: Draw, differences: list[float], weighted: bool) -> None:
    """The true difference is in the interval 93 to 97 times of 100."""
    generator, expected = np.random.default_rng(1), truth(differences, weighted=weighted)
    found = [compare_strata(strata(generator, draw, weighted=weighted)).interval for _ in range(2000)]
    held = [interval is not None and interval[0] <= expected <= interval[1] for interval in found]
    assert 0.93 <= np.mean(held) <= 0.97


@pytest.mark.usefixtures("_few_draws")
@pytest.mark.parametrize("weighted", [True, False])
def test_p_values_are_uniform_under_the_null(weighted: bool) -> None:
    """Two equally good systems, whatever the tasks' weights: every p-value is as likely as any other."""

    def same(generator: np.random.Generator, size: int, task: int) -> tuple[Floats, Floats]:
        before, after = generator.normal(0, 1 + task, (2, size))
        return before, after

    generator = np.random.default_rng(2)
    found = [compare_strata(strata(generator, same, weighted=weighted)).p_value for _ in range(1000)]
    assert stats.kstest(found, "uniform").pvalue > CHANCE


@pytest.mark.usefixtures("_few_draws")
def test_clustered_p_values_are_uniform_under_the_null() -> None:
    """Documents of a cluster win and lose together; clusters of two tasks never mix, whatever they are called."""
    generator, clusters, found = np.random.default_rng(3), np.repeat(np.arange(15), 4).tolist(), []
    for _ in range(500):
        gains = [np.repeat(generator.standard_normal(15), 4) + generator.standard_normal(60) for _ in range(2)]
        found.append(compare_strata([Stratum(np.zeros(60), gain, 1.0, clusters) for gain in gains]).p_value)
    assert stats.kstest(found, "uniform").pvalue > CHANCE


def test_shares_of_many_tasks_are_uniform_under_the_null() -> None:
    """McNemar's test over 57 tasks of unlike difficulty, by the number of documents."""
    generator, found = np.random.default_rng(4), []
    for _ in range(500):
        tasks = []
        for chance in np.linspace(0.02, 0.4, 57):
            drawn = generator.random(150)
            tasks.append(Stratum((drawn < chance).astype(float), (drawn > 1 - chance).astype(float), 150))
        found.append(compare_strata(tasks).p_value)
    assert stats.kstest(found, "uniform").pvalue > CHANCE


def test_one_task_is_compared_as_it_is_alone() -> None:
    """A group of a single task has the task's own numbers."""
    generator = np.random.default_rng(5)
    before, after = shares(generator, 200, 2)
    group, task = compare_strata([Stratum(before, after, 200)]), compare_shares(before, after)
    assert (group.p_value, group.test) == (task.p_value, task.test)
    assert group.difference == pytest.approx(task.difference)
    assert group.interval == pytest.approx(task.interval, abs=1e-3)
    before, after = values(generator, 200, 1)
    group, task = compare_strata([Stratum(before, after, 3.0)]), compare_means(before, after)
    assert group.interval == pytest.approx(task.interval)
    assert group.p_value == pytest.approx(task.p_value, abs=0.02)
    assert group.detectable == pytest.approx(task.detectable)


def test_tasks_that_differ_do_not_widen_the_interval() -> None:
    """One task all better, one all worse: within the tasks nothing varies, and the average is known well."""
    half = np.zeros(50), np.ones(50)
    found = compare_strata([Stratum(*half, 50), Stratum(*half[::-1], 50)])
    alone = compare_shares(np.concatenate(half), np.concatenate(half[::-1]))
    assert found.interval is not None
    assert alone.interval is not None
    assert found.interval[1] - found.interval[0] < (alone.interval[1] - alone.interval[0]) / 2


@pytest.mark.parametrize("sizes", [[1], [1, 1], [1, 40], [1, 1, 1, 5]])
def test_tasks_of_one_document(sizes: list[int]) -> None:
    """They have no spread of their own; together with others they count."""
    generator = np.random.default_rng(6)
    tasks = [Stratum(*values(generator, size, 1), 1.0) for size in sizes]
    found = compare_strata(tasks)
    assert found.difference == pytest.approx(np.mean([task.after.mean() for task in tasks]))
    assert (found.interval is None) == (sizes == [1])


def test_equal_answers() -> None:
    """No difference in any task: p = 1, and no interval where nothing varies but shares."""
    same = np.array([0.0, 1.0, 1.0])
    found = compare_strata([Stratum(same, same, 3), Stratum(same, same, 3)])
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert found.interval is not None
    assert compare_strata([Stratum(same * 2, same * 2, 1), Stratum(same, same, 1)]).interval is None
