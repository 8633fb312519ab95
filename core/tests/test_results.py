"""Samples and results have the shapes that lm-evaluation-harness's tools read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from evalkit.energy import Energy
from evalkit.requests import (
    GenerationOutput,
    GenerationRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Output,
    Request,
    RollingLoglikelihoodOutput,
    RollingLoglikelihoodRequest,
    TokenCounts,
    Usage,
    generated_tokens,
)
from evalkit.results import RunResult, Sample, Seconds


def _sample(requests: tuple[Request, ...], outputs: tuple[Output, ...], **fields: Any) -> Sample:
    given: dict[str, Any] = {"filter": "none", "filtered": None, "values": {}, **fields}
    return Sample("quiz", 3, {"question": "naïve?"}, 1, requests, outputs, **given)


def test_a_multiple_choice_row_has_every_choice() -> None:
    """A row holds each choice's arguments and answer, and each metric's value under its name."""
    requests = (LoglikelihoodRequest("Q:", " a"), LoglikelihoodRequest("Q:", " b"))
    outputs = (LoglikelihoodOutput(-1.5, True), LoglikelihoodOutput(-2.5, False))
    row = _sample(requests, outputs, filtered=[-1.5, -2.5], values={"acc": 0.0, "acc_norm": 1.0}).to_dict()
    digests = {key: row.pop(key) for key in ("doc_hash", "prompt_hash", "target_hash")}
    assert row == {
        "doc_id": 3,
        "doc": {"question": "naïve?"},
        "target": 1,
        "arguments": [["Q:", " a"], ["Q:", " b"]],
        "resps": [[[-1.5, True]], [[-2.5, False]]],
        "filtered_resps": [[-1.5, True], [-2.5, False]],
        "filter": "none",
        "metrics": ["acc", "acc_norm"],
        "acc": 0.0,
        "acc_norm": 1.0,
    }
    assert all(len(digest) == 64 for digest in digests.values())


@pytest.mark.parametrize(
    ("request_", "output", "arguments", "response"),
    [
        (
            GenerationRequest(prompt="Q:", stop=("\n",), max_new_tokens=9),
            GenerationOutput("yes"),
            ["Q:", {"until": ["\n"], "max_gen_toks": 9, "temperature": 0.0, "do_sample": False}],
            "yes",
        ),
        (RollingLoglikelihoodRequest("A page."), RollingLoglikelihoodOutput(-9.0, 3), ["A page."], -9.0),
    ],
)
def test_other_kinds_have_their_own_arguments(request_: Request, output: Output, arguments: Any, response: Any) -> None:
    """Generation shows its stops and limits, a page its text."""
    row = _sample((request_,), (output,)).to_dict()
    assert (row["arguments"], row["resps"]) == ([arguments], [[response]])


def test_notes_and_errors_are_shown_where_there_are_some() -> None:
    """A truncation is in the row, each kind once; a row without any has no such key."""
    request = LoglikelihoodRequest("Q:", " a")
    noted = LoglikelihoodOutput(notes=("truncated", "merged"))
    row = _sample((request, request), (noted, noted), error="failed").to_dict()
    assert (row["notes"], row["error"]) == (["truncated", "merged"], "failed")
    assert not {"notes", "error"} & set(_sample((request,), (LoglikelihoodOutput(),)).to_dict())


def test_hashes_tell_documents_apart() -> None:
    """Equal documents, prompts and targets have equal hashes, whatever the order of fields."""
    request, output = LoglikelihoodRequest("Q:", " a"), LoglikelihoodOutput()
    rows = [
        Sample("quiz", 0, doc, 1, (request,), (output,), "none", None, {}).to_dict()["doc_hash"]
        for doc in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3})
    ]
    assert rows[0] == rows[1] != rows[2]


def test_half_a_surrogate_pair_in_a_document_is_no_obstacle() -> None:
    """JSON may hold half an emoji ("\\ud83d"); a field like that must not stop a run at its very end."""
    doc = {"question": "\ud83d"}
    sample = Sample(
        "quiz", 0, doc, "\ud83d", (LoglikelihoodRequest("Q:", "a"),), (LoglikelihoodOutput(),), "none", [], {}
    )
    assert sample.to_dict()["doc"] == doc


@pytest.mark.parametrize(
    ("tokens", "counted"),
    [
        (TokenCounts(5, 4, 6), {"tokens_out": 2, "energy": Energy(3.5, ("RAPL package-0",))}),
        (TokenCounts(5, 4, 6), {"tokens_out": 0}),
        (None, {}),
    ],
)
def test_a_result_survives_json(tokens: TokenCounts | None, counted: dict[str, Any]) -> None:
    """What `--json` prints is a result again when it is read."""
    result = RunResult(
        "runs/a", {"quiz": {"acc,none": 0.5, "acc_stderr,none": "N/A"}}, tokens, Seconds(1.0, 2.5, 4.0), 2, **counted
    )
    assert RunResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_unknown_token_counts_are_null() -> None:
    """A backend that does not count says null, not 0."""
    assert set(RunResult("", {}, None, Seconds(0, 0, 0)).to_dict()["tokens"].values()) == {None}


def test_speed_follows_from_what_was_counted() -> None:
    """Requested tokens are those in and those out, and rates are by the seconds of inference."""
    result = RunResult("", {}, TokenCounts(500, 50, 60), Seconds(1, 4, 9), tokens_out=100, energy=Energy(25.0, ("x",)))
    assert result.to_dict()["speed"] == {
        "tokens_in": 400,
        "tokens_out": 100,
        "tokens_in_per_second": 100,
        "tokens_out_per_second": 25,
        "tokens_computed_per_second": 15,
        "computed_per_unique": 1.2,
        "joules_per_1000_tokens": 50,
    }


def test_generated_tokens_of_all_samples_count() -> None:
    """Alternatives too; the engine's own count wins over the ids that it gives; scores generate nothing."""
    more = GenerationOutput("b", (7, 8))
    outputs = [GenerationOutput("a", (1,), usage=Usage(9, 3), alternatives=(more,)), LoglikelihoodOutput(token_count=5)]
    assert generated_tokens(outputs) == 5
