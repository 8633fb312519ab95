"""The store of answers is shared by processes, notices damage, and keeps to its size."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.answers import store as module
from evalkit.answers.files import hash_file
from evalkit.answers.store import AnswerStore, Record, checksum_of, limit_bytes
from evalkit.errors import ConfigError

LIMIT = 2**30
WRITER = """
import sys
from pathlib import Path
from evalkit.answers.store import AnswerStore, Record

path, number, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

def record(owner, index):
    return Record(f"{owner}-{index}", "rolling", f"answer of {owner} to {index}" * 20)

with AnswerStore(path, 2**30) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for index in range(rounds):
        # Its own answers, and some that all others write, too.
        store.put([record(number, index), record("all", index)])
        wanted = [record(owner, index) for owner in (number, "all")]
        found = store.get([item.key for item in wanted] + [f"{other}-{index}" for other in range(12)])
        assert all(found[item.key] == item for item in wanted)
        assert all(item == record(*key.rsplit("-", 1)) for key, item in found.items())
        print(index, flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AnswerStore]:
    with AnswerStore(tmp_path / "answers.sqlite", LIMIT) as made:
        yield made


def _record(number: int, length: int = 10) -> Record:
    return Record(f"key {number}", "rolling", f"answer {number} ".ljust(length, "x"))


def _sql(store: AnswerStore, text: str) -> None:
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute(text)


def _writer(path: Path, number: int, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(number), str(rounds)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_answers_are_found_by_their_keys(store: AnswerStore) -> None:
    """Each under its own key, in any number; unknown keys are left out."""
    store.put(_record(number) for number in range(1234))
    found = store.get([f"key {number}" for number in range(1230, 1240)] + [f"key {n}" for n in range(1100)])
    assert found == {f"key {n}": _record(n) for n in (*range(1100), *range(1230, 1234))}


def test_a_later_answer_replaces_an_earlier_one(store: AnswerStore) -> None:
    """One record a key."""
    store.put([_record(1), Record("key 1", "rolling", "again")])
    assert store.get(["key 1"]) == {"key 1": Record("key 1", "rolling", "again")}
    assert store.info().answers == 1


@given(output=st.text(), other=st.text())
def test_a_checksum_is_of_one_content(output: str, other: str) -> None:
    """Other text, another checksum; half surrogate pairs are no error."""
    assert (checksum_of("k", "rolling", output) == checksum_of("k", "rolling", other)) == (output == other)
    assert checksum_of("k", "rolling", "\ud83d" + output)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE answers SET output = replace(output, 'answer 1', 'answer 7')",
        "UPDATE answers SET output = CAST(X'7B22FF' AS TEXT)",
        "UPDATE answers SET output = CAST(output AS BLOB)",
        "UPDATE answers SET output = NULL",
        "UPDATE answers SET checksum = replace(checksum, substr(checksum, 1, 1), 'g')",
        "UPDATE answers SET kind = 'generation'",
    ],
)
def test_a_damaged_answer_is_asked_again_and_replaced(store: AnswerStore, damage: str) -> None:
    """It is never returned, and what is written in its place is."""
    store.put([_record(1), _record(2)])
    _sql(store, f"{damage} WHERE key = 'key 1'")
    assert store.get(["key 1", "key 2"]) == {"key 2": _record(2)}
    store.put([_record(1)])
    assert store.get(["key 1", "key 2"]) == {"key 1": _record(1), "key 2": _record(2)}
    assert store.verify() == (2, 0)


def test_one_flipped_bit_in_the_file_is_noticed(store: AnswerStore) -> None:
    """In the bytes of the file itself, wherever in the answer's text it is."""
    text = _record(1, 200).output
    store.put([_record(1, 200)])
    store.close()
    content = bytearray(store.path.read_bytes())
    at = content.index(text.encode())
    for bit in range(0, 8 * len(text), 37):
        flipped = bytearray(content)
        flipped[at + bit // 8] ^= 1 << bit % 8
        store.path.write_bytes(flipped)
        with AnswerStore(store.path, LIMIT) as again:
            assert again.get(["key 1"]) == {}
    store.path.write_bytes(content)
    with AnswerStore(store.path, LIMIT) as again:
        assert again.get(["key 1"]) == {"key 1": _record(1, 200)}


def test_a_flipped_bit_anywhere_gives_no_wrong_answer(store: AnswerStore) -> None:
    """In any page: answers are right or missing, what is missing is said by `verify`, and no error is a foreign one."""
    records = {record.key: record for record in (_record(number, 5) for number in range(60))}
    store.put(records.values())
    store.close()
    content, chance = store.path.read_bytes(), random.Random(5)
    # The first page holds the schema, whose damage is told in other ways than that of answers.
    places = [chance.randrange(4096) for _ in range(40)] + [chance.randrange(len(content)) for _ in range(80)]
    for at in (*places, content.index(b"CREATE TABLE answers") + 24):
        flipped = bytearray(content)
        flipped[at] ^= 1 << chance.randrange(8)
        for file in store.path.parent.glob("answers.sqlite-*"):
            file.unlink()
        store.path.write_bytes(flipped)
        try:
            with AnswerStore(store.path, LIMIT) as again:
                found = again.get(list(records))
                assert found.items() <= records.items()
                whole, damaged = again.verify()
                assert damaged > 0 or len(found) == whole == len(records)
        except sqlite3.DatabaseError:
            pass


def test_verify_spares_what_was_mended_meanwhile(store: AnswerStore) -> None:
    """Another process that replaces a damaged answer while `verify` runs loses nothing."""
    store.put([_record(1)])
    store._delete_damaged(1)
    assert store.get(["key 1"]) == {"key 1": _record(1)}


def test_verify_deletes_what_is_damaged(store: AnswerStore) -> None:
    """It counts both, also an answer whose key is damaged and that nobody would ask for."""
    store.put(_record(number) for number in range(1000))
    _sql(store, "UPDATE answers SET output = output || '!' WHERE key IN ('key 3', 'key 800')")
    _sql(store, "UPDATE answers SET key = 'kez 5' WHERE key = 'key 5'")
    assert store.verify() == (997, 3)
    assert store.verify() == (997, 0)


# ── size ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_least_recently_used_answers_go_first(tmp_path: Path) -> None:
    """A store that is full makes room, keeps what was used lately, and its file does not grow."""
    with AnswerStore(tmp_path / "answers.sqlite", 2**20) as store:
        store.put(_record(number, 1000) for number in range(400))
        _sql(store, "UPDATE answers SET used = 1000 + rowid")
        assert set(store.get(["key 0", "key 1"])) == {"key 0", "key 1"}
        for start in range(400, 2000, 100):
            store.put(_record(number, 1000) for number in range(start, start + 100))
            _sql(store, "UPDATE answers SET used = used - 1 WHERE key NOT IN ('key 0', 'key 1')")
            assert store.bytes() <= 2**20
        assert set(store.get([f"key {n}" for n in (0, 1, 2, 3, 1999)])) == {"key 0", "key 1", "key 1999"}
        assert store.info().answers > 300
        assert store.path.stat().st_size < 2 * 2**20


def test_prune_and_clear_give_space_back(store: AnswerStore) -> None:
    """By age, by size, or everything; the number of deleted answers is said."""
    store.put(_record(number, 1000) for number in range(3000))
    _sql(store, "UPDATE answers SET used = 5 WHERE rowid <= 1000")
    assert store.prune(LIMIT, before=6) == 1000
    assert store.prune(2**20) > 500
    assert store.bytes() <= 2**20
    left = store.info().answers
    assert 0 < left < 1500
    assert store.clear() == left
    assert store.info().answers == 0
    assert store.bytes() < 100_000


@pytest.mark.parametrize("text", ["much", "0", "-1", "1.5"])
def test_a_wrong_limit_is_a_config_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The variable is named; by default there are 2 GiB."""
    assert limit_bytes() == 2 * 2**30
    monkeypatch.setenv("EVALKIT_ANSWER_CACHE_MB", text)
    with pytest.raises(ConfigError, match=r"EVALKIT_ANSWER_CACHE_MB is a number .* Change or unset it"):
        limit_bytes()


# ── hashes of files ─────────────────────────────────────────────────────────────────────────────────────────
def test_a_file_is_hashed_once(store: AnswerStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it changes, though its size and its time of change stay the same."""
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    monkeypatch.setattr(module, "RACY_NS", 0)
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return hash_file(path)

    monkeypatch.setattr(module, "hash_file", counted)
    first = [store.file_hash(file) for _ in range(3)]
    stat = file.stat()
    while file.stat().st_ctime_ns == stat.st_ctime_ns:
        file.write_bytes(b"two")
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert first == [first[0]] * 3
    assert store.file_hash(file) == hash_file(file) != first[0]
    assert len(read) == 2


def test_a_file_just_written_is_not_remembered(store: AnswerStore, tmp_path: Path) -> None:
    """Within one tick of the clock it may change again without a new stamp."""
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    assert store.file_hash(file) == hash_file(file)
    with closing(sqlite3.connect(store.path)) as db:
        assert db.execute("SELECT COUNT(*) FROM files").fetchone() == (0,)


# ── processes ───────────────────────────────────────────────────────────────────────────────────────────────
def test_twelve_processes_share_one_store(tmp_path: Path) -> None:
    """They create it at once and write at once: no lock error, and no answer is lost or another's."""
    path, rounds = tmp_path / "answers.sqlite", 40
    writers = [_writer(path, number, rounds) for number in range(12)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == "ready\n"
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert (writer.returncode, errors) == (0, "")
    with AnswerStore(path, LIMIT) as store:
        assert store.verify() == (13 * rounds, 0)
        for owner in (*range(12), "all"):
            keys = [f"{owner}-{index}" for index in range(rounds)]
            expected = {key: f"answer of {owner} to {key.rsplit('-')[-1]}" * 20 for key in keys}
            assert {key: record.output for key, record in store.get(keys).items()} == expected


def test_a_killed_writer_leaves_it_sound(tmp_path: Path) -> None:
    """SIGKILL in the middle of writing: whatever was written is whole, and others go on."""
    path = tmp_path / "answers.sqlite"
    for number in range(3):
        with _writer(path, number, 100_000) as writer:
            assert writer.stdin is not None
            assert writer.stdout is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
            written = [writer.stdout.readline() for _ in range(30)]
            time.sleep(0.003 * number)
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        assert written[-1] == "28\n"
        with AnswerStore(path, LIMIT) as store:
            whole, damaged = store.verify()
            assert damaged == 0
            assert whole >= 29 * 2
            assert len(store.get([f"{number}-{index}" for index in range(29)])) == 29
            store.put([_record(number)])


# ── what cannot be used ─────────────────────────────────────────────────────────────────────────────────────
def test_a_file_of_another_version_is_not_misread(store: AnswerStore) -> None:
    """Nor is a file that is no database."""
    _sql(store, "PRAGMA user_version = 9")
    with pytest.raises(sqlite3.DatabaseError, match=r"another version of evalkit"):
        AnswerStore(store.path, LIMIT)
    store.close()
    store.path.write_bytes(b"no database" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        AnswerStore(store.path, LIMIT)
