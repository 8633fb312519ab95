"""A session in another process answers as one in this process does, and outlives the death of that process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.errors import ConfigError, EngineDiedError, RunError
from evalkit.isolation.process import ChildProcess
from evalkit.isolation.session import IsolatedSession
from evalkit.model import Model
from evalkit.requests import GenerationOutput, GenerationRequest, LoglikelihoodRequest
from evalkit.testing.conformance import SessionConformance, check_close_is_idempotent
from evalkit.testing.fake import Fake
from evalkit.testing.waiting import eventually

FAKE = "evalkit.testing.fake:Fake"
SOURCES = os.pathsep.join(path for path in sys.path if Path(path, "evalkit").is_dir())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs go where the test can see them."""
    monkeypatch.setenv("EVALKIT_CACHE_DIR", str(tmp_path / "cache"))


def start() -> ChildProcess:
    # The tests may run on sources that are not installed.
    return ChildProcess(sys.executable, "fake", {"PYTHONPATH": SOURCES})


def isolated(restarts: int = 0, engine: str = FAKE, **options: Any) -> IsolatedSession:
    return IsolatedSession(start, {"engine": engine, "engine_args": options, "model": {"path": "any"}}, restarts)


@pytest.fixture(scope="module")
def one() -> Iterator[BaseInferenceSession]:
    with isolated() as session:
        yield session


class TestIsolatedFake(SessionConformance):
    """The contract holds across the process boundary."""

    @pytest.fixture
    def session(self, one: BaseInferenceSession) -> BaseInferenceSession:
        return one


SCORED = [LoglikelihoodRequest(f"The number {n} is", f" {'odd' if n % 2 else 'even'}") for n in range(60)]
WRITTEN = [GenerationRequest(prompt=f"Count {n}", max_new_tokens=5 + n % 4) for n in range(30)]


@pytest.fixture(scope="module")
def direct() -> dict[str, list[Any]]:
    with Fake().build(Model("any")) as session:
        return {"scored": session.loglikelihood(SCORED), "written": session.generate(WRITTEN)}


def test_closing_leaves_no_process_and_no_log(tmp_path: Path) -> None:
    """A session that is closed has ended its process; a log is kept only where something went wrong."""
    session = isolated()
    child = session._running()
    check_close_is_idempotent(session)
    assert not child.is_alive()
    assert list((tmp_path / "cache" / "logs").iterdir()) == []
    with pytest.raises(RunError, match="closed"):
        session.gc()


@pytest.mark.parametrize(
    ("engine", "options", "kind", "message"),
    [
        (FAKE, {"no_such": 1}, ConfigError, "no option 'no_such'"),
        ("no.such:Engine", {}, Exception, "cannot be loaded"),
    ],
)
def test_what_building_refuses_is_said_here(
    engine: str, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    """An engine's own error crosses the boundary with its class and its words."""
    with pytest.raises(kind, match=message):
        isolated(engine=engine, **options)


def test_an_error_in_a_call_leaves_the_session_usable() -> None:
    """What one call refuses is raised here; the next call is answered."""
    with isolated() as session:
        with pytest.raises(RuntimeError, match=r"(?s)in the engine's process: KeyError.*Traceback"):
            session.apply_chat_template([{"role": "user"}])
        assert session.loglikelihood(SCORED[:1])[0].token_count == len(" even")


@pytest.mark.parametrize("number", [signal.SIGILL, signal.SIGSEGV, signal.SIGKILL])
def test_a_death_is_explained(number: signal.Signals) -> None:
    """The error names the engine, the signal, the likely cause and the log."""
    with isolated() as session:
        os.kill(session._running().pid, number)
        with pytest.raises(EngineDiedError, match=rf"engine '{FAKE}' died: {number.name} ended it \(.+\).*\.log"):
            session.loglikelihood(SCORED)


def test_an_abandoned_stream_does_not_disturb_the_next(direct: dict[str, list[Any]]) -> None:
    """Whoever stops reading in the middle of a stream leaves nothing behind that a later call would read."""
    with isolated(delay=0.01) as session:
        stream = session.loglikelihood_continuous(list(enumerate(SCORED)), batch_size=1)
        for _ in range(3):
            next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert session.loglikelihood(SCORED) == direct["scored"]


@pytest.mark.parametrize("seed", range(int(os.environ.get("EVALKIT_TEST_KILLS", "4"))))
@pytest.mark.parametrize("kind", ["scored", "written"])
def test_deaths_lose_nothing_and_double_nothing(kind: str, seed: int, direct: dict[str, list[Any]]) -> None:
    """Killed at random moments again and again, every request is answered once, as it would have been."""
    chance = random.Random(seed)
    asked = SCORED if kind == "scored" else WRITTEN
    with isolated(restarts=3, delay=0.004) as session:
        done = threading.Event()

        def kill() -> None:
            for _ in range(3):
                if done.wait(chance.uniform(0.0, 0.25)):
                    return
                if (child := session._child) is not None:
                    os.kill(child.pid, signal.SIGKILL)
                    time.sleep(0.4)

        killer = threading.Thread(target=kill)
        killer.start()
        run = session.loglikelihood_continuous if kind == "scored" else session.generate_continuous
        found = list(run(list(enumerate(asked)), batch_size=1))  # type: ignore[operator]
        done.set()
        killer.join()
    assert sorted(key for key, _ in found) == list(range(len(asked)))
    assert [output for _, output in sorted(found, key=lambda pair: pair[0])] == direct[kind]


def test_a_feed_goes_on_after_a_death(direct: dict[str, list[Any]]) -> None:
    """A server's requests are answered by the process that takes the place of the dead one."""
    with isolated(restarts=1, delay=0.004) as session:

        def feed() -> Iterator[Any]:
            for number, request in enumerate(WRITTEN):
                yield number, request
                if number == 10:
                    os.kill(session._running().pid, signal.SIGKILL)
                yield None

        found = [(key, output) for key, output in session.generate_live(feed()) if isinstance(output, GenerationOutput)]
    assert [output for _, output in sorted(found, key=lambda pair: pair[0])] == direct["written"]


def test_a_parent_that_dies_takes_its_child_along(tmp_path: Path) -> None:
    """No orphan is left when the process of the run is killed."""
    script = (
        "import sys, time\n"
        "from evalkit.isolation.process import ChildProcess\n"
        "from evalkit.isolation.session import IsolatedSession\n"
        f"start = lambda: ChildProcess(sys.executable, 'fake', {{'PYTHONPATH': {SOURCES!r}}})\n"
        f"build = {{'engine': {FAKE!r}, 'engine_args': {{}}, 'model': {{'path': 'any'}}}}\n"
        "session = IsolatedSession(start, build)\n"
        "print(session._running().pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": SOURCES}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.kill()
    eventually(lambda: not _is_running(child), 20)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Nobody may have waited for it yet.
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
