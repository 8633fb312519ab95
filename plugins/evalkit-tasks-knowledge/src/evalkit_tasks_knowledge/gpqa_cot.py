"""GPQA with reasoning in writing before the answer. (Rein et al. 2023, arXiv:2311.12022)

Equal to `gpqa_<set>_cot_zeroshot`, `gpqa_<set>_cot_n_shot` and `gpqa_<set>_generative_n_shot` 2.2 of
lm-evaluation-harness 0.4.13.
"""

from __future__ import annotations

from typing import Any

from evalkit.tasks import NO_EXAMPLES, Group, Metric, regex, take_first
from evalkit.tasks.metrics import exact_match
from evalkit_tasks_knowledge.chosen import chosen
from evalkit_tasks_knowledge.gpqa import AS_EXPERTS, SEED, SETS, asked, gpqa_data, shown
from evalkit_tasks_knowledge.gpqa import TASKS as CHOICES
from evalkit_tasks_knowledge.shuffled import ShuffledGenerate, shuffled_choices

THOUGHT = "Let's think step by step: "


def _task(name: str, **fields: Any) -> ShuffledGenerate:
    return ShuffledGenerate(
        name=name,
        version="2.2",
        train_split="train",
        validation_split="train",
        prepare=shuffled_choices,
        answer=lambda doc: doc["answer"],
        solution=lambda doc: f"The answer is {doc['answer']}.",
        # 256 new tokens by default, in the harness too: too few for many models to reach an answer.
        # "strict-match" leaves out the text's last character, which the harness takes for a full stop.
        filters={
            "strict-match": (regex(r"(?<=The answer is )(.*)(?=.)"), take_first),
            "flexible-extract": lambda doc: (chosen(doc["choices"]), take_first),
        },
        metrics=(Metric("exact_match", exact_match(ignore_case=True, ignore_punctuation=True)),),
        **fields,
    )


def _tasks(name: str) -> list[ShuffledGenerate]:
    shared: dict[str, Any] = {"dataset": gpqa_data(name), "seed": SEED}
    zero_shot, n_shot = {**shared, "fewshot": NO_EXAMPLES}, {**shared, "description": AS_EXPERTS}
    stops = ("</s>", "Question:", "<|im_end|>")
    return [
        _task(f"gpqa_{name}_cot_zeroshot", prompt=lambda doc: f"{asked(doc)}\n{THOUGHT}", stop=stops[:1], **zero_shot),
        _task(f"gpqa_{name}_cot_n_shot", prompt=lambda doc: f"{shown(doc)}\n{THOUGHT}", stop=stops[:1], **n_shot),
        _task(f"gpqa_{name}_generative_n_shot", prompt=lambda doc: f"{shown(doc)}\nAnswer:", stop=stops, **n_shot),
    ]


TASKS = {task.name: task for name in SETS for task in _tasks(name)}
GPQA = Group("gpqa", (*CHOICES, *TASKS))


def __getattr__(name: str) -> ShuffledGenerate:
    """The task of that name, so that `gpqa_cot:gpqa_main_cot_zeroshot` leads to it."""
    if name in TASKS:
        return TASKS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
