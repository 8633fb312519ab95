"""An evaluation's files: the spec that its process reads, and the outcome that is read from its run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.runs.folder import RunFolder
from evalkit.runs.spec import make_spec, read_yaml
from evalkit_http.service.evaluation import Evaluation, samples_file
from evalkit_http.service.job import Job
from evalkit_http.service.kinds import LOG, failure
from evalkit_http.service.protocol import JobStatus

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def job(work: dict[str, Any] | None = None, **request: Any) -> Job:
    fields = {"number": 1, "id": "a1", "kind": "evaluate", "status": JobStatus.RUNNING, "priority": 0}
    times = {"created": 0.0, "started": None, "completed": None, "not_before": 0.0, "attempts": 0}
    rest = {"devices": (), "reason": None, "cancelled": False, "result": None, "error": None}
    return Job(**fields, **times, **rest, request=request, work=work or {})  # type: ignore[arg-type]


def finished(folder: Path, **results: Any) -> Path:
    run = folder / "run"
    made = RunFolder.create(run, {"status": "running", "spec": {}, "requests": 2})
    made.write_json("results.json", {"run_dir": "/x", "results": {"t": {"acc,none": 0.5}}, **results})
    made.update_manifest(status="finished")
    made.release()
    return run


@given(st.dictionaries(TEXT, VALUES, max_size=3), TEXT)
def test_the_spec_file_says_what_was_asked(tmp_path_factory: pytest.TempPathFactory, options: Any, prompt: str) -> None:
    """Whatever a request holds, emojis and tiny numbers included, its process reads the same."""
    folder = tmp_path_factory.mktemp("job")
    fields = {"tasks": ["t"], "engine": "e", "model": "m", "engine_args": options, "system_prompt": prompt}
    words = Evaluation().words(job({"spec": fields}), folder)
    assert words[:2] == ["run", "--config"]
    assert make_spec(read_yaml(Path(words[2]))) == make_spec(fields)


def test_a_run_that_is_there_is_resumed(tmp_path: Path) -> None:
    """What has a manifest is completed; what was killed before that begins again."""
    begun = job({"spec": {}})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.lock").touch()
    assert Evaluation().words(begun, tmp_path)[0] == "run"
    finished(tmp_path)
    assert Evaluation().words(begun, tmp_path) == ["resume", str(tmp_path / "run")]


def test_the_outcome_is_told_by_the_files(tmp_path: Path) -> None:
    """Not finished: none. Finished: the results, without paths of the server."""
    assert Evaluation().outcome(job(), tmp_path) is None
    run = finished(tmp_path)
    outcome = Evaluation().outcome(job(), tmp_path)
    assert outcome is not None
    assert (outcome.status, outcome.error) == (JobStatus.COMPLETED, None)
    assert outcome.result == {"results": {"t": {"acc,none": 0.5}}}
    (run / "run.json").write_text("{")
    assert Evaluation().outcome(job(), tmp_path) is None


def test_numbers_that_json_lacks_are_null(tmp_path: Path) -> None:
    """A perplexity may be infinite; the job's info is JSON still."""
    finished(tmp_path, results={"t": {"perplexity,none": float("inf"), "acc,none": 1.0}})
    outcome = Evaluation().outcome(job(), tmp_path)
    assert outcome is not None
    assert outcome.result is not None
    assert json.loads(json.dumps(outcome.result, allow_nan=False))["results"]["t"]["perplexity,none"] is None


def test_nothing_scored_is_a_failure(tmp_path: Path) -> None:
    """A run whose requests all failed has no score, and is no success."""
    finished(tmp_path, results={"t": {}}, errors=3)
    outcome = Evaluation().outcome(job(), tmp_path)
    assert outcome is not None
    assert outcome.status == JobStatus.FAILED
    assert "3 requests failed" in str(outcome.error)


@pytest.mark.parametrize("task", ["..", "../../x", "t/../../../x", "/etc/passwd", "", "none"])
def test_samples_are_those_of_the_run(tmp_path: Path, task: str) -> None:
    """No name of a task leads out of the run folder."""
    (tmp_path / "x.jsonl").touch()
    finished(tmp_path)
    assert samples_file(job(), tmp_path, task) is None


@pytest.mark.parametrize(
    ("log", "returncode", "says"),
    [
        ("noise\nevalkit: there is no disk\n", 2, "there is no disk"),
        ("evalkit: no model\nleaked: a semaphore\n", 2, "no model"),
        ("evalkit: a warning\nTraceback\nKeyError: 'x'\n", 1, "ended with exit status 1: KeyError: 'x'"),
        ("loading\n", -9, "was killed by signal 9: loading. See the job's log"),
        ("", 3, "ended with exit status 3. See the job's log"),
    ],
)
def test_a_failure_has_the_processs_last_words(tmp_path: Path, log: str, returncode: int, says: str) -> None:
    """The line that the command line prints for people, else the last one."""
    (tmp_path / LOG).write_text(log)
    assert says in str(failure(tmp_path, returncode).error)
