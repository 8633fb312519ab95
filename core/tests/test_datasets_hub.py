"""What the hub's library says becomes one line with the next step. A module stands in for the library."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from evalkit.datasets import DatasetSpec, hub
from evalkit.errors import DatasetNotFoundError

DATA = DatasetSpec("org/secret", "main", revision="abc")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Answers of `datasets.load_dataset`, one a call: documents, or the error that it raises; then the calls."""
    answers: list[Any] = []
    module = ModuleType("datasets")

    def load_dataset(path: str, name: str | None = None, *, split: str, revision: str | None, **options: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [{**doc, "asked": (path, name, split, revision), **options} for doc in answer]

    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr(hub, "hub_is_reachable", lambda: True)
    return answers


def test_the_named_revision_is_asked_for(library: list[Any]) -> None:
    """A task's documents stay those that its version was made with."""
    library.append([{"q": 1}])
    assert hub.open_dataset(DATA, "test", None) == [{"q": 1, "asked": ("org/secret", "main", "test", "abc")}]


def test_data_sets_that_are_programs_come_as_parquet(library: list[Any]) -> None:
    """The hub's own copy is read instead of the program."""
    library.extend([RuntimeError("Dataset scripts are no longer supported, but found x.py"), [{"q": 1}]])
    (doc,) = hub.open_dataset(DATA, "test", None) or ()
    assert doc["asked"][3] == "refs/convert/parquet"


def test_part_of_a_large_data_set_is_fetched_alone(library: list[Any]) -> None:
    """Only the files that the splits name."""
    library.append([{"q": 1}])
    files = {"test": "en/1.json.gz", "train": "en/2.json.gz"}
    (doc,) = hub.open_dataset(DatasetSpec("org/web", "en", hub_files=files), "test", None) or ()
    assert (doc["asked"], doc["data_files"]) == (("org/web", None, "test", None), files)


def test_a_gated_data_set_says_how_to_log_in(library: list[Any]) -> None:
    """Where to give consent, and how to log in."""
    library.append(ValueError("Dataset 'org/secret' is a gated dataset on the Hub. You must be authenticated."))
    with pytest.raises(DatasetNotFoundError) as caught:
        hub.open_dataset(DATA, "test", None)
    assert "https://huggingface.co/datasets/org/secret" in str(caught.value)
    assert "hf auth login" in str(caught.value)


def test_consent_is_not_read_out_of_a_name(library: list[Any]) -> None:
    """A data set that is named "aggregated" is not gated; a refusal may lie behind another error."""
    library.append(ValueError("Couldn't reach 'org/aggregated-news' on the Hub"))
    with pytest.raises(DatasetNotFoundError, match=r"did not give it"):
        hub.open_dataset(DatasetSpec("org/aggregated-news"), "test", None)
    refused = ValueError("no access")
    refused.__cause__ = type("GatedRepoError", (Exception,), {})("403")
    library.append(refused)
    with pytest.raises(DatasetNotFoundError, match=r"hf auth login"):
        hub.open_dataset(DATA, "test", None)


def test_other_errors_keep_their_cause(library: list[Any]) -> None:
    """What the library said is in the line."""
    library.append(RuntimeError("no\nnetwork"))
    with pytest.raises(DatasetNotFoundError, match=r"did not give it \(RuntimeError: no network\)"):
        hub.open_dataset(DATA, "test", "mirror")
