"""`evalkit show` tells of a run what its report tells, and pages through its samples."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from evalkit.cli.main import build_app
from evalkit.cli.output import printable
from evalkit.cli.show_run import AXIS, interval_line
from evalkit.errors import EvalkitError
from evalkit.results import RunResult

if TYPE_CHECKING:
    from conftest import Toy


@pytest.fixture
def finished(toy: Toy) -> RunResult:
    """A run of the toy benchmark, with 25 documents to choose in."""
    toy.write("test", [_fact(number) for number in range(25)])
    return toy.run(output=str(toy.path / "mine"))


def _fact(number: int) -> dict[str, Any]:
    choices = [f"{2 * number}", f"naïve {number}", "no"]
    text = f"Page {number}.\nTwo lines, {number} words."
    return {"question": f"{number} + {number}?", "choices": choices, "answer": number % 3, "text": text}


def shown(*words: str) -> str:
    """What `evalkit show` prints."""
    return CliRunner().invoke(build_app(), ["show", *words], catch_exceptions=False).stdout


def as_json(*words: str) -> Any:
    """What `evalkit show --json` prints."""
    return json.loads(shown(*words, "--json"))


def test_a_run_is_shown_with_all_parts(finished: RunResult) -> None:
    """Scores with drawn intervals, groups with their tasks, calibration, cost, and the command that repeats the run."""
    text = shown(finished.run_dir)
    for part in ("Scores\n", "toy, acc\n", "  toy_choice", "Calibration", "Speed and cost\n", "Settings\n", "─●"):
        assert part in text
    assert f"Tokens in                    {finished.cost.tokens_in:,}" in text
    (repeat,) = [line for line in text.splitlines() if line.startswith("repeat: ")]
    assert shlex.split(repeat)[1:4] == ["evalkit", "run", "toy"]
    assert text.endswith(f"run: {finished.run_dir}\n")


def test_json_holds_the_same(finished: RunResult) -> None:
    """Results, speed, calibration and settings as one object."""
    found = as_json(finished.run_dir)
    assert found["results"]["speed"] == finished.cost.to_dict()
    assert found["calibration"][0]["documents"] == 25
    assert found["command"].startswith("evalkit run toy")
    assert found["spec"]["tasks"] == ["toy"]


def test_pages_hold_every_sample_once(finished: RunResult) -> None:
    """Each page says how to get the next; together they are all samples in order."""
    words, seen = [finished.run_dir, "--samples", "toy_choice", "--limit", "10"], []
    while words:
        text = shown(*words)
        seen += [int(line.split()[0]) for line in text.splitlines() if line[:1].isdigit() and " of " not in line]
        following = [line for line in text.splitlines() if line.startswith("next: ")]
        words = shlex.split(following[0])[3:] if following else []
    assert seen == list(range(25))


def test_right_and_wrong_are_all_there_is(finished: RunResult) -> None:
    """Every scored sample has one of both verdicts, and no other sample is listed under it."""
    found = {only: as_json(finished.run_dir, "--samples", "toy_choice", "--only", only) for only in ("right", "wrong")}
    assert found["right"]["found"] + found["wrong"]["found"] == 25
    for only, page in found.items():
        assert {sample["runs"][0]["verdict"] for sample in page["samples"]} <= {only}


def test_a_document_is_shown_in_full(finished: RunResult) -> None:
    """The prompt as it was asked, and every choice with its log-probability."""
    text = shown(finished.run_dir, "--samples", "toy_choice", "--doc", "3")
    (sample,) = as_json(finished.run_dir, "--samples", "toy_choice", "--doc", "3")["samples"]
    assert "3 + 3?" in sample["prompt"]
    assert all(f"  {line}" in text for line in sample["prompt"].split("\n"))
    for answer in sample["runs"][0]["answers"]:
        assert str(answer["logprob"]) in text
        assert answer["text"].strip() in text


def test_two_runs_stand_side_by_side(finished: RunResult, toy: Toy) -> None:
    """Each has its column, and a run flips nothing against its own repetition."""
    toy.run(output=str(toy.path / "again"))
    both = (finished.run_dir, "--samples", "toy_choice", "--against", str(toy.path / "again"))
    assert "mine verdict" in shown(*both)
    assert "again answer" in shown(*both)
    assert shown(*both, "--only", "flipped").splitlines()[-1] == "no sample is so"


def test_an_unfinished_run_says_how_far_it_is(toy: Toy) -> None:
    """Its samples are not there yet: the message says how to complete it."""
    toy.tape.crash_after = 3
    with pytest.raises(RuntimeError):
        toy.run(output=str(toy.path / "half"))
    assert "continue with: evalkit resume" in shown(str(toy.path / "half"))
    assert as_json(str(toy.path / "half"))["results"] is None
    with pytest.raises(EvalkitError, match=r"not finished\. Complete it with"):
        shown(str(toy.path / "half"), "--samples", "toy_choice")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--samples", "toy_choise"), "Did you mean 'toy_choice'"),
        (("--only", "wrong"), "tasks. Choose one with: --samples"),
        (("--samples", "toy_choice", "--doc", "25"), "has no document 25"),
        (("--samples", "toy_choice", "--only", "flipped"), "--against RUN"),
        (("--samples", "toy_choice", "--against", "nowhere"), "no run 'nowhere'"),
    ],
)
def test_bad_input_is_one_line(finished: RunResult, words: tuple[str, ...], message: str) -> None:
    """The cause, and what to do."""
    with pytest.raises(EvalkitError, match=message) as caught:
        shown(finished.run_dir, *words)
    assert "\n" not in str(caught.value)


def test_missing_samples_leave_the_scores(finished: RunResult) -> None:
    """A copy without sample files, or with a damaged one, still shows its results."""
    path = Path(finished.run_dir) / "samples_toy_choice.jsonl"
    path.write_text("damaged\n", encoding="utf-8")
    assert "Speed and cost" in shown(finished.run_dir)
    path.unlink()
    assert "Speed and cost" in shown(finished.run_dir)


def test_intervals_are_drawn_to_scale() -> None:
    """The line is as long as its heading, the value lies within, and what does not fit 0 to 1 is not drawn."""
    assert interval_line(0.5, (0.0, 1.0)) == "─" * (AXIS // 2) + "●" + "─" * (AXIS // 2 - 1)
    assert interval_line(1.0, (0.95, 1.01))[-2:] == "─●"
    assert interval_line(0.0, (-0.1, 0.0)) == "●" + "·" * (AXIS - 1)
    assert {interval_line(12.0, (11.0, 12.5)), interval_line(0.5, None)} == {""}


def test_no_text_steers_the_terminal() -> None:
    """Escape sequences of an answer are spelt out; letters of any alphabet and line ends are left."""
    assert printable("\x1b[31mred\r\x9b\n\tnaïve 日本 \ud800") == "\\x1b[31mred\\x0d\\x9b\n\tnaïve 日本 \\ud800"
