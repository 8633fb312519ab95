"""BIG-Bench Hard, 0-shot with reasoning: the model thinks aloud first. (Suzgun et al. 2022, arXiv:2210.09261)

Equal to `bbh_cot_zeroshot_*` 3.0 of lm-evaluation-harness 0.4.13.
"""

from __future__ import annotations

from evalkit.tasks import NO_EXAMPLES, Generate, Metric, regex
from evalkit.tasks.metrics import exact_match
from evalkit_tasks_reasoning.extract import extractor
from evalkit_tasks_reasoning.subtasks import SUBTASKS, dataset, texts

IGNORED = (r"\.$", ",", r"\\", "\n", '"')
ENDINGS = ("The answer is ", "the answer is ", "The answer: ", "The final answer: ")
# The last character is left out, a full stop as a rule: an answer that nothing follows loses its own last letter.
STRICT = "(" + "|".join(f"(?<={ending})(.*)(?=.)" for ending in ENDINGS) + ")"


def task(subtask: str) -> Generate:
    """One subtask."""
    return Generate(
        name=f"bbh_cot_zeroshot_{subtask}",
        version="3.0",
        dataset=dataset(subtask),
        test_split="test",
        fewshot=NO_EXAMPLES,
        description=texts("cot_zeroshot", subtask).description,
        text_fields=("input",),
        prompt=lambda doc: f"Q: {doc['input']}\nA: Let's think step by step.",
        answer=lambda doc: doc["target"],
        solution=lambda doc: f"The answer is {doc['target']}.",
        # Only 256 tokens for reasoning and answer, the harness's default: long reasoning never gets to its answer.
        stop=("</s>", "Q:", "<|im_end|>"),
        # Reasoning names many things that look like an answer: the last one counts.
        filters={"flexible-extract": extractor(subtask, select=-1), "strict-match": (regex(STRICT),)},
        metrics=(Metric("exact_match", exact_match(ignore_case=True, regexes_to_ignore=IGNORED)),),
    )


def __getattr__(name: str) -> Generate:
    """Each subtask, by its name."""
    if name not in SUBTASKS:
        raise AttributeError(name)
    return task(name)
