"""Inspect's own reader reads an exported eval log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evalkit.errors import ConfigError, RunError
from evalkit.exports import export

if TYPE_CHECKING:
    from conftest import Toy


def _exported(toy: Toy, path: Path, task: str) -> Path:
    run = Path(toy.run(task).run_dir)
    return Path(export(run, path / f"{task}.json").file)


def _read(path: Path) -> Any:
    log = pytest.importorskip("inspect_ai.log", reason="inspect_ai is not installed", exc_type=ImportError)
    return log.read_eval_log(str(path))


@pytest.mark.parametrize("task", ["toy_choice", "toy_target", "toy_text", "toy_pages"])
def test_inspect_reads_every_kind_of_task(toy: Toy, tmp_path: Path, task: str) -> None:
    """The reader finds the task, every document, and the scores of the run."""
    log = _read(_exported(toy, tmp_path, task))
    assert (log.status, log.eval.task, log.eval.model) == ("success", task, "fake")
    assert [sample.id for sample in log.samples] == [1, 2, 3, 4]
    assert log.results.completed_samples == 4
    assert all(set(sample.scores) == {score.name for score in log.results.scores} for sample in log.samples)
    assert {name for score in log.results.scores for name in score.metrics} <= {"mean", "stderr"}


def test_several_tasks_are_a_folder_of_logs(toy: Toy, tmp_path: Path) -> None:
    """A log a task, which Inspect reads; a log that is there is kept, or replaced when asked."""
    result = toy.run()
    done = export(Path(result.run_dir), tmp_path / "logs", to="inspect")
    tasks = {"toy_choice", "toy_target", "toy_text", "toy_pages"}
    assert {path.stem for path in (tmp_path / "logs").iterdir()} == tasks
    assert done.rows == 4 * len(tasks)
    with pytest.raises(ConfigError, match=r"toy_choice\.json exists"):
        export(Path(result.run_dir), tmp_path / "logs", to="inspect")
    export(Path(result.run_dir), tmp_path / "logs", to="inspect", force=True)
    logs = [_read(path) for path in (tmp_path / "logs").iterdir()]
    assert {one.eval.task for one in logs} == tasks
    assert len({one.eval.eval_id for one in logs}) == len(tasks)


def test_a_folder_of_logs_appears_whole_or_not_at_all(toy: Toy, tmp_path: Path) -> None:
    """A run whose last sample file is damaged leaves no log of the first."""
    run = Path(toy.run("toy_choice", "toy_text").run_dir)
    (run / "samples_toy_text.jsonl").write_text("{\n" * 10_000)
    with pytest.raises(RunError, match=r"line 1 is damaged"):
        export(run, tmp_path / "logs", to="inspect")
    assert not (tmp_path / "logs").exists()


def test_a_sample_has_question_choices_and_scores(toy: Toy, tmp_path: Path) -> None:
    """What the model preferred is its answer; the metrics are scores under their names."""
    (first, *_) = json.loads(_exported(toy, tmp_path, "toy_choice").read_text(encoding="utf-8"))["samples"]
    assert first["input"].endswith("Q: 0 + 0?\nA:")
    assert first["choices"] == [" 0", " naïve 0", " no"]
    assert first["output"]["completion"] in first["choices"]
    assert set(first["scores"]) == {"acc", "acc_norm"}
    assert first["metadata"]["doc"]["question"] == "0 + 0?"


def test_a_document_under_two_filters_is_one_sample(toy: Toy, tmp_path: Path) -> None:
    """Each filter makes a score of its own, which names it."""
    (first, *_) = json.loads(_exported(toy, tmp_path, "toy_text").read_text(encoding="utf-8"))["samples"]
    assert set(first["scores"]) == {"exact_match", "exact_match (small)"}


def test_a_failed_document_carries_its_error(toy: Toy, tmp_path: Path) -> None:
    """It is a sample with an error and without a score."""
    toy.tape.fails_on = "1 + 1?"
    path = _exported(toy, tmp_path, "toy_text")
    toy.tape.fails_on = None
    samples = {sample["id"]: sample for sample in json.loads(path.read_text(encoding="utf-8"))["samples"]}
    assert samples[2]["error"]["message"] == "the engine lost it"
    assert samples[2]["scores"] == {}
    assert _read(path).samples[1].error.message == "the engine lost it"
