"""The report is one sound file, whatever is in the runs."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from evalkit.cli.main import build_app
from evalkit.errors import EvalkitError
from evalkit.reading import samples
from evalkit.reading.finished import open_runs
from evalkit.testing.finished import choice_row
from evalkit_report.pack import Packer, dump, pack
from evalkit_report.page import number, render_report, write_report

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
ROW = st.fixed_dictionaries(
    {"doc_id": st.just(0), "target": JSON, "filtered_resps": JSON, "metrics": st.just(["acc"]), "acc": JSON},
    optional={
        "arguments": st.lists(st.lists(JSON, min_size=1, max_size=2), max_size=4),
        "resps": st.lists(st.lists(JSON, max_size=2), max_size=4),
        "error": st.text(),
    },
)
HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> {{ 7 * 7 }} \ud800"
)


def unpack(text: str) -> str:
    return gzip.decompress(base64.b64decode(text)).decode()


def embedded(html: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The index and the samples in a page."""
    (index,) = re.findall(r'id="index">([^<]*)<', html)
    parts = re.findall(r'class="part">([^<]*)<', html)
    lines = [line for part in parts for line in unpack(part).split("\n")]
    return json.loads(unpack(index)), [json.loads(line) for line in lines]


@given(st.text(st.characters(codec=None)))
def test_packed_text_is_plain(text: str) -> None:
    """Nothing that is packed can be read as markup, and JSON comes back whole, half surrogate pairs included."""
    packed = pack(json.dumps([text], ensure_ascii=False))
    assert re.fullmatch(r"[A-Za-z0-9+/=]*", packed)
    assert json.loads(unpack(packed)) == [text]


@given(ROW)
def test_any_row_can_be_shown(row: dict[str, Any]) -> None:
    """Whatever values a task puts into its rows, the page gets JSON that browsers read."""
    text = dump([samples.describe((row, None)), samples.answer_text(row), samples.verdict(row, {})])
    json.loads(text, parse_constant=pytest.fail)


def test_parts_hold_all_samples_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sample is in the part that the index says."""
    monkeypatch.setattr("evalkit_report.pack.PART_BYTES", 100)
    packer = Packer()
    for doc in range(50):
        packer.add({"doc": doc}, {"prompt": f"prompt {doc}"})
    index = json.loads(unpack(packer.finish({})))
    found = [len(unpack(part).split("\n")) for part in packer.parts]
    assert len(packer.parts) > 5
    assert index["starts"] == [sum(found[:i]) for i in range(len(found))]
    assert sum(found) == index["count"] == 50


def test_report_holds_every_sample(real_run: Path) -> None:
    """Documents, prompts, answers with log-probabilities and metrics of all tasks are in the page."""
    html, count = render_report(open_runs([real_run]))
    index, samples = embedded(html)
    assert count == len(samples) == index["count"] == 25 + 25 + 12
    assert index["tasks"] == ["starter_questions", "starter_arithmetic", "starter_prose"]
    assert {len(column) for column in index["columns"].values()} == {count}
    first = samples[0]
    assert first["prompt"].startswith("Question:")
    assert all(answer["logprob"] < 0 for answer in first["runs"][0]["answers"])
    assert set(first["runs"][0]["metrics"]) == {"acc", "acc_norm"}


def test_flipped_samples_are_told(opened: Any) -> None:
    """Verdicts of both runs stand side by side."""
    runs = opened(
        a=[choice_row(0, "0?", 0, 0), choice_row(1, "1?", 0, 0)],
        b=[choice_row(0, "0?", 1, 0), choice_row(1, "1?", 0, error="x")],
    )
    index, _ = embedded(render_report(runs)[0])
    assert index["columns"]["verdicts"] == ["rw", "re"]


def test_page_loads_nothing(real_run: Path) -> None:
    """No address of another file or server, and a policy that forbids any."""
    html, _ = render_report(open_runs([real_run]))
    assert "default-src 'none'" in html
    assert not re.search(r"""\b(?:src|href)=(?!"#)""", html)
    assert not re.search(r"@import|url\(", html)


def test_hostile_texts_stay_text(make_run: Any) -> None:
    """Texts of a run are never markup: not in names, settings, warnings, or samples."""
    sample = choice_row(0, HOSTILE, 0, 0)
    more = {"warnings": [HOSTILE], "results": {HOSTILE: {f"{HOSTILE},none": 0.5}}, "versions": {"quiz": HOSTILE}}
    path = make_run("hostile", spec={"model": HOSTILE, "tasks": [HOSTILE]}, more=more, quiz=[sample])
    html, _ = render_report(open_runs([path]))
    assert "<script>document" not in html
    assert "<img" not in html
    assert "{{ 7" in html
    assert embedded(html)[1][0]["prompt"] == f"{HOSTILE}\nAnswer:"


@pytest.mark.parametrize(
    ("target", "problem"),
    [("results.json", "no HTML file"), ("missing/report.html", "there is no folder"), ("folder.html", "the folder")],
)
def test_bad_target_is_refused(real_run: Path, tmp_path: Path, target: str, problem: str) -> None:
    """A target that cannot or must not be written is refused, and nothing is made."""
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(EvalkitError, match=problem):
        write_report(open_runs([real_run]), tmp_path / target)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.html"]


def test_command(real_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`evalkit report RUN` writes report-RUN.html beside you and says so; the run folder is left as it is."""
    pytest.importorskip("evalkit_report.plugin")
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in real_run.iterdir()}
    done = CliRunner().invoke(build_app(), ["report", str(real_run), "--json"], catch_exceptions=False)
    written = json.loads(done.stdout)
    assert written == {"html": "report-run.html", "samples": 62, "bytes": Path("report-run.html").stat().st_size}
    assert {path: path.stat().st_mtime_ns for path in real_run.iterdir()} == before


def test_numbers() -> None:
    """Numbers have digits that say something."""
    assert [number(x) for x in (None, 0.5, 123456.7, 5e16)] == ["–", "0.5000", "123,457", "5e+16"]
    assert number(1234567, 0) == "1,234,567"


def test_joules_are_told_where_there_are_any(make_run: Any) -> None:
    """With the counter that they are from; without a counter there is no line of joules."""
    counted = {"tokens": {"requested": 300, "unique": 100, "computed": 150}, "seconds": {"inference": 10}}
    path = make_run("a", more={**counted, "joules": 7.5, "joules_from": ["RAPL package-0"]}, quiz=[])
    html, _ = render_report(open_runs([path]))
    assert "Joules for 1,000 tokens" in html
    assert "RAPL package-0" in html
    assert "Joules" not in render_report(open_runs([make_run("b", quiz=[])]))[0]
