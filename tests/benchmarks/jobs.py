"""The benchmark's jobs: the same requests for every system, made once by evalkit's own tasks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from evalkit.requests import GenerationRequest, LoglikelihoodRequest, RollingLoglikelihoodRequest
from evalkit.runs.plan import make_plan
from evalkit.runs.spec import make_spec
from evalkit.tasks import DatasetSpec, FewShot, Generate, MultipleChoice, Perplexity

LETTERS = ("A", "B", "C", "D")
SUBJECTS = ("astronomy", "anatomy", "world_religions")


def _subject(name: str) -> MultipleChoice:
    lines = "{}\nA. {}\nB. {}\nC. {}\nD. {}\nAnswer:"
    return MultipleChoice(
        name=f"mmlu_{name}",
        dataset=DatasetSpec("cais/mmlu", name),
        test_split="test",
        fewshot=FewShot(5, split="dev", sampler="first_n"),
        description=f"The following are multiple choice questions (with answers) about {name.replace('_', ' ')}.\n\n",
        prompt=lambda doc: lines.format(doc["question"].strip(), *doc["choices"]),
        choices=lambda doc: LETTERS,
        gold=lambda doc: doc["answer"],
    )


MMLU_ASTRONOMY, MMLU_ANATOMY, MMLU_WORLD_RELIGIONS = map(_subject, SUBJECTS)
ARC_EASY = MultipleChoice(
    name="arc_easy_first",
    dataset=DatasetSpec("allenai/ai2_arc", "ARC-Easy"),
    train_split="train",
    test_split="test",
    fewshot=FewShot(25, sampler="first_n"),
    prompt=lambda doc: f"Question: {doc['question']}\nAnswer:",
    choices=lambda doc: doc["choices"]["text"],
    gold=lambda doc: doc["choices"]["label"].index(doc["answerKey"]),
)
GSM8K = Generate(
    name="gsm8k_first",
    dataset=DatasetSpec("openai/gsm8k", "main"),
    train_split="train",
    test_split="test",
    fewshot=FewShot(5, sampler="first_n"),
    prompt=lambda doc: f"Question: {doc['question']}\nAnswer:",
    answer=lambda doc: doc["answer"],
    stop=("Question:",),
    max_new_tokens=128,
)
WIKITEXT = Perplexity(
    name="wikitext",
    dataset=DatasetSpec("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1"),
    test_split="test",
    text=lambda doc: doc["page"],
)
JOBS: dict[str, tuple[list[str], int]] = {
    "hellaswag": (["hellaswag"], 200),
    "mmlu": ([f"jobs:MMLU_{name.upper()}" for name in SUBJECTS], 60),
    "arc_easy": (["jobs:ARC_EASY"], 24),
    "gsm8k": (["jobs:GSM8K"], 48),
    "wikitext": (["jobs:WIKITEXT"], 2),
}


def write_requests(job: str, data_dir: str, path: Path, limit: int | None = None) -> int:
    """Write a job's distinct requests as JSON lines; how many."""
    tasks, most = JOBS[job]
    spec = make_spec({"tasks": tasks, "engine": "none", "model": "none", "data_dir": data_dir, "limit": limit or most})
    unique = {
        asked.key: asked.request
        for planned in make_plan(spec).tasks.values()
        for doc in planned.ask(spec.seed, None)
        for asked in doc
    }
    lines = [json.dumps(_plain(request)) for request in unique.values()]
    path.write_text("\n".join(lines), encoding="utf-8")
    return len(lines)


def _plain(request: Any) -> dict[str, Any]:
    kinds = {LoglikelihoodRequest: "pair", RollingLoglikelihoodRequest: "text", GenerationRequest: "prompt"}
    fields = {"context", "continuation", "text", "prompt", "stop", "max_new_tokens"}
    values = {f.name: getattr(request, f.name) for f in dataclasses.fields(request) if f.name in fields}
    return {"kind": kinds[type(request)], **values}
