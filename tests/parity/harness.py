"""What lm-evaluation-harness asks, on the mirror's data, in a shape that compares with evalkit's requests."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evalkit.datasets import DatasetSpec
from evalkit.datasets.mirror import split_folder
from evalkit.requests import GenerationRequest, LoglikelihoodRequest, Request
from evalkit.runs.plan import make_plan
from evalkit.runs.spec import RunSpec

Asked = tuple[Any, ...]
"""A request's kind and texts; a generation's stop strings, length and temperature as well."""


@contextmanager
def mirrored(data_dir: str) -> Iterator[None]:
    """While this lasts, `datasets.load_dataset` reads the mirror, and nothing of evalkit is in between."""
    import datasets
    import evaluate

    class Splits(datasets.DatasetDict):
        """Those that the mirror has. The harness opens training splits that it draws nothing from: they are empty."""

        def __missing__(self, split: str) -> Any:
            return datasets.Dataset.from_list([])

    def load_from_mirror(path: str, name: str | None = None, **_: Any) -> Any:
        files = sorted(split_folder(DatasetSpec(path, name), Path(data_dir)).glob("*.jsonl*"))
        return Splits({file.name.split(".")[0]: _rows(file) for file in files})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_dataset", load_from_mirror)
        patch.setattr(evaluate, "load", _metric(evaluate.load))
        yield


def _metric(load: Callable[..., Any]) -> Callable[..., Any]:
    """Tasks that run code download their metric when they are imported: a folder `code_eval` here is read instead.

    Without one there is an empty metric, because requests need none.
    """
    empty = SimpleNamespace(compute=lambda **_: ({}, {}))
    return lambda name, *more, **options: load(name, *more, **options) if Path(name).is_dir() else empty


def _rows(file: Path) -> Any:
    import datasets

    data = file.read_bytes()
    text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode()
    return datasets.Dataset.from_list([json.loads(line) for line in text.split("\n") if line.strip()])


def harness_requests(manager: Any, name: str, data_dir: str) -> list[list[Asked]]:
    """What the harness itself asks about each document of a task, its default number of examples in front."""
    with mirrored(data_dir):
        task = manager.load(name)["tasks"][name]
        task.set_fewshot_seed(1234)
        task.build_all_requests(limit=None, rank=0, world_size=1)
        by_doc: dict[int, list[Any]] = {}
        for instance in task.instances:
            by_doc.setdefault(instance.doc_id, []).append(instance)
    ordered = (sorted(by_doc[doc_id], key=lambda instance: instance.idx) for doc_id in sorted(by_doc))
    return [[asked for instance in doc for asked in [_asked(instance)] * (instance.repeats or 1)] for doc in ordered]


def _asked(instance: Any) -> Asked:
    if instance.request_type != "generate_until":
        return (instance.request_type, *instance.args)
    prompt, given = instance.args
    stop = given.get("until") or []
    stops = tuple([stop] if isinstance(stop, str) else stop)
    temperature = float(given.get("temperature", 0.0)) if given.get("do_sample", True) else 0.0
    return ("generate_until", prompt, stops, int(given.get("max_gen_toks", 256)), temperature)


def own_requests(name: str, data_dir: str) -> list[list[Asked]]:
    """What evalkit asks about each document."""
    (planned,) = make_plan(
        RunSpec(tasks=[name], engine="none", model="none", data_dir=data_dir, allow_code_execution=True)
    ).tasks.values()
    assert not [item.error for item in planned.docs if item.error]
    return [[_own(asked.request) for asked in doc] for doc in planned.ask(1234, None)]


def _own(request: Request) -> Asked:
    if isinstance(request, LoglikelihoodRequest):
        return ("loglikelihood", request.context, request.continuation)
    if isinstance(request, GenerationRequest):
        return ("generate_until", request.prompt, tuple(request.stop), request.max_new_tokens, request.temperature)
    return ("loglikelihood_rolling", request.text)
