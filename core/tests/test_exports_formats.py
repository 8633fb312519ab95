"""An export holds every sample of a run, appears whole or not at all, and needs no more memory for a larger run."""

from __future__ import annotations

import csv
import json
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evalkit.errors import ConfigError, EvalkitError, RunError
from evalkit.exports import FORMATS, export

if TYPE_CHECKING:
    from conftest import Toy

SAMPLES = 4 + 4 + 8 + 4
"""Of the toy benchmark: four documents in four tasks, one of them under two filters."""


@pytest.fixture
def run(toy: Toy) -> Path:
    """A finished run of the toy benchmark."""
    return Path(toy.run().run_dir)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_parquet(path: Path) -> list[dict[str, Any]]:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


def large_run(folder: Path, samples: int) -> Path:
    """A finished run with one task of that many samples, written by hand."""
    folder.mkdir()
    spec = {"model_args": {}, "limit": None}
    (folder / "run.json").write_text(json.dumps({"format": 1, "created": "2026-01-01T00:00:00+0000", "spec": spec}))
    results = {
        "run_dir": str(folder),
        "results": {"t": {"acc,none": 1.0, "acc_stderr,none": 0.0}},
        "n-samples": {"t": {"effective": samples}},
        "n-shot": {"t": 0},
        "versions": {"t": "1.0"},
        "model_name": "any",
        "engine": {},
    }
    (folder / "results.json").write_text(json.dumps(results))
    row = {"doc": {}, "target": "a", "filter": "none", "metrics": ["acc"], "acc": 1.0}
    asked = {"arguments": [["Q" * 200, {}]], "resps": [["a"]], "filtered_resps": ["a"]}
    with (folder / "samples_t.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"doc_id": n, **row, **asked}) + "\n" for n in range(samples))
    return folder


def test_csv_and_parquet_hold_the_same_rows(run: Path, tmp_path: Path) -> None:
    """A row a sample: names, metrics between them, what was asked and answered; absent metrics are empty."""
    assert export(run, tmp_path / "s.csv").rows == SAMPLES
    assert export(run, tmp_path / "s.parquet").rows == SAMPLES
    texts, typed = read_csv(tmp_path / "s.csv"), read_parquet(tmp_path / "s.parquet")
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in typed] == texts
    assert list(typed[0])[:3] == ["task", "doc_id", "filter"]
    assert list(typed[0])[-4:] == ["target", "prompt", "response", "error"]
    choice = next(row for row in typed if row["task"] == "toy_choice")
    assert isinstance(choice["acc"], float)
    assert choice["exact_match"] is None
    assert choice["prompt"].endswith("Q: 0 + 0?\nA:")
    assert [text for text, _ in json.loads(choice["response"])] == [" 0", " naïve 0", " no"]


def test_jsonl_holds_every_row_with_its_task(run: Path, tmp_path: Path) -> None:
    """The rows of all sample files, unchanged."""
    assert export(run, tmp_path / "s.jsonl").rows == SAMPLES
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    for task in ("toy_choice", "toy_text"):
        own = [json.loads(line) for line in (run / f"samples_{task}.jsonl").read_text().split("\n")[:-1]]
        assert [row for row in rows if row["task"] == task] == [{"task": task, **row} for row in own]


def test_one_task_alone(run: Path, tmp_path: Path) -> None:
    """`task` leaves the other tasks and their metrics out."""
    export(run, tmp_path / "s.csv", task="toy_text")
    rows = read_csv(tmp_path / "s.csv")
    assert {row["task"] for row in rows} == {"toy_text"}
    assert "acc" not in rows[0]


def test_failed_requests_keep_their_error(toy: Toy, tmp_path: Path) -> None:
    """A sample without a score is a row with the reason."""
    toy.tape.fails_on = "1 + 1?"
    result = toy.run("toy_text")
    toy.tape.fails_on = None
    export(Path(result.run_dir), tmp_path / "s.csv")
    errors = [row["error"] for row in read_csv(tmp_path / "s.csv")]
    assert errors.count("the engine lost it") == 1
    assert errors.count("") == 6


def test_texts_that_utf8_cannot_hold(toy: Toy, tmp_path: Path) -> None:
    """Half a surrogate pair, separators and quotes survive every format."""
    text = 'half \ud83d, "quoted",\u2028line\nend'
    toy.write("test", [{"question": "Q?", "choices": [text], "answer": 0, "text": "T"}])
    run = Path(toy.run("toy_text").run_dir)
    for ending in ("csv", "jsonl", "parquet"):
        export(run, tmp_path / f"s.{ending}")
    shown = text.replace("\ud83d", "\\ud83d")
    assert read_csv(tmp_path / "s.csv")[0]["target"] == shown
    assert read_parquet(tmp_path / "s.parquet")[0]["target"] == shown
    row = json.loads((tmp_path / "s.jsonl").read_text(encoding="utf-8").split("\n")[0])
    assert row["target"] == text


@pytest.mark.parametrize("format_name", ["csv", "jsonl", "parquet", "inspect"])
def test_memory_does_not_grow_with_the_run(tmp_path: Path, format_name: str) -> None:
    """Samples are streamed: a run of 60 MB is exported within less than half of that."""
    if format_name == "parquet":
        pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    run = large_run(tmp_path / "run", 20_000)
    tracemalloc.start()
    try:
        done = export(run, tmp_path / "out", to=format_name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert done.rows == 20_000
    assert peak < 12_000_000


def test_nothing_is_replaced_unasked(run: Path, tmp_path: Path) -> None:
    """A file that exists stays, unless it is to be replaced."""
    file = tmp_path / "s.csv"
    file.write_text("mine")
    with pytest.raises(ConfigError, match=r"exists\. Choose another file, or replace it with --force"):
        export(run, file)
    assert file.read_text() == "mine"
    assert export(run, file, force=True).bytes == file.stat().st_size > 4


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("samples", {}, r"says no format.*--to parquet\|csv"),
        ("s.csv", {"to": "parket"}, r"Did you mean 'parquet'"),
        ("s.csv", {"task": "toy_texts"}, r"Did you mean 'toy_text'"),
        ("absent/s.csv", {}, r"cannot be written"),
        ("s.json", {}, r"one task of 4\. Choose with --task: toy_choice, .*; or name a folder for all: --to inspect s"),
    ],
)
def test_bad_requests_leave_no_file(run: Path, tmp_path: Path, file: str, fields: dict[str, str], message: str) -> None:
    """The message names the cause and the next step, and nothing half-made is left."""
    with pytest.raises(EvalkitError, match=message):
        export(run, tmp_path / file, **fields)  # type: ignore[arg-type]
    assert not list(tmp_path.glob("s*.*"))


def test_a_damaged_sample_file_is_named(run: Path, tmp_path: Path) -> None:
    """The file and the line are in the message, and no export is left."""
    path = run / "samples_toy_text.jsonl"
    path.write_text(path.read_text(encoding="utf-8")[:-40] + " " * 100, encoding="utf-8")
    with pytest.raises(RunError, match=r"samples_toy_text\.jsonl, line 8 is damaged"):
        export(run, tmp_path / "s.jsonl")
    path.unlink()
    with pytest.raises(RunError, match=r"samples_toy_text\.jsonl is missing"):
        export(run, tmp_path / "s.jsonl")
    assert not list(tmp_path.glob("s.jsonl*"))


def test_an_unfinished_run_says_how_to_finish(toy: Toy, tmp_path: Path) -> None:
    """Samples are there once all is scored."""
    toy.tape.crash_after = 3
    with pytest.raises(RuntimeError):
        toy.run(output=str(tmp_path / "broken"))
    toy.tape.crash_after = None
    with pytest.raises(RunError, match=r"is not finished\. Complete it with: evalkit resume"):
        export(tmp_path / "broken", tmp_path / "s.csv")


def test_every_format_has_a_writer() -> None:
    """What completion offers can be loaded."""
    from evalkit.specs import load_object

    assert all(callable(load_object(found.load)) for found in FORMATS.values())
