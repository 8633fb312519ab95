"""A run's fields are checked by name and value, wherever they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import ConfigError
from evalkit.runs.spec import RunSpec, make_spec, read_yaml

NEEDED = {"tasks": ["quiz"], "engine": "e", "model": "m"}


def test_defaults() -> None:
    """Only tasks, engine and model are needed; the seed is the harness's."""
    spec = make_spec(dict(NEEDED))
    assert spec == RunSpec(tasks=["quiz"], engine="e", model="m")
    assert (spec.seed, spec.limit, spec.num_fewshot, spec.truncate) == (1234, None, None, False)
    assert spec.rows is None


@pytest.mark.parametrize(("batch_size", "rows"), [("auto", None), (1, 1), (64, 64)])
def test_batch_size_is_a_number_or_auto(batch_size: Any, rows: int | None) -> None:
    """`auto` leaves the choice to the engine."""
    assert make_spec({**NEEDED, "batch_size": batch_size}).rows == rows


@pytest.mark.parametrize(
    ("limit", "asked"), [(None, 10), (3, 3), (3.0, 3), (0.25, 3), (0.3, 3), (0.01, 1), (0.99, 10), (20, 20)]
)
def test_a_limit_is_a_number_or_a_share(limit: Any, asked: int) -> None:
    """Below 1 it is a share of a task's documents, rounded up as lm-evaluation-harness does."""
    assert make_spec({**NEEDED, "limit": limit}).limited(10) == asked


@pytest.mark.parametrize("missing", [["engine"], ["tasks", "model"]])
def test_missing_fields_are_named(missing: list[str]) -> None:
    """All of them at once, and no others."""
    with pytest.raises(ConfigError, match=r"^a run needs .*See: evalkit run --help") as caught:
        make_spec({name: value for name, value in NEEDED.items() if name not in missing})
    named = [name for name in NEEDED if name in str(caught.value).partition(".")[0]]
    assert named == missing


def test_no_task_is_a_missing_one() -> None:
    """An empty list of tasks would be a run of nothing."""
    with pytest.raises(ConfigError, match=r"a run needs tasks"):
        make_spec({**NEEDED, "tasks": []})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", 0),
        ("limit", "ten"),
        ("limit", 1.5),
        ("limit", float("nan")),
        ("num_fewshot", -1),
        ("batch_size", 0),
        ("batch_size", "large"),
        ("seed", "x"),
        ("tasks", [1]),
        ("truncate", 7),
        ("engine_args", [1]),
    ],
)
def test_a_wrong_value_names_its_field(name: str, value: Any) -> None:
    """One line with field, problem and value."""
    with pytest.raises(ConfigError, match=rf"field '{name}': .*, not .*See: evalkit run --help") as caught:
        make_spec({**NEEDED, name: value})
    assert repr(value) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_field_gets_the_nearest() -> None:
    """A misspelt field is not silently ignored."""
    with pytest.raises(ConfigError, match=r"a run has no field 'limt'. Did you mean 'limit'"):
        make_spec({**NEEDED, "limt": 3})


# ── YAML ────────────────────────────────────────────────────────────────────────────────────────────────────
def _yaml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_yaml_file_holds_the_same_fields(tmp_path: Path) -> None:
    """Names may be written with hyphens as on the command line; one task needs no list."""
    path = _yaml(
        tmp_path, "tasks: hellaswag\nengine: transformers\nmodel: naïve\nnum-fewshot: 5\nengine_args: {a-b: 1}\n"
    )
    assert read_yaml(path) == {
        "tasks": ["hellaswag"],
        "engine": "transformers",
        "model": "naïve",
        "num_fewshot": 5,
        "engine_args": {"a-b": 1},
    }
    assert make_spec(read_yaml(path)).num_fewshot == 5


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("tasks: [a\nlimit: 3\n", "cannot be read: .*line 2"),
        ("- a\n- b\n", "holds no mapping"),
        ("", "holds no mapping"),
    ],
)
def test_a_yaml_file_that_is_none_is_named(tmp_path: Path, text: str, cause: str) -> None:
    """The error has the file and the line, on one line."""
    with pytest.raises(ConfigError, match=rf"config file .*run\.yaml {cause}") as caught:
        read_yaml(_yaml(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_or_unreadable_yaml_file_is_named(tmp_path: Path) -> None:
    """A path that leads nowhere, and one that leads to bytes."""
    with pytest.raises(ConfigError, match=r"does not exist. Check --config"):
        read_yaml(tmp_path / "gone.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"bytes\.yaml cannot be read"):
        read_yaml(tmp_path / "bytes.yaml")


def test_examples_are_turns_only_in_a_conversation() -> None:
    """An option that would change nothing is refused."""
    with pytest.raises(ConfigError, match=r"Add --apply-chat-template"):
        make_spec({**NEEDED, "fewshot_as_multiturn": True})
    assert make_spec({**NEEDED, "fewshot_as_multiturn": True, "apply_chat_template": True}).is_multiturn
    assert not make_spec({**NEEDED, "fewshot_as_multiturn": False}).is_multiturn
