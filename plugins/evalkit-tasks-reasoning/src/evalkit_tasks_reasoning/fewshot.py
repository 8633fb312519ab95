"""BIG-Bench Hard, 3-shot, answers only. (Suzgun et al. 2022, arXiv:2210.09261)

Equal to `bbh_fewshot_*` 2.0 of lm-evaluation-harness 0.4.13.
"""

from __future__ import annotations

from evalkit.tasks import Generate
from evalkit_tasks_reasoning.subtasks import SUBTASKS, dataset, texts


def task(subtask: str) -> Generate:
    """One subtask."""
    found = texts("fewshot", subtask)
    return Generate(
        name=f"bbh_fewshot_{subtask}",
        version="2.0",
        dataset=dataset(subtask),
        test_split="test",
        description=found.description,
        fewshot=found.fewshot,
        text_fields=("input",),
        prompt=lambda doc: f"Q: {doc['input']}\nA:",
        answer=lambda doc: doc["target"],
        # "Q" alone ends an answer, even within a word; and the answer must match in case and to the last space.
        stop=("</s>", "Q", "\n\n"),
    )


def __getattr__(name: str) -> Generate:
    """Each subtask, by its name."""
    if name not in SUBTASKS:
        raise AttributeError(name)
    return task(name)
