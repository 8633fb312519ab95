"""Sample files are read without their texts, whatever the texts hold."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import RunError
from evalkit.requests import LoglikelihoodOutput, LoglikelihoodRequest
from evalkit.results import Sample
from evalkit.runs.samples import (
    OFFSET,
    Document,
    _without_texts,
    light_rows,
    raw_rows,
    read_samples,
    row_at,
    sample_rows,
)

TEXTS = st.text() | st.sampled_from(['"filter": "', '{"doc_id": 7, "', '\\", "filter": "x', "\u2028"])


def line(text: str, *, doc_id: int = 3, **fields: object) -> bytes:
    sample = Sample(
        task="toy",
        doc_id=doc_id,
        doc={"filter": text, "nested": {"filter": "none", "text": text}},
        target=text,
        requests=(LoglikelihoodRequest(text, text),),
        outputs=(LoglikelihoodOutput(-1.0),),
        filter="none",
        filtered=text,
        values={"acc": 1.0, "pair": (-2.0, 3)},
        **fields,  # type: ignore[arg-type]
    )
    row = json.dumps(sample.to_dict(), ensure_ascii=False, default=str)
    return row.encode(errors="backslashreplace") + b"\n"


@given(TEXTS, TEXTS)
def test_no_text_is_taken_for_a_field(text: str, remark: str) -> None:
    """What is read without the texts equals what reading the whole row gives."""
    row = line(text, remarks=(remark,), cluster=text)
    found, whole = _without_texts(row), json.loads(row)
    assert found is not None
    assert all(found[name] == whole[name] for name in found)
    assert {"doc_id", "metrics", "doc_hash", "prompt_hash", "filter", "acc", "pair", "cluster"} <= set(found)


def test_values_of_every_filter_and_other_writers_rows(tmp_path: Path) -> None:
    """Rows with their fields in another order are read as a whole."""
    path = tmp_path / "samples_toy.jsonl"
    other = {"metrics": ["acc"], "filter": "strict", "acc": 0.0, "doc_hash": "d", "prompt_hash": "p", "doc_id": 4}
    path.write_bytes(line("a") + json.dumps(other).encode() + b"\n" + line("b", doc_id=5, error="lost", cluster="x"))
    found = read_samples(path)
    assert found.values["acc,strict"] == {4: 0.0}
    assert found.values["pair,none"][3] == [-2.0, 3]
    assert found.documents[4] == Document("d", "p")
    assert list(found.documents) == [3, 4, 5]
    assert list(found.clusters) == [5]


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    """One line says which file, and what to do."""
    with pytest.raises(RunError, match=r"samples_toy\.jsonl is missing\. Make it again with: evalkit resume"):
        read_samples(tmp_path / "samples_toy.jsonl")
    for text in (b'{"doc_id": 1, "doc": ', b"[]\n", b'{"doc_id": 1}\n', b"\xff\n"):
        (tmp_path / "cut.jsonl").write_bytes(text)
        with pytest.raises(RunError, match=r"cut\.jsonl, line 1 is damaged"):
            read_samples(tmp_path / "cut.jsonl")


@given(st.lists(TEXTS, max_size=5), st.lists(st.tuples(st.floats(max_value=0), st.booleans()), min_size=1, max_size=4))
def test_a_light_row_leads_to_the_whole_one(texts: list[str], scored: list[tuple[float, bool]]) -> None:
    """Light rows, whole ones and the lines themselves stand for the same samples; log-probabilities are in both."""
    outputs = tuple(LoglikelihoodOutput(*answer) for answer in scored)
    choices = Sample(
        "toy", 9, {"q": '"filtered_resps": [['}, 0, (), outputs, "none", [a for a, _ in scored], {"acc": 1}
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples_toy.jsonl"
        lines = [*(line(text, doc_id=number) for number, text in enumerate(texts))]
        path.write_bytes(b"".join([*lines, json.dumps(choices.to_dict()).encode() + b"\n"]))
        whole, light = list(sample_rows(path)), list(light_rows(path))
        assert [row_at(path, row[OFFSET]) for row in light] == whole
        assert [(offset, json.loads(text)) for offset, text in raw_rows(path)] == [
            (row[OFFSET], found) for row, found in zip(light, whole, strict=True)
        ]
    assert light[-1]["filtered_resps"] == whole[-1]["filtered_resps"] == [list(answer) for answer in scored]


def test_a_row_without_what_was_asked_is_no_sample(tmp_path: Path) -> None:
    """The line at fault is named, with the command that makes the run again."""
    path = tmp_path / "samples_toy.jsonl"
    path.write_bytes(line("a") + b'{"doc_id": 4, "filter": "none", "metrics": []}\n')
    with pytest.raises(RunError, match=r"samples_toy\.jsonl, line 2 is damaged .*evalkit resume"):
        list(sample_rows(path))
    assert [row["doc_id"] for row in light_rows(path)] == [3, 4]
