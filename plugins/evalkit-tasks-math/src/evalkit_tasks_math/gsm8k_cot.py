"""GSM8K with the eight worked examples of chain-of-thought prompting. (Wei et al. 2022, arXiv:2201.11903)

Equal to `gsm8k_cot` 3.0, `gsm8k_cot_self_consistency` 2.0 (Wang et al. 2022, arXiv:2203.11171) and their
`gsm8k_platinum_` twins of lm-evaluation-harness 0.4.13.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from evalkit.tasks import DatasetSpec, FewShot, Generate, regex, take_first
from evalkit.tasks.fewshot import Doc
from evalkit.tasks.filters import majority, take_first_k
from evalkit_tasks_math.exemplars import listed_in
from evalkit_tasks_math.gsm8k import EXACT, FLEXIBLE, MAIN, REVISED

NUMBER = regex(r"The answer is (\-?[0-9\.\,]*[0-9]+)")


def _number(doc: Doc) -> str:
    return str(doc["answer"].split("####")[-1].strip())


def chain_of_thought(name: str, dataset: DatasetSpec) -> Generate:
    """The eight examples, then the question."""
    return Generate(
        name=name,
        version="3.0",
        dataset=dataset,
        test_split="test",
        fewshot=FewShot(n=8, samples=listed_in("tasks/gsm8k/gsm8k-cot.yaml"), sampler="first_n"),
        text_fields=("question",),
        prompt=lambda doc: f"Q: {doc['question']}\nA:",
        answer=_number,
        example=lambda doc: doc["target"],
        solution=lambda doc: f"The answer is {_number(doc)}.",
        stop=("Q:", "</s>", "<|im_end|>"),
        # The last character of the strict match is any one, a full stop as a rule: "The answer is 12" alone gives 1.
        filters={"strict-match": (regex(r"The answer is (\-?[0-9\.\,]+)."),), "flexible-extract": FLEXIBLE},
        metrics=(EXACT,),
    )


def _self_consistency(name: str, dataset: DatasetSpec) -> Generate:
    return replace(
        chain_of_thought(name, dataset),
        version="2.0",
        stop=("Q:", "\n\n"),
        # 64 answers a question: 64 times the work. Answers without a number vote, too, for "[invalid]".
        temperature=0.2,
        repeats=64,
        filters={
            "score-first": (NUMBER, take_first),
            "maj@64": (NUMBER, majority),
            "maj@8": (take_first_k(8), NUMBER, majority),
        },
    )


# Made when asked for: reading the examples needs lm-eval, and listing tasks does not.
TASKS = {
    "GSM8K_COT": partial(chain_of_thought, "gsm8k_cot", MAIN),
    "GSM8K_SC": partial(_self_consistency, "gsm8k_cot_self_consistency", MAIN),
    "PLATINUM_COT": partial(chain_of_thought, "gsm8k_platinum_cot", REVISED),
    "PLATINUM_SC": partial(_self_consistency, "gsm8k_platinum_cot_self_consistency", REVISED),
}


def __getattr__(name: str) -> Generate:
    """Each of `TASKS`."""
    if name not in TASKS:
        raise AttributeError(name)
    return TASKS[name]()
