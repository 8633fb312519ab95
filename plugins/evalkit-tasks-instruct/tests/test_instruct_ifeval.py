"""IFEval asks and judges exactly as lm-evaluation-harness 0.4.13 does."""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from evalkit.datasets import load_split
from evalkit.errors import DocumentError, MissingDependencyError
from evalkit.plugins import get_plugins
from evalkit.requests import GenerationOutput, GenerationRequest
from evalkit.runs.plan import load_task
from evalkit.tasks.base import checked
from evalkit.tasks.context import Context
from evalkit.tasks.metrics import Metric
from evalkit.tasks.scored import ScoredGeneration
from evalkit_tasks_instruct import checkers, plugin
from evalkit_tasks_instruct.checkers import Followed
from evalkit_tasks_instruct.ifeval import IFEVAL

Doc = dict[str, Any]

PLAIN: Doc = {
    "key": 1,
    "prompt": "Name a colour without commas, in a title in double angular brackets.",
    "instruction_id_list": ["punctuation:no_comma", "detectable_format:title"],
    "kwargs": [{}, {"num_words": None}],
}


def _metrics() -> dict[str, Metric]:
    return {metric.name: metric for metric in IFEVAL.metrics if isinstance(metric, Metric)}


def _scored(*followed: Followed) -> list[ScoredGeneration]:
    return [ScoredGeneration(("text",), ("",), (each,)) for each in followed]


@pytest.fixture
def checkers_here() -> None:
    """Skip where the checkers are not installed."""
    try:
        checkers.need_checkers()
    except MissingDependencyError as error:
        pytest.skip(f"needs the checkers and their data: {error}")


@pytest.fixture
def registry_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The checkers without NLTK's data, which they are made without; skip where they are not installed."""
    monkeypatch.setattr(checkers, "_need_sentences", lambda: None)
    checkers.need_checkers.cache_clear()
    try:
        checkers.need_checkers()
    except MissingDependencyError as error:
        pytest.skip(f"needs the checkers: {error}")
    yield
    checkers.need_checkers.cache_clear()


def test_the_prompt_alone_is_asked() -> None:
    """No stop string but the end of the text, 1280 tokens, greedy."""
    (request,) = IFEVAL.requests(PLAIN, Context(), ())
    assert isinstance(request, GenerationRequest)
    assert request.prompt == PLAIN["prompt"]
    assert (request.stop, request.max_new_tokens, request.temperature) == ((), 1280, 0.0)


def test_prompts_count_whole_and_instructions_one_by_one() -> None:
    """The four metrics, and which of them have a standard error."""
    scored = _scored(Followed((True, False), (True, True)), Followed((True,), (True,)), Followed((False,), (True,)))
    found = {}
    for name, metric in _metrics().items():
        values = [metric.score(each) for each in scored]
        found[name] = (metric.aggregate(values), metric.stderr(values) is not None)
    assert found == {
        "prompt_level_strict_acc": (pytest.approx(1 / 3), True),
        "inst_level_strict_acc": (0.5, False),
        "prompt_level_loose_acc": (1.0, True),
        "inst_level_loose_acc": (1.0, False),
    }


def test_there_is_no_golden_answer() -> None:
    """`evalkit check` shows the prompts, and claims nothing about answers that nobody knows."""
    assert IFEVAL.golden(PLAIN, (), right=True) is None


def test_the_harness_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its verdicts are taken as they are, instruction by instruction."""

    def process_results(doc: Doc, results: list[str]) -> dict[str, Any]:
        return {"inst_level_strict_acc": [results == ["yes"], False], "inst_level_loose_acc": [True, False]}

    monkeypatch.setattr(checkers, "need_checkers", lambda: SimpleNamespace(process_results=process_results))
    outputs = [GenerationOutput("yes")]
    assert IFEVAL.scored(PLAIN, outputs, ())["none"].judged == (Followed((True, False), (True, False)),)


def test_settings_drawn_at_random_are_drawn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkers' own draws can be repeated, and leave everybody else's alone."""

    def process_results(doc: Doc, results: list[str]) -> dict[str, Any]:
        drawn = [random.random() < 0.5 for _ in range(64)]
        return {"inst_level_strict_acc": drawn, "inst_level_loose_acc": drawn}

    monkeypatch.setattr(checkers, "need_checkers", lambda: SimpleNamespace(process_results=process_results))
    before = random.getstate()
    first, second = checkers.judge(PLAIN, ["a", "b"])
    assert first == second
    assert random.getstate() == before


@pytest.mark.parametrize("missing", ["nltk", "langdetect", "lm_eval.tasks.ifeval.utils"])
def test_a_missing_library_is_named_before_anything_is_asked(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install, when documents are read."""

    def load(name: str) -> Any:
        if name == missing:
            raise ImportError(f"No module named {name!r}")
        return SimpleNamespace(data=SimpleNamespace(find=lambda _: True))

    monkeypatch.setattr(importlib, "import_module", load)
    checkers.need_checkers.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"pip install 'evalkit-tasks-instruct\[ifeval\]'"):
        IFEVAL.load("train", None)


def test_missing_sentence_data_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without network, the message says where the data comes from and how to bring it here."""

    def find(_: str) -> None:
        raise LookupError

    nltk = SimpleNamespace(data=SimpleNamespace(find=find), download=lambda *_, **__: False)
    monkeypatch.setattr(importlib, "import_module", lambda _: nltk)
    checkers.need_checkers.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"punkt_tab.*nltk.downloader.*NLTK_DATA") as caught:
        checkers.need_checkers()
    assert "\n" not in str(caught.value)


def test_sentence_data_is_fetched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With network nobody has to do anything."""
    here: list[str] = []

    def find(name: str) -> None:
        if not here:
            raise LookupError(name)

    def download(name: str, **_: Any) -> bool:
        here.append(name)
        return True

    nltk = SimpleNamespace(data=SimpleNamespace(find=find), download=download)
    monkeypatch.setattr(importlib, "import_module", lambda _: nltk)
    checkers._need_sentences()
    checkers._need_sentences()
    assert here == ["punkt_tab"]


@pytest.mark.parametrize(
    ("text", "strict", "loose"),
    [
        ("<<Red>>", (True, True), (True, True)),
        ("Red", (True, False), (True, False)),
        ("<<Red>>, of course", (False, True), (False, True)),
        ("Well, here it is:\n<<Red>>", (False, True), (True, True)),
        ("", (False, False), (False, False)),
        (" \n", (False, False), (False, False)),
    ],
)
@pytest.mark.usefixtures("checkers_here")
def test_answers_are_judged(text: str, strict: tuple[bool, ...], loose: tuple[bool, ...]) -> None:
    """Loose forgives a first line; an empty answer follows nothing."""
    assert checkers.judge(PLAIN, [text]) == [Followed(strict, loose)]


@pytest.mark.usefixtures("checkers_here")
def test_a_language_is_guessed_the_same_every_time() -> None:
    """A score can be repeated, short answers included."""
    doc = {"key": 1, "prompt": "x", "instruction_id_list": ["change_case:english_lowercase"], "kwargs": [{}]}
    assert len({checkers.judge(doc, ["no si da"])[0] for _ in range(20)}) == 1


def test_every_registered_task_loads() -> None:
    """What `evalkit list-tasks` shows can be run, under the name shown."""
    for name in plugin.TASKS:
        assert get_plugins().tasks.owner(name) == "tasks-instruct"
        assert load_task(name).name == name


def test_registering_and_loading_import_no_checker() -> None:
    """Neither the list of tasks nor the task itself reads the harness or NLTK."""
    code = "import sys, evalkit_tasks_instruct.plugin; print('evalkit.tasks' in sys.modules)\n"
    code += "import evalkit_tasks_instruct.ifeval; print({'lm_eval', 'nltk', 'langdetect'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["False", "set()"]


@pytest.mark.usefixtures("registry_here")
def test_real_documents_build_their_requests(data_dir: str) -> None:
    """All documents have the fields that the task reads, and as many settings as instructions."""
    docs = load_split(IFEVAL.dataset, "train", data_dir)
    assert len(docs) == IFEVAL.dataset.rows["train"]
    for doc in docs:
        IFEVAL.check(doc)
        assert len(doc["kwargs"]) == len(doc["instruction_id_list"])


@pytest.mark.usefixtures("checkers_here")
def test_every_kind_of_instruction_is_judged(data_dir: str) -> None:
    """A document of each of the 25 kinds gets a verdict an instruction."""
    kinds = {}
    for doc in load_split(IFEVAL.dataset, "train", data_dir):
        kinds.update(dict.fromkeys(doc["instruction_id_list"], doc))
    assert len(kinds) == 25
    for doc in kinds.values():
        for followed in checkers.judge(doc, [doc["prompt"], "Yes."]):
            assert len(followed.strict) == len(followed.loose) == len(doc["instruction_id_list"])
            assert all(b or not a for a, b in zip(followed.strict, followed.loose, strict=True))


@pytest.mark.usefixtures("registry_here")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"key": None}, "in field 'key' (TypeError"),
        ({"kwargs": None}, "in field 'kwargs' (TypeError"),
        ({"kwargs": [{}]}, "2 instructions have options for 1"),
        ({"kwargs": [{}, {"no_such": 1}]}, "(TypeError: "),
        ({"prompt": None}, "in field 'prompt' (TypeError"),
        ({"instruction_id_list": ["punctuation:no_comma", "no:such"]}, "there is no instruction 'no:such'"),
    ],
)
def test_a_document_that_cannot_be_judged_is_refused(changed: Doc, message: str) -> None:
    """Before anything is asked."""
    checked(IFEVAL, 0, PLAIN, IFEVAL.check)
    with pytest.raises(DocumentError) as caught:
        checked(IFEVAL, 0, {**PLAIN, **changed}, IFEVAL.check)
    assert message in str(caught.value)
