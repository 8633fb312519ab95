"""Documents that one run answers better than another, as people read them: question, right answer, both answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from evalkit.reading.samples import answer_text, choice_logprobs, preview, target_text
from evalkit.runs.compare_row import Row
from evalkit.runs.samples import OFFSET, light_rows, row_at, sample_path
from evalkit.runs.samples import Row as Sample

SHORTEST_QUESTION = 20
LENGTHS: dict[str, Callable[[str], int]] = {"acc_norm": len, "acc_bytes": lambda text: len(text.encode())}
"""Metrics that divide the log-probability of a choice by its length."""


@dataclass(frozen=True, slots=True)
class Flip:
    """A document whose answer became "worse" or "better"."""

    task: str
    doc_id: int
    change: str
    question: str
    target: str
    baseline: str
    answer: str


def flips(row: Row, baseline: Path, other: Path, count: int) -> list[Flip]:
    """The first `count` documents that became worse, and as many that became better; of a group, from all its tasks.

    None where nothing was answered: of a whole text only its probability is known. Raises RunError.
    """
    found = [flip for part in row.parts or (row,) for flip in _of_task(part, baseline, other, count)]
    return [flip for change in ("worse", "better") for flip in [f for f in found if f.change == change][:count]]


def _of_task(row: Row, baseline: Path, other: Path, count: int) -> Iterator[Flip]:
    chosen = dict.fromkeys(row.worse[:count], "worse") | dict.fromkeys(row.better[:count], "better")
    before, after = (_samples(sample_path(run, row.task), row.filter, chosen) for run in (baseline, other))
    for doc_id, change in chosen.items():
        old, new = before[doc_id], after[doc_id]
        if len(old["arguments"][0]) > 1:
            answers = _answer(old, row.metric), _answer(new, row.metric)
            yield Flip(row.task, doc_id, change, _question(old), preview(target_text(old)), *answers)


def _samples(path: Path, filter_name: str, doc_ids: Collection[int]) -> dict[int, Sample]:
    """The whole rows of some documents; reading ends with the last of them."""
    found: dict[int, Sample] = {}
    if doc_ids:
        for light in light_rows(path, choices=False):
            if light["doc_id"] in doc_ids and light["filter"] == filter_name:
                found[light["doc_id"]] = row_at(path, light[OFFSET])
                if len(found) == len(doc_ids):
                    break
    return found


def _question(sample: Sample) -> str:
    """The beginning of the prompt's last paragraph: descriptions and examples stand before it."""
    prompt = sample["arguments"][0][0]
    if not isinstance(prompt, str):
        return preview(json.dumps(sample["doc"], ensure_ascii=False))
    paragraphs = [text for text in prompt.split("\n\n") if len(text.strip()) >= SHORTEST_QUESTION]
    return preview(paragraphs[-1] if paragraphs else prompt)


def _answer(sample: Sample, metric: str) -> str:
    """The answer that the metric judged."""
    logprobs = choice_logprobs(sample)
    if logprobs and metric in LENGTHS:
        texts = [target_text({**sample, "target": index}) for index in range(len(logprobs))]
        shares = [logprob / max(LENGTHS[metric](text), 1) for logprob, text in zip(logprobs, texts, strict=True)]
        return preview(texts[shares.index(max(shares))])
    first = sample["resps"][0][0]
    if logprobs or not isinstance(first, list):
        return preview(answer_text(sample))
    logprob, greedy = first
    return f"log-probability {logprob:.4f}" + (", the likeliest" if greedy else "")
