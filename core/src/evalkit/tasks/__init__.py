"""Tasks are declared, not programmed: where documents are, how one becomes a prompt, what is scored."""

from evalkit.datasets import DatasetSpec
from evalkit.tasks.base import Task
from evalkit.tasks.fewshot import NO_EXAMPLES, FewShot
from evalkit.tasks.filters import Filter, lowercase, majority, regex, strip, take_first, take_first_k
from evalkit.tasks.generate import Generate
from evalkit.tasks.groups import Group
from evalkit.tasks.loglikelihood import Loglikelihood
from evalkit.tasks.metrics import Metric, pass_at
from evalkit.tasks.multiple_choice import MultipleChoice
from evalkit.tasks.perplexity import Perplexity

__all__ = [
    "NO_EXAMPLES",
    "DatasetSpec",
    "FewShot",
    "Filter",
    "Generate",
    "Group",
    "Loglikelihood",
    "Metric",
    "MultipleChoice",
    "Perplexity",
    "Task",
    "lowercase",
    "majority",
    "pass_at",
    "regex",
    "strip",
    "take_first",
    "take_first_k",
]
