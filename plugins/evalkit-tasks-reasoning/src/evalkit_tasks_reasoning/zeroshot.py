"""BIG-Bench Hard, 0-shot: 27 subtasks on which models once fell short of people. (Suzgun et al. 2022, arXiv:2210.09261)

Equal to `bbh_zeroshot_*` 3.0 of lm-evaluation-harness 0.4.13.
"""

from __future__ import annotations

from evalkit.tasks import NO_EXAMPLES, Generate, Metric
from evalkit.tasks.metrics import exact_match
from evalkit_tasks_reasoning.extract import extractor
from evalkit_tasks_reasoning.subtasks import SUBTASKS, dataset, texts

IGNORED = (r"\.$", ",", "\n", r"\\", '"')


def task(subtask: str) -> Generate:
    """One subtask."""
    return Generate(
        name=f"bbh_zeroshot_{subtask}",
        version="3.0",
        dataset=dataset(subtask),
        test_split="test",
        fewshot=NO_EXAMPLES,
        description=texts("zeroshot", subtask).description,
        text_fields=("input",),
        prompt=lambda doc: f"Q: {doc['input']}\nA:",
        answer=lambda doc: doc["target"],
        stop=("</s>", "Q:", "<|im_end|>"),
        # The whole text must be the answer for strict-match, which a model without examples hardly ever guesses:
        # read flexible-extract, which takes the first thing that looks like an answer.
        filters={"strict-match": (), "flexible-extract": extractor(subtask, select=0)},
        metrics=(Metric("exact_match", exact_match(ignore_case=True, regexes_to_ignore=IGNORED)),),
    )


def __getattr__(name: str) -> Generate:
    """Each subtask, by its name."""
    if name not in SUBTASKS:
        raise AttributeError(name)
    return task(name)
