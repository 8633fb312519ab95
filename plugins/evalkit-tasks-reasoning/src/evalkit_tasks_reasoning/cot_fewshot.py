"""BIG-Bench Hard, 3-shot with reasoning: the paper's main form. (Suzgun et al. 2022, arXiv:2210.09261)

Equal to `bbh_cot_fewshot_*` 4.0 of lm-evaluation-harness 0.4.13.
"""

from __future__ import annotations

from evalkit.tasks import Generate, regex
from evalkit_tasks_reasoning.subtasks import SUBTASKS, dataset, texts


def task(subtask: str) -> Generate:
    """One subtask."""
    found = texts("cot_fewshot", subtask)
    return Generate(
        name=f"bbh_cot_fewshot_{subtask}",
        version="4.0",
        dataset=dataset(subtask),
        test_split="test",
        description=found.description,
        fewshot=found.fewshot,
        text_fields=("input",),
        prompt=lambda doc: f"Q: {doc['input']}\nA: Let's think step by step.\n",
        answer=lambda doc: doc["target"],
        solution=lambda doc: f"So the answer is {doc['target']}.",
        target_delimiter="",
        # "Q" alone ends the text, even within a word of the reasoning.
        stop=("</s>", "Q", "\n\n"),
        max_new_tokens=1024,
        # The last character is left out, a full stop as in the examples: a model that writes none loses a letter.
        filters={"get-answer": (regex(r"(?<=the answer is )(.*)(?=.)"),)},
    )


def __getattr__(name: str) -> Generate:
    """Each subtask, by its name."""
    if name not in SUBTASKS:
        raise AttributeError(name)
    return task(name)
