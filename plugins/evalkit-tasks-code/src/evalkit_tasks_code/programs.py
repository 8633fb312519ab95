"""What programming tasks share: an answer becomes a program, which passes its tests or does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from evalkit.tasks import Generate, Metric
from evalkit.tasks.fewshot import Doc
from evalkit_tasks_code.sandbox import Verdict, get_sandbox

PASSED = Metric("pass_at_1", lambda scored: float(scored.judged[0].passed))
"""1 where the first program passes its tests."""


@dataclass(frozen=True, kw_only=True)
class WriteProgram(Generate):
    """Whose answers are programs: the sandbox must be there before any is asked for."""

    code_notice: ClassVar[str] = "executes what the model writes, in a sandbox"

    runs_code: bool = True

    def load(self, split: str, data_dir: str | None) -> Sequence[Doc]:
        """All documents of a split. Raises ConfigError where programs cannot be isolated: now, not after inference."""
        get_sandbox()
        return super().load(split, data_dir)


def passing(tests: Callable[[Doc], str]) -> Callable[[Doc, Sequence[str]], Sequence[Any]]:
    """A judge that runs each program, and its tests behind it, in the sandbox."""

    def judge(doc: Doc, texts: Sequence[str]) -> list[Verdict]:
        programs = [f"{text}\n{tests(doc)}" for text in texts]
        # Samples at a low temperature are often the same: each distinct program runs once.
        distinct = list(dict.fromkeys(programs))
        verdicts = dict(zip(distinct, get_sandbox().run_all(distinct), strict=True))
        return [verdicts[each] for each in programs]

    return judge
