"""A run that was stopped goes on: nothing is asked twice, and the scores are those of a run in one go."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evalkit.errors import (
    RunError,
    RunNotFoundError,
)
from evalkit.model import Model
from evalkit.runner import resume
from evalkit.runs.infer import Progress

if TYPE_CHECKING:
    from conftest import Toy

TASKS = ("toy_choice", "toy_target", "toy_text", "toy_pages")
REQUESTS = 4 * 3 + 4 + 4 + 4
"""What the toy benchmark asks: four documents in four tasks, one of them with three choices."""


@pytest.mark.parametrize("after", range(1, REQUESTS))
def test_a_run_resumes_after_a_crash_anywhere(toy: Toy, after: int) -> None:
    """Whenever it was stopped: nothing is asked twice, and the results are those of an unbroken run."""
    expected = toy.run()
    output = toy.path / "broken"
    del toy.tape.asked[:], toy.tape.answered[:]
    toy.crash(output, after)
    first = [repr(request) for request in toy.tape.answered]
    assert toy.manifest(output)["status"] == "running"
    assert not (output / "results.json").exists()
    assert not toy.sample_files(output)

    del toy.tape.asked[:]
    seen: list[Progress] = []
    result = resume(output, on_progress=seen.append)
    second = [repr(request) for request in toy.tape.asked]
    assert (len(first), len(second)) == (after, REQUESTS - after)
    assert len({*first, *second}) == REQUESTS
    assert len(seen) == len(second)
    for last in {progress.kind: progress for progress in seen}.values():
        assert last.done == last.total == last.restored + sum(progress.kind == last.kind for progress in seen)
    assert result.results == expected.results
    assert toy.sample_files(output) == toy.sample_files(expected.run_dir)
    assert toy.manifest(output)["status"] == "finished"
    assert len(toy.manifest(output)["attempts"]) == 2


def test_a_run_may_be_stopped_many_times(toy: Toy) -> None:
    """Every attempt goes on where the last one stopped; tokens and seconds of all of them count."""
    expected = toy.run()
    output = toy.path / "broken"
    del toy.tape.answered[:]
    toy.crash(output, 5)
    for after in (9, 14, 20):
        toy.tape.crash_after = after
        with pytest.raises(RuntimeError):
            resume(output)
    toy.tape.crash_after = None
    result = resume(output)
    assert len(toy.tape.answered) == REQUESTS
    assert result.results == expected.results
    assert result.tokens is not None
    assert expected.tokens is not None
    assert result.tokens.computed >= expected.tokens.computed


def test_ctrl_c_keeps_what_was_answered(toy: Toy) -> None:
    """An interrupt is a crash like any other: the folder stays and can be resumed."""
    toy.tape.error = KeyboardInterrupt()
    toy.tape.crash_after = 3
    with pytest.raises(KeyboardInterrupt):
        toy.run(output=str(toy.path / "stopped"))
    toy.tape.crash_after = None
    assert resume(toy.path / "stopped").results == toy.run().results


def test_a_finished_run_is_only_read(toy: Toy) -> None:
    """Resuming it loads no model and asks nothing."""
    result = toy.run()
    before = len(toy.tape.asked)
    again = resume(result.run_dir)
    assert (again.results, again.tokens, again.run_dir) == (result.results, result.tokens, result.run_dir)
    assert len(toy.tape.asked) == before
    assert len(toy.manifest(result.run_dir)["attempts"]) == 1


def test_a_run_resumes_with_its_own_options(toy: Toy) -> None:
    """Engine, model, examples, limit and seed are those of the start, however they were given."""
    engine = toy.module.Breakable(max_rows=3, batch_tokens=200)
    fields: dict[str, Any] = {"num_fewshot": 2, "limit": 3, "seed": 7, "apply_chat_template": True}
    model = Model("fake", max_length=700)
    expected = toy.run(engine=engine, model=model, **fields)
    del toy.tape.answered[:]
    toy.crash(toy.path / "broken", 4, engine=engine, model=model, **fields)
    result = resume(toy.path / "broken")
    assert result.results == expected.results
    assert toy.sample_files(result.run_dir) == toy.sample_files(expected.run_dir)
    spec = toy.manifest(result.run_dir)["spec"]
    assert (spec["engine_args"], spec["model_args"]) == ({"max_rows": 3, "batch_tokens": 200}, {"max_length": 700})
    attempts = toy.manifest(result.run_dir)["attempts"]
    assert attempts[0]["engine"] == attempts[1]["engine"]


def test_a_run_resumes_from_another_folder(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths of the start still lead to the data."""
    monkeypatch.chdir(toy.path)
    toy.crash(Path("broken"), 3, data_dir="data")
    (toy.path / "elsewhere").mkdir()
    monkeypatch.chdir(toy.path / "elsewhere")
    assert resume(Path("../broken")).results == toy.run().results


def test_a_copied_run_resumes(toy: Toy) -> None:
    """A run folder is all there is: a copy of it goes on as well as the original."""
    toy.crash(toy.path / "broken", 8)
    (toy.path / "broken").rename(toy.path / "moved")
    del toy.tape.asked[:]
    result = resume(toy.path / "moved")
    assert result.run_dir == str(toy.path / "moved")
    assert len(toy.tape.asked) == REQUESTS - 8


def test_a_damaged_journal_costs_its_damaged_records_only(toy: Toy) -> None:
    """What can no longer be read is asked again, said in a warning, and the results are the same."""
    expected = toy.run()
    del toy.tape.answered[:]
    toy.crash(toy.path / "broken", 10)
    with closing(sqlite3.connect(toy.path / "broken" / "journal.sqlite")) as db, db:
        db.execute("UPDATE outputs SET output = output || ' ' WHERE rowid IN (2, 3)")
    del toy.tape.asked[:]
    result = resume(toy.path / "broken")
    assert len(toy.tape.asked) == REQUESTS - 10 + 2
    assert result.warnings == ("2 damaged journal records were asked again",)
    assert result.results == expected.results
    assert toy.sample_files(result.run_dir) == toy.sample_files(expected.run_dir)


def test_a_model_that_changed_is_refused(toy: Toy) -> None:
    """Half a run of one model and half of another would be a score of none."""
    (toy.path / "model.bin").write_bytes(b"weights")
    toy.crash(toy.path / "broken", 3, model=str(toy.path / "model.bin"))
    (toy.path / "model.bin").write_bytes(b"WEIGHTS")
    with pytest.raises(RunError, match=r"changed since .* was started. Start a new run"):
        resume(toy.path / "broken")
    (toy.path / "model.bin").write_bytes(b"weights")
    assert resume(toy.path / "broken").errors == 0


def test_a_missing_run_cannot_be_resumed(toy: Toy) -> None:
    """Nor is anything created where it was looked for."""
    with pytest.raises(RunNotFoundError, match=r"See: evalkit runs"):
        resume(toy.path / "gone")
    assert not (toy.path / "gone").exists()
