"""MBPP asked as an instruction, the answer in a code block. (Austin et al. 2021, arXiv:2108.07732)

Equal to `mbpp_instruct` and `mbpp_plus_instruct` 1.0 of lm-evaluation-harness 0.4.13.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from evalkit.tasks import NO_EXAMPLES
from evalkit_tasks_code.mbpp import EXPERT, MBPP, PLUS, task_text, tests
from evalkit_tasks_code.programs import passing

FENCE = "```"
BEGUN = f"Here is a solution to this programming problem:\n{FENCE}python\n"
BLOCK = re.compile(r"```(?:\w+)?\n?(.*?)\n?```", re.DOTALL)


def _first_blocks(texts: Sequence[str]) -> list[str]:
    return [_first_block(text) for text in texts]


def _first_block(text: str) -> str:
    """The first code block; the answer begins within one, after its language."""
    # The harness's own trap: behind the fence, the first word of an answer that begins without a line break is taken
    # for the language, so that "def f(x):" loses its "def".
    found = BLOCK.findall(FENCE + text) or BLOCK.findall(text.replace(f"{FENCE}python", FENCE))
    return str(found[0]) if found else ""


MBPP_INSTRUCT = replace(
    MBPP,
    name="mbpp_instruct",
    prompt=lambda doc: f"{EXPERT}\n{doc['text']}\nYour code should pass these tests:\n{tests(doc)}",
    answer_prefix=f"\n{FENCE}python\n",
    example=lambda doc: f"\n{FENCE}python\n{doc['code']}\n{FENCE}",
    solution=lambda doc: f"\n{doc['code']}\n{FENCE}",
    stop=(),
    filters={"extract_code": (_first_blocks,)},
)

MBPP_PLUS_INSTRUCT = replace(
    MBPP_INSTRUCT,
    name="mbpp_plus_instruct",
    dataset=PLUS,
    text_fields=(),
    fewshot=NO_EXAMPLES,
    prompt=lambda doc: f"{task_text(doc)} Your code should satisfy the following assertion:\n{doc['test_list'][0]}",
    answer=lambda doc: str(doc["test_list"][0]),
    example=lambda doc: f"{BEGUN}{doc['test_list'][0]}",  # the harness shows the assertion, not the code
    answer_prefix=BEGUN,
    max_new_tokens=1024,
    judge=passing(lambda doc: str(doc["test_list"][0])),
)
