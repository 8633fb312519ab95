"""The store: jobs end once, keep their turn, and are there after a crash."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from evalkit_http.service.job import Accepted
from evalkit_http.service.jobs import DuplicateKeyError, JobStore, QueueFullError
from evalkit_http.service.protocol import JobStatus

FINAL = [status for status in JobStatus if status.is_final]


def new(priority: int = 0, key: str | None = None, **request: object) -> Accepted:
    return Accepted("evaluate", request, {}, priority, key)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    with closing(JobStore(tmp_path / "jobs.sqlite")) as opened:
        yield opened


def test_turns_go_by_priority_then_by_time(store: JobStore) -> None:
    """The highest priority first; of equal ones, the oldest."""
    ids = [store.accept(new(priority))[0].id for priority in (0, 5, 0, 5, -1)]
    expected = [ids[1], ids[3], ids[0], ids[2], ids[4]]
    assert [job.id for job in store.candidates(1e12, 10)] == expected == store.ids(JobStatus.QUEUED)
    assert [store.position(job) for job in store.candidates(1e12, 10)] == [0, 1, 2, 3, 4]


def test_those_that_could_start_are_read_and_no_others(store: JobStore) -> None:
    """Of many jobs that want the same slots the first few, and those behind them that want other slots."""
    gpu, cpu = {"slots": {"count": 1, "device": "cuda"}}, {"slots": {"count": 0, "device": None}}
    ids = [store.accept(Accepted("evaluate", {}, work))[0].id for work in [gpu] * 200 + [cpu] * 2 + [gpu]]
    assert [job.id for job in store.candidates(1e12, 3)] == [*ids[:3], *ids[200:202]]
    assert store.put_off(ids[0], 1e13, "later")
    assert [job.id for job in store.candidates(1e12, 1)] == [ids[1], ids[200]]


def test_a_key_leads_to_its_job(store: JobStore) -> None:
    """The same request with the same key is one job; another request with it is refused."""
    first, is_new = store.accept(new(key="k", tasks=["a"]))
    again, again_new = store.accept(new(key="k", tasks=["a"]))
    assert (is_new, again_new, first.id) == (True, False, again.id)
    with pytest.raises(DuplicateKeyError, match="Use a new key"):
        store.accept(new(key="k", tasks=["b"]))


def test_a_full_queue_refuses(store: JobStore) -> None:
    """Only so many jobs wait; those that came before stay."""
    store.accept(new(), most=1)
    with pytest.raises(QueueFullError, match="Try again later"):
        store.accept(new(), most=1)
    assert store.queued() == 1


def test_the_database_itself_ends_a_job_once(store: JobStore, tmp_path: Path) -> None:
    """Not even a mistake in the code can move a job out of a final status."""
    job, _ = store.accept(new())
    assert store.start(job.id, ("cpu:0",))
    assert store.finish(job.id, JobStatus.COMPLETED, result={"a": 1})
    assert not store.finish(job.id, JobStatus.FAILED)
    assert not store.requeue(job.id, "")
    with (
        closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as db,
        pytest.raises(sqlite3.IntegrityError, match="ends once"),
    ):
        db.execute("UPDATE jobs SET status = 'queued'")
    assert [status for status, _ in store.moves(job.id)] == ["queued", "running", "completed"]


def test_what_was_accepted_is_there_in_another_process(store: JobStore, tmp_path: Path) -> None:
    """A second reader of the file sees each job as soon as it was accepted."""
    job, _ = store.accept(new(tasks=["a"]))
    with closing(JobStore(tmp_path / "jobs.sqlite")) as other:
        found = other.find(job.id)
    assert found == job


def test_syncing_changes_nothing(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are there before, while and after they are brought to the disk, with and without a checkpoint."""
    for largest in (2**30, 0):
        monkeypatch.setattr("evalkit_http.service.jobs.LARGEST_LOG", largest)
        id = store.accept(new())[0].id
        store.sync()
        assert store.find(id) is not None
        assert store.start(id, ())
    assert store.counts()["running"] == 2


def test_files_of_earlier_versions_open(tmp_path: Path) -> None:
    """What a newer version keeps of a job is added to the jobs that are there."""
    path = tmp_path / "jobs.sqlite"
    with closing(JobStore(path)) as store:
        id = store.accept(new())[0].id
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP INDEX by_need")
        for column in ("crashes", "answered"):
            db.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
    with closing(JobStore(path)) as store:
        assert [(job.id, job.crashes) for job in store.candidates(1e12, 1)] == [(id, 0)]


def test_threads_share_it(store: JobStore) -> None:
    """Submissions of many threads are all kept, each once."""
    threads = [threading.Thread(target=lambda: [store.accept(new()) for _ in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(store.ids(JobStatus.QUEUED))) == 160


def test_old_jobs_are_those_beyond_the_number_and_the_age(store: JobStore) -> None:
    """The youngest ends are kept; jobs that wait are never old."""
    ids = [store.accept(new())[0].id for _ in range(4)]
    for id in ids[:3]:
        store.finish(id, JobStatus.CANCELLED)
    assert [job.id for job in store.expired(2, 0)] == [ids[0]]
    assert len(store.expired(100, 1e12)) == 3
    store.forget(ids[0])
    store.forget(ids[3])
    assert store.find(ids[0]) is None
    assert store.find(ids[3]) is not None
    assert store.ended()["cancelled"] == 3


class Lives(RuleBasedStateMachine):
    """Any order of what may happen to jobs, crashes of the server included."""

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = JobStore(Path(self.folder.name) / "jobs.sqlite")
        self.ends: dict[str, int] = {}

    @rule(target=jobs, priority=st.integers(-2, 2))
    def accept(self, priority: int) -> str:
        return self.store.accept(new(priority))[0].id

    @rule(id=jobs)
    def start(self, id: str) -> None:
        self.store.start(id, ("cpu:0",))

    @rule(id=jobs, status=st.sampled_from(FINAL))
    def finish(self, id: str, status: JobStatus) -> None:
        self.ends[id] = self.ends.get(id, 0) + self.store.finish(id, status)

    @rule(id=jobs)
    def cancel(self, id: str) -> None:
        before = self.store.find(id)
        assert before is not None
        after = self.store.cancel(id)
        self.ends[id] = self.ends.get(id, 0) + (after == JobStatus.CANCELLED and not before.status.is_final)

    @rule(id=jobs)
    def crash(self, id: str) -> None:
        self.store.requeue(id, "")

    @invariant()
    def each_ends_once(self) -> None:
        for id, ends in self.ends.items():
            final = [status for status, _ in self.store.moves(id) if JobStatus(status).is_final]
            assert len(final) == ends <= 1

    @invariant()
    def counts_agree(self) -> None:
        assert sum(self.store.ended().values()) == sum(self.ends.values())
        assert self.store.counts() == {status: len(self.store.ids(status)) for status in JobStatus}

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
