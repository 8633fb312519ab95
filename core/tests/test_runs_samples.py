"""Sample files are read without their texts, whatever the texts hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import RunError
from evalkit.requests import LoglikelihoodOutput, LoglikelihoodRequest
from evalkit.results import Sample
from evalkit.runs.samples import Document, _without_texts, read_samples

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
        with pytest.raises(RunError, match=r"cut\.jsonl is damaged"):
            read_samples(tmp_path / "cut.jsonl")
