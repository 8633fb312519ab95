"""What is told of runs: scores, costs, plots, and the command that repeats one."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.reading.finished import open_run
from evalkit.reading.plots import Calibration, Lengths, Plots, plotted_intervals
from evalkit.reading.settings import command, environment
from evalkit.reading.summary import cost, groups, label, scores
from evalkit.runner import evaluate
from evalkit.testing.finished import choice_row, write_run


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the fake engine."""
    pytest.importorskip("evalkit_tasks_starter")
    path = tmp_path_factory.mktemp("real") / "run"
    evaluate("starter_arithmetic", engine="evalkit.testing.fake:Fake", model="any", limit=2, output=str(path))
    return path


def test_interval_of_the_run_wins(tmp_path: Path) -> None:
    """An interval in results.json is shown as it is; without one it is made from the standard error and marked."""
    exact = open_run(write_run(tmp_path / "a", more={"intervals": {"quiz": {"acc,none": [0.31, 0.69]}}}, quiz=[]), "a")
    rough = open_run(write_run(tmp_path / "b", quiz=[]), "b")
    first, second = scores([exact, rough])
    assert (first.interval, first.is_rough) == ((0.31, 0.69), False)
    assert second.interval == pytest.approx((0.304, 0.696), abs=1e-3)
    assert second.is_rough


def test_metric_without_stderr_has_no_interval(tmp_path: Path) -> None:
    """ "N/A" is no number."""
    run = open_run(
        write_run(tmp_path / "a", more={"results": {"quiz": {"f1,none": 0.5, "f1_stderr,none": "N/A"}}}, quiz=[]), "a"
    )
    (score,) = scores([run])
    assert (score.stderr, score.interval) == (None, None)
    assert plotted_intervals([score]) == []


def test_group_has_its_tasks(tmp_path: Path) -> None:
    """A group is broken down into its tasks, by run; a task that a run lacks is empty."""
    rows = {"all": {"acc,none": 0.6}, "x": {"acc,none": 0.4}, "y": {"acc,none": 0.8}}
    first = open_run(write_run(tmp_path / "a", more={"results": rows, "group_subtasks": {"all": ["x", "y"]}}), "a")
    second = open_run(write_run(tmp_path / "b", more={"results": {"x": {"acc,none": 0.5}}}), "b")
    ((metric, parts),) = groups([first, second])
    assert metric == "acc"
    assert [(part.name, part.is_group, part.values) for part in parts] == [
        ("all", True, (0.6, None)),
        ("x", False, (0.4, 0.5)),
        ("y", False, (0.8, None)),
    ]


def test_label() -> None:
    """The filter is named unless it is none."""
    assert [label("acc,none"), label("em,strict")] == ["acc", "em (strict)"]


def test_cost_is_what_the_run_says(tmp_path: Path) -> None:
    """Rates are tokens a second of inference; joules are there where the run has them, with what they are from."""
    more = {
        "tokens": {"requested": 300, "unique": 100, "computed": 150},
        "seconds": {"load": 1, "inference": 10, "total": 12},
        "speed": {"tokens_out": 60},
        "joules": 7.5,
        "joules_from": ["RAPL package-0"],
    }
    path = write_run(tmp_path / "a", more=more, quiz=[])
    found = cost(open_run(path, "a"))
    assert (found.tokens_in, found.overhead, found.in_rate, found.out_rate, found.computed_rate) == (
        240,
        1.5,
        24,
        6,
        15,
    )
    assert (found.joules, found.joules_per_1000) == (7.5, 25)


def test_cost_that_is_not_known(tmp_path: Path) -> None:
    """A run without counters has no rates and no line of joules."""
    run = open_run(write_run(tmp_path / "a", quiz=[]), "a")
    found = cost(run)
    assert {found.overhead, found.in_rate, found.out_rate, found.joules, found.joules_per_1000} == {None}


def test_calibration_error() -> None:
    """A model that is right as often as it says has no calibration error; one that is always sure and wrong has 1."""
    good, bad = Calibration("t", 0), Calibration("t", 0)
    for number in range(100):
        good.add(0.75, number % 4 > 0)
        bad.add(1.0, False)
    assert good.error == pytest.approx(0)
    assert bad.error == pytest.approx(1)
    assert good.points == [(0.75, 0.75, 100)]


def test_few_choices_make_no_plot() -> None:
    """A plot of a handful of choices would show chance."""
    plots = Plots()
    for number in range(19):
        plots.add("quiz", 0, choice_row(number, "q?", 0, 0), "r")
    assert not plots.telling_calibrations()
    plots.add("quiz", 0, choice_row(19, "q?", 1, 0), "w")
    assert [plot.total for plot in plots.telling_calibrations()] == [20]


def test_lengths_count_every_answer() -> None:
    """Every answer is in one bar, the longest included."""
    plot = Lengths("t", 0, right=[0, 10, 400], other=[399, 5])
    assert sum(right + other for _, _, right, other in plot.bars) == 5
    assert plot.bars[-1][1] > 400
    assert plot.median == 10


def test_command_repeats_the_run(real_run: Path, tmp_path: Path) -> None:
    """The printed command starts a run with the same spec."""
    manifest = json.loads((real_run / "run.json").read_text())
    given = {"gen": {"max_new_tokens": 3}, "engine_args": {"fail_on": "a 'b' 1", "max_length": 999}, "limit": 2}
    spec = {**manifest["spec"], **given, "tasks": ["starter_arithmetic"], "fewshot_as_multiturn": False}
    words = shlex.split(command(spec))
    assert words[0] == "evalkit"
    out = tmp_path / "again"
    subprocess.run([sys.executable, "-m", *words, "--output", str(out)], check=True, capture_output=True)
    assert json.loads((out / "run.json").read_text())["spec"] == spec


@pytest.mark.parametrize("value", ["yes", "007", "null", "a: b", "[", "plain", "", "--x", "'q'"])
def test_text_options_stay_text(value: str) -> None:
    """Text that YAML would read as something else is quoted."""
    from evalkit.options import parse_free

    words = shlex.split(command({"tasks": ["t"], "chat_template_args": {"name": value}}))
    assert parse_free([words[words.index("--chat-template-arg") + 1]]) == {"name": value}


def test_secret_stays_redacted() -> None:
    """What run.json holds in place of a secret is what the command shows."""
    assert "api_key=***" in shlex.split(command({"tasks": ["t"], "engine_args": {"api_key": "***"}}))


def test_environment(real_run: Path) -> None:
    """Versions, machine and engine of the run are told."""
    facts = environment(open_run(real_run, "r"))
    assert "evalkit-core" in facts["packages"]
    assert "Fake" in facts["engine"]
