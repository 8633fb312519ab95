"""The journal gives back exactly what was written, and notices what it can no longer read."""

from __future__ import annotations

import dataclasses
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.encoding import kind_of
from evalkit.energy import Energy
from evalkit.errors import DiskFullError, RunError
from evalkit.requests import (
    GenerationOutput,
    GenerationRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Output,
    Request,
    RollingLoglikelihoodOutput,
    RollingLoglikelihoodRequest,
    Timing,
    TokenCounts,
    TokenLogprob,
    Usage,
)
from evalkit.runs.journal import Journal, Spent, count_answers, request_key

NUMBERS = st.floats(allow_nan=False)
TEXTS = st.text(max_size=20)
IDS = st.lists(st.integers(0, 2**31), max_size=4).map(tuple)
NOTES = st.lists(TEXTS, max_size=2).map(tuple)
METADATA = st.dictionaries(TEXTS, st.none() | st.integers() | TEXTS | st.lists(st.integers(), max_size=2), max_size=2)
LOGPROBS = st.none() | st.lists(NUMBERS, max_size=4).map(tuple)
TOKEN = st.builds(
    TokenLogprob,
    st.integers(0, 9),
    TEXTS,
    NUMBERS,
    st.lists(st.tuples(st.integers(0, 9), TEXTS, NUMBERS), max_size=2).map(tuple),
)


def _generations(alternatives: st.SearchStrategy[tuple[GenerationOutput, ...]]) -> st.SearchStrategy[GenerationOutput]:
    return st.builds(
        GenerationOutput,
        text=TEXTS,
        token_ids=IDS,
        finish_reason=st.sampled_from(["stop", "length"]),
        logprobs=st.none() | st.lists(TOKEN, max_size=2).map(tuple),
        usage=st.none() | st.builds(Usage, st.integers(0), st.integers(0)),
        timing=st.none() | st.builds(Timing, st.floats(0, 1e6), st.floats(0, 1e6)),
        alternatives=alternatives,
        notes=NOTES,
        metadata=METADATA,
    )


GENERATIONS = _generations(st.lists(_generations(st.just(())), max_size=2).map(tuple))
SCORES = st.builds(
    LoglikelihoodOutput, NUMBERS, st.booleans(), st.integers(0), LOGPROBS, notes=NOTES, metadata=METADATA
)
ROLLED = st.builds(RollingLoglikelihoodOutput, NUMBERS, st.integers(0), LOGPROBS, notes=NOTES, metadata=METADATA)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal goes."""
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """An empty journal."""
    with Journal(path) as made:
        yield made


def _sql(path: Path, statement: str, *values: Any) -> list[Any]:
    """Change a journal behind evalkit's back."""
    with closing(sqlite3.connect(path)) as db, db:
        return db.execute(statement, values).fetchall()


def _filled(path: Path, count: int = 3) -> dict[str, Output]:
    """A closed journal with `count` answers."""
    written: dict[str, Output] = {f"key {n}": GenerationOutput(f"answer {n}") for n in range(count)}
    with Journal(path) as journal:
        for key, output in written.items():
            journal.put(key, output)
    return written


# ── round trip ──────────────────────────────────────────────────────────────────────────────────────────────
@settings(max_examples=50)
@given(st.lists(GENERATIONS | SCORES | ROLLED, max_size=4))
def test_every_output_comes_back_equal(tmp_path_factory: pytest.TempPathFactory, outputs: list[Output]) -> None:
    """Whatever a session answered, -inf, any text and nested alternatives included, is read back equal."""
    path = tmp_path_factory.mktemp("journal") / "journal.sqlite"
    written = {f"key {number}": output for number, output in enumerate(outputs)}
    with Journal(path) as journal:
        for key, output in written.items():
            journal.put(key, output)
        assert journal.outputs() == written
    with Journal(path) as again:
        assert again.outputs() == written
        assert again.damaged == 0
        assert [type(output) for output in again.outputs().values()] == [type(output) for output in outputs]


def test_minus_infinity_comes_back(journal: Journal) -> None:
    """An impossible continuation stays impossible."""
    journal.put("a", LoglikelihoodOutput(-math.inf, token_logprobs=(-1.0, -math.inf)))
    assert journal.outputs() == {"a": LoglikelihoodOutput(-math.inf, token_logprobs=(-1.0, -math.inf))}


def test_half_a_surrogate_pair_comes_back(journal: Journal) -> None:
    """A text that is no valid Unicode is no reason to lose the run that holds it."""
    journal.put("a", GenerationOutput("half \ud83d"))
    assert journal.outputs() == {"a": GenerationOutput("half \ud83d")}


def test_an_answer_is_on_disk_once_it_is_put(journal: Journal, path: Path) -> None:
    """Another process sees every record at once: a killed run loses none."""
    for number in range(3):
        journal.put(f"key {number}", GenerationOutput("text"))
        assert count_answers(path) == len(journal) == journal.written == number + 1


def test_putting_again_replaces(journal: Journal) -> None:
    """A key has one answer, the last one."""
    journal.put("a", GenerationOutput(error="failed", finish_reason="error"))
    journal.put("a", GenerationOutput("now"))
    assert journal.outputs() == {"a": GenerationOutput("now")}
    assert len(journal) == 1


def test_many_outputs_are_written_at_once(journal: Journal) -> None:
    """Each is found as if it had been written alone, and counts as written."""
    outputs = {f"key {n}": GenerationOutput(f"answer {n}", metadata={"from_cache": True}) for n in range(5)}
    journal.put("key 0", GenerationOutput("before"))
    journal.put_all(outputs)
    assert journal.outputs() == outputs
    assert journal.written == 6


@pytest.mark.parametrize("cls", [GenerationOutput, LoglikelihoodOutput, RollingLoglikelihoodOutput])
def test_failed_outputs_are_asked_again(journal: Journal, cls: type[Any], path: Path) -> None:
    """An output with an error is kept in the file, but is no answer."""
    journal.put("bad", cls(error="no"))
    journal.put("good", cls())
    assert journal.outputs() == {"good": cls()}
    assert (len(journal), count_answers(path), journal.damaged) == (1, 1, 0)
    assert _sql(path, "SELECT COUNT(*) FROM outputs") == [(2,)]


# ── keys ────────────────────────────────────────────────────────────────────────────────────────────────────
CHANGES: list[tuple[Request, dict[str, Any]]] = [
    (
        GenerationRequest(prompt="a"),
        {
            "prompt": "b",
            "messages": [{"role": "user", "content": "a"}],
            "input_ids": (1,),
            "tools": [{"name": "t"}],
            "chat_template_kwargs": {"thinking": True},
            "stop": ("\n",),
            "max_new_tokens": 255,
            "min_new_tokens": 1,
            "temperature": 0.5,
            "top_p": 0.5,
            "top_k": 1,
            "min_p": 0.1,
            "seed": 1,
            "n": 2,
            "num_beams": 2,
            "logprobs": 1,
        },
    ),
    (
        LoglikelihoodRequest("a", "b"),
        {"context": "x", "continuation": "x", "context_ids": (1,), "continuation_ids": (1,), "logprobs": 1},
    ),
    (RollingLoglikelihoodRequest("a"), {"text": "x", "input_ids": (1,)}),
]


@pytest.mark.parametrize(("request_", "changes"), CHANGES, ids=[kind_of(request) for request, _ in CHANGES])
def test_every_changed_field_is_another_request(request_: Request, changes: dict[str, Any]) -> None:
    """Changing any one field of a request gives another key; the same request the same key."""
    assert set(changes) == {field.name for field in dataclasses.fields(request_)}
    changed = [dataclasses.replace(request_, **{name: value}) for name, value in changes.items()]
    keys = [request_key(request) for request in [request_, *changed]]
    assert len(set(keys)) == len(keys)
    assert request_key(dataclasses.replace(request_)) == keys[0]


def test_equal_texts_of_different_fields_are_different_requests() -> None:
    """Where context ends and continuation begins matters, and so does the kind."""
    requests: list[Request] = [
        LoglikelihoodRequest("ab", "c"),
        LoglikelihoodRequest("a", "bc"),
        RollingLoglikelihoodRequest("abc"),
        GenerationRequest(prompt="abc"),
        GenerationRequest(prompt="abc", stop=("a", "b")),
        GenerationRequest(prompt="abc", stop=("b", "a")),
    ]
    assert len({request_key(request) for request in requests}) == len(requests)


def test_known_keys() -> None:
    """Keys are the same in every process and version: an old run can be resumed."""
    assert request_key(LoglikelihoodRequest("naïve", " é")).startswith("b39d40a2885d")
    assert request_key(GenerationRequest(prompt="a", chat_template_kwargs={"b": 1, "a": 2})).startswith("08acf81ba74d")


# ── costs ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_costs_add_up_over_attempts(path: Path) -> None:
    """Each attempt's tokens and seconds count, of one that was killed those up to its last answer."""
    with Journal(path) as journal:
        journal.put("a", GenerationOutput(), Spent(TokenCounts(1, 1, 1), 0.25, 1.0))
        journal.put("b", GenerationOutput(), Spent(TokenCounts(10, 8, 12), 0.25, 2.0))
    with Journal(path) as journal:
        journal.put("c", GenerationOutput(), Spent(TokenCounts(100, 80, 120), 1.5, 15.0))
        journal.finish_attempt(Spent(TokenCounts(100, 80, 130), 1.5, 20.0))
        assert journal.costs() == Spent(TokenCounts(110, 88, 142), 1.75, 22.0)


def test_energy_adds_up_where_every_attempt_was_measured(path: Path) -> None:
    """Joules of all attempts, and what they are from; a sum that lacks one attempt is none at all."""
    for joules, name, total in ((5.0, "a", 5.0), (2.5, "b", 7.5)):
        with Journal(path) as journal:
            journal.put(name, GenerationOutput(), Spent(energy=Energy(joules, ("x", name))))
            assert journal.costs().energy == Energy(total, ("x", "a") if name == "a" else ("x", "a", "b"))
    with Journal(path) as journal:
        journal.put("c", GenerationOutput(), Spent(energy=Energy(1.0, ("x",))))
        journal.finish_attempt(Spent(inference=1.0, energy=None))
        assert journal.costs().energy is None


def test_a_journal_without_energy_is_one_of_an_older_version(path: Path) -> None:
    """What it has is counted, and no energy is made up."""
    with Journal(path) as journal:
        journal.finish_attempt(Spent(TokenCounts(1, 1, 1), 1.0, 2.0))
        journal._db.execute("DROP TABLE energy")
    with Journal(path) as journal:
        journal.put("b", GenerationOutput(), Spent(TokenCounts(2, 2, 2), 1.0, 2.0, Energy(3.0, ("x",))))
        assert journal.costs() == Spent(TokenCounts(3, 3, 3), 2.0, 4.0)


def test_costs_of_a_backend_that_does_not_count_are_unknown(journal: Journal) -> None:
    """No counts are None; the seconds are there all the same."""
    assert journal.costs() == Spent()
    journal.put("a", GenerationOutput())
    journal.finish_attempt(Spent(None, 1.0, 2.0))
    assert journal.costs() == Spent(None, 1.0, 2.0)


# ── damage ──────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE outputs SET output = replace(output, 'answer 1', 'answer 7') WHERE key = 'key 1'",
        "UPDATE outputs SET output = CAST(X'7B22FF' AS TEXT) WHERE key = 'key 1'",
        "UPDATE outputs SET output = CAST(output AS BLOB) WHERE key = 'key 1'",
        "UPDATE outputs SET output = NULL WHERE key = 'key 1'",
        "UPDATE outputs SET checksum = checksum + 1 WHERE key = 'key 1'",
        "UPDATE outputs SET key = 'key x' WHERE key = 'key 1'",
        "UPDATE outputs SET kind = 'rolling' WHERE key = 'key 1'",
        "UPDATE outputs SET kind = 'generatiom' WHERE key = 'key 1'",
        "UPDATE outputs SET failed = 1 WHERE key = 'key 1'",
        "UPDATE outputs SET failed = 'x' WHERE key = 'key 1'",
    ],
)
def test_a_damaged_record_is_asked_again(path: Path, damage: str) -> None:
    """A record whose checksum does not fit is dropped and counted; the others are kept."""
    written = _filled(path)
    _sql(path, damage)
    del written["key 1"]
    with Journal(path) as journal:
        assert journal.outputs() == written
        assert journal.damaged == 1
        assert len(journal) == 2
        journal.put("key 1", GenerationOutput("again"))
        assert journal.outputs() == {**written, "key 1": GenerationOutput("again")}
        assert journal.damaged == 1


def test_a_failure_cannot_turn_into_an_answer(path: Path) -> None:
    """One flipped bit in the column that marks failures does not make an error a score."""
    with Journal(path) as journal:
        journal.put("bad", LoglikelihoodOutput(error="no"))
    _sql(path, "UPDATE outputs SET failed = 0")
    with Journal(path) as journal:
        assert journal.outputs() == {}


@pytest.mark.parametrize("bytes_left", [100, 4096, 5000, 8192 + 100])
def test_a_truncated_file_is_asked_again(path: Path, bytes_left: int) -> None:
    """A file that lost its end is moved aside; what is left of it is used, the rest asked again."""
    written = _filled(path, 200)
    content = path.read_bytes()
    assert len(content) > 3 * 8192
    path.write_bytes(content[:bytes_left])
    with Journal(path) as journal:
        found = journal.outputs()
        assert found.items() <= written.items()
        assert journal.damaged >= 1
        journal.put("key 0", GenerationOutput("again"))
        assert journal.outputs()["key 0"] == GenerationOutput("again")
    assert path.with_name("journal.sqlite.damaged").stat().st_size == bytes_left


@pytest.mark.parametrize("garbage", [b"not a database at all" * 100, bytes(4096), b"\xff" * 5000])
def test_a_garbage_header_is_asked_again(path: Path, garbage: bytes) -> None:
    """A file that is no database is moved aside, never overwritten."""
    _filled(path)
    content = garbage + path.read_bytes()[len(garbage) :]
    path.write_bytes(content)
    with Journal(path) as journal:
        assert journal.outputs() == {}
        assert journal.damaged == 1
        journal.put("a", GenerationOutput("b"))
    assert path.with_name("journal.sqlite.damaged").read_bytes() == content
    assert count_answers(path) == 1


def test_a_damaged_page_costs_its_own_records_only(path: Path) -> None:
    """Records on other pages of a damaged file are kept, whether they come before or after."""
    written = _filled(path, 400)
    content = bytearray(path.read_bytes())
    at = content.index(b'"answer 200"')
    page = at - at % 4096
    content[page : page + 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    with Journal(path) as journal:
        found = journal.outputs()
        assert found.items() <= written.items()
        assert len(found) > 0
        assert journal.damaged >= 1


def test_damaged_text_hides_no_later_record(path: Path) -> None:
    """While a damaged file is salvaged, a text that is no UTF-8 costs its own record only."""
    written = _filled(path, 400)
    content = bytearray(path.read_bytes())
    first = content.index(b'"answer 0"')
    content[first + 1] = 0xFF
    # The index is damaged, which the check at opening notices; the table itself is whole.
    root = _sql(path, "SELECT rootpage FROM sqlite_master WHERE type = 'index'")[0][0]
    content[(root - 1) * 4096 : root * 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    del written["key 0"]
    with Journal(path) as journal:
        assert journal.outputs() == written


# ── the disk ────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_full_disk_is_one_error_and_loses_nothing(path: Path) -> None:
    """When a record no longer fits, those before it are safe, and the error says how to go on."""
    with Journal(path) as journal:
        pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
        journal._db.execute(f"PRAGMA max_page_count = {pages + 4}")

        def fill() -> None:
            for number in range(1000):
                journal.put(f"key {number}", GenerationOutput("x" * 500), Spent(TokenCounts(number + 1)))

        with pytest.raises(DiskFullError, match=r"no disk space left .* evalkit resume") as caught:
            fill()
        assert "\n" not in str(caught.value)
        kept = len(journal)
    assert 0 < kept < 1000
    with Journal(path) as again:
        assert set(again.outputs()) == {f"key {number}" for number in range(kept)}
        assert again.costs().tokens == TokenCounts(kept)
        again.put("one more", GenerationOutput())


def test_a_path_that_cannot_be_a_file_is_a_run_error(tmp_path: Path) -> None:
    """A journal that cannot be opened is no traceback, and is not mistaken for a damaged one."""
    (tmp_path / "journal.sqlite").mkdir()
    with pytest.raises(RunError, match=r"cannot be used .*Check the disk"):
        Journal(tmp_path / "journal.sqlite")
    assert [child.name for child in tmp_path.iterdir()] == ["journal.sqlite"]


def test_counting_answers_changes_nothing(path: Path) -> None:
    """Looking at a run that is missing or damaged neither creates nor mends it."""
    assert count_answers(path) == 0
    assert not path.exists()
    path.write_bytes(b"garbage" * 1000)
    assert count_answers(path) == 0
    assert path.read_bytes() == b"garbage" * 1000


def test_closing_twice_is_allowed(path: Path) -> None:
    """A journal may be closed again on the way out."""
    journal = Journal(path)
    journal.close()
    journal.close()


@settings(max_examples=60)
@given(data=st.data())
def test_any_damage_costs_no_run(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Cut at any byte or with any bit flipped: what is read is right, and the journal can be written to again."""
    path = tmp_path_factory.mktemp("damaged") / "journal.sqlite"
    texts = {f"key {number}": f"answer {number} " * 9 for number in range(40)}
    with Journal(path) as journal:
        for key, text in texts.items():
            journal.put(key, GenerationOutput(text))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), label="cut"):
        del content[data.draw(st.integers(0, len(content)), label="bytes left") :]
    else:
        at = data.draw(st.integers(0, 4095) | st.integers(0, len(content) - 1), label="byte")
        content[at] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    path.write_bytes(content)
    assert count_answers(path) <= len(texts)
    with Journal(path) as journal:
        for key, output in journal.outputs().items():
            assert isinstance(output, GenerationOutput)
            assert output.text == texts[key]
        journal.put("new", GenerationOutput("text"))
        assert "new" in journal.outputs()


@pytest.mark.parametrize("name", [b"checksum INTEGER", b"outputs (key", b"load REAL"])
def test_a_damaged_schema_is_salvaged(path: Path, name: bytes) -> None:
    """A flipped bit in a column's name: the answers are read all the same; in their table's, they are asked again."""
    with Journal(path) as journal:
        journal.put("key", GenerationOutput("text"))
    content = bytearray(path.read_bytes())
    content[content.index(name)] ^= 1
    path.write_bytes(content)
    with Journal(path) as journal:
        assert journal.damaged == 1
        assert set(journal.outputs()) == (set() if name.startswith(b"outputs") else {"key"})
    assert path.with_name("journal.sqlite.damaged").read_bytes() == content
