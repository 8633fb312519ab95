"""A model behind a server of its own answers as in this process, and outlives the death of the server."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import Evalkit

from evalkit.engine import BaseInferenceSession
from evalkit.errors import ConfigError, EngineDiedError, MissingDependencyError, ModelNotFoundError, RunError
from evalkit.model import Model
from evalkit.plugins import get_plugins
from evalkit.requests import GenerationRequest, LoglikelihoodRequest, RollingLoglikelihoodRequest
from evalkit.runs.resolve import choose_engine
from evalkit.runs.spec import make_spec
from evalkit.servers import ServedSession, ServerProcess, guard
from evalkit.testing.conformance import SessionConformance, check_close_is_idempotent
from evalkit.testing.fake import Fake
from evalkit.testing.served import ServedFake

pytest.importorskip("evalkit_openai")
pytest.importorskip("httpx")
if "openai" not in get_plugins().engines:
    pytest.skip("needs evalkit-openai installed", allow_module_level=True)

SERVED = "evalkit.testing.served:ServedFake"
SCORED = [LoglikelihoodRequest(f"The number {n} is", f" {'odd' if n % 2 else 'even'}") for n in range(60)]
WRITTEN = [GenerationRequest(prompt=f"Count {n}", max_new_tokens=5 + n % 4) for n in range(60)]


@pytest.fixture(autouse=True, scope="module")
def nothing_left() -> Iterator[None]:
    """Not one process is left behind by all these tests."""
    before = guard.descendants(os.getpid())
    yield
    assert guard.descendants(os.getpid()) - before == set()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs go where the test can see them."""
    monkeypatch.setenv("EVALKIT_CACHE_DIR", str(tmp_path / "cache"))


def served(restarts: int = 0, retries: int = 2, **options: Any) -> ServedSession:
    engine = ServedFake(start_server=True, restarts=restarts, client_args={"retries": retries}, **options)
    session = engine.build(Model("any"))
    assert isinstance(session, ServedSession)
    return session


@pytest.fixture(scope="module")
def one() -> Iterator[BaseInferenceSession]:
    with served() as session:
        yield session


@pytest.fixture(scope="module")
def direct() -> dict[str, list[Any]]:
    with Fake().build(Model("any")) as session:
        scored, written = session.loglikelihood(SCORED), session.generate(WRITTEN)
    return {"scored": [output.logprob for output in scored], "written": [output.token_ids for output in written]}


class TestServedFake(SessionConformance):
    """The contract holds behind a server."""

    @pytest.fixture
    def session(self, one: BaseInferenceSession) -> BaseInferenceSession:
        return one


def server_of(session: ServedSession) -> int:
    """The number of the server's own process."""
    assert session._server is not None
    return next(int(line.split()[-1]) for line in session._server.tail() if line.startswith("serving"))


def test_closing_leaves_no_process_and_no_log(tmp_path: Path) -> None:
    """A session that is closed has ended its server; a log is kept only where something went wrong."""
    session = served()
    pid = server_of(session)
    check_close_is_idempotent(session)
    assert not Path(f"/proc/{pid}").exists()
    assert list((tmp_path / "cache" / "logs").iterdir()) == []
    with pytest.raises(RunError, match="closed"):
        session.gc()


@pytest.mark.parametrize("seed", range(int(os.environ.get("EVALKIT_TEST_KILLS", "2"))))
@pytest.mark.parametrize("kind", ["scored", "written"])
def test_deaths_lose_nothing_and_double_nothing(kind: str, seed: int, direct: dict[str, list[Any]]) -> None:
    """Killed at random moments, with restarts, every request is answered once, as it would have been."""
    chance = random.Random(seed)
    # Whether requests wait for a server to come back, or fail at once, is all the same.
    with served(restarts=2, retries=2 * seed, delay=0.02, in_flight=4) as session:
        done = threading.Event()

        def kill() -> None:
            for _ in range(2):
                if done.wait(chance.uniform(0.05, 0.4)):
                    return
                before = session._server
                os.kill(server_of(session), signal.SIGKILL)
                while session._server in (before, None) and not done.is_set():
                    time.sleep(0.01)

        killer = threading.Thread(target=kill)
        killer.start()
        asked = SCORED if kind == "scored" else WRITTEN
        run: Any = session.loglikelihood_continuous if kind == "scored" else session.generate_continuous
        found = list(run(list(enumerate(asked))))
        done.set()
        killer.join()
    assert sorted(key for key, _ in found) == list(range(len(asked)))
    assert all(output.error is None for _, output in found)
    outputs = [output for _, output in sorted(found, key=lambda pair: pair[0])]
    if kind == "scored":
        assert [output.logprob for output in outputs] == pytest.approx(direct[kind])
    else:
        assert [output.token_ids for output in outputs] == direct[kind]


def test_without_restarts_a_death_is_an_error_and_no_answer_is_wrong(direct: dict[str, list[Any]]) -> None:
    """What was answered stands, no output carries the failure, and the error names the signal and the log."""
    found = {}

    def ask_and_kill(session: ServedSession) -> None:
        for key, output in session.generate_continuous(enumerate(WRITTEN)):
            found[key] = output
            if len(found) == 5:
                os.kill(server_of(session), signal.SIGKILL)

    words = r"(?s)'served-fake' died: SIGKILL ended it \(.*\.log"
    with served(delay=0.02, in_flight=4) as session, pytest.raises(EngineDiedError, match=words):
        ask_and_kill(session)
    assert 5 <= len(found) < len(WRITTEN)
    assert all(output.token_ids == direct["written"][key] for key, output in found.items())


def test_a_death_between_calls_is_repaired() -> None:
    """The next call, whatever it is, finds a new server."""
    with served(restarts=2) as session:
        os.kill(server_of(session), signal.SIGKILL)
        assert session.too_long(SCORED[:2]) == []
        os.kill(server_of(session), signal.SIGKILL)
        assert session.loglikelihood_rolling([RollingLoglikelihoodRequest("A text.")])[0].token_count == 7
        assert session.restarts == 0


def test_a_request_that_fails_alone_fails_alone() -> None:
    """The server's refusal is that request's error, and tells nothing of the server's name and port."""
    with served(server_args={"fail_on": "bad"}) as session:
        assert session._server is not None
        outputs = session.generate([GenerationRequest(prompt=text, max_new_tokens=2) for text in ("good", "bad")])
        assert outputs[0].error is None
        assert "`the model` fails on 'bad'" in (outputs[1].error or "")
        described = json.dumps(session.describe_execution())
        for secret in (session._server.served_name, str(session._server.port)):
            assert secret not in (outputs[1].error or "") + described


def test_a_running_server_is_asked_and_left_alone() -> None:
    """Attached, the session ends and the server stays."""
    with served() as session:
        server = session._server
        assert server is not None
        engine = ServedFake(base_url=server.base_url)
        with engine.build(Model(server.served_name)) as attached:
            [ours], [theirs] = attached.loglikelihood(SCORED[:1]), session.loglikelihood(SCORED[:1])
            assert ours.logprob == pytest.approx(theirs.logprob)
            assert (attached.describe_execution() or {})["mode"] == "attached"
        assert server.answers()
        with pytest.raises(ModelNotFoundError, match="no model 'other'"):
            engine.build(Model("other"))


def test_a_server_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch, direct: dict[str, list[Any]]) -> None:
    """A request that gets no answer in its time shows it; the next server answers."""
    for name, seconds in (("process.PROBE_SECONDS", 0.5), ("process.PATIENCE", 1.0)):
        monkeypatch.setattr(f"evalkit.servers.{name}", seconds)
    monkeypatch.setattr(ServerProcess, "dying_seconds", 0.5)
    engine = ServedFake(start_server=True, restarts=1, client_args={"timeout": 5, "retries": 0})
    with engine.build(Model("any")) as session:
        assert isinstance(session, ServedSession)
        os.kill(server_of(session), signal.SIGSTOP)
        assert [output.token_ids for output in session.generate(WRITTEN)] == direct["written"]
        assert session.restarts == 0


# ── options ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_option_that_the_client_lacks_is_refused() -> None:
    """Before a server is started; the error has its options."""
    with pytest.raises(ConfigError, match="engine 'openai' has no option 'nosuch'"):
        ServedFake(start_server=True, client_args={"nosuch": 1}).build(Model("any"))


def test_a_run_passes_its_environment_and_restarts_to_the_server() -> None:
    """`--restarts` and `--env` are the server's; a process around it is refused, and so is one for another's server."""
    run = {"tasks": ["t"], "engine": SERVED, "model": "m", "engine_args": {"start_server": True}}
    engine, spec = choose_engine(make_spec({**run, "restarts": 3, "env": "other"}))
    assert isinstance(engine, ServedFake)
    assert (engine.restarts, engine.env, spec.remote) == (3, "other", False)
    with pytest.raises(ConfigError, match="Leave out --isolate"):
        choose_engine(make_spec({**run, "isolate": True}))
    attached = {**run, "engine_args": {"base_url": "http://localhost:1/v1"}}
    assert choose_engine(make_spec(attached))[1].remote
    with pytest.raises(ConfigError, match="Leave out --env"):
        choose_engine(make_spec({**attached, "env": "other"}))


def test_without_the_client_the_error_has_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, before a server is started."""
    monkeypatch.setenv("EVALKIT_PLUGINS", "")
    get_plugins.cache_clear()
    try:
        with pytest.raises(MissingDependencyError, match="pip install evalkit-openai"):
            ServedFake(start_server=True).build(Model("any"))
    finally:
        monkeypatch.undo()
        get_plugins.cache_clear()


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_run_equals_one_without_a_server(evalkit: Evalkit, tmp_path: Path) -> None:
    """Scores are equal, and no file of the run holds the name or the port that the server happened to have."""
    words = ("run", "starter", "--engine", SERVED, "--model", "any", "--limit", "6", "--json")
    plain = json.loads(evalkit(*words, "--output", "plain").stdout)
    started = ("--engine-arg", "start_server=true")
    done = evalkit(*words, *started, "--restarts", "1", "--output", "served")
    assert done.returncode == 0, done.stderr
    for task, scores in json.loads(done.stdout)["results"].items():
        for name, value in scores.items():
            assert value == pytest.approx(plain["results"][task][name], rel=1e-6), (task, name)
    texts = [path.read_text(encoding="utf-8") for path in (tmp_path / "served").glob("*.json*")]
    assert not any("evalkit-" in text.replace("evalkit-core", "") and "127.0.0.1" in text for text in texts)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--engine-arg", "server_args={trouble: dies}"), "ended before it was ready"),
        (("--engine-arg", "python=/no/such/python"), "which is not there"),
        (("--env", "nosuch"), "no environment 'nosuch'"),
    ],
)
def test_a_start_that_fails_leaves_no_run(
    evalkit: Evalkit, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    """One line, exit status 2, nothing half-made."""
    base = ("run", "starter_prose", "--engine", SERVED, "--model", "any", "--engine-arg", "start_server=true")
    done = evalkit(*base, *words, "--output", "run")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_answers_of_a_started_server_are_cached_and_those_of_a_strangers_never(
    evalkit: Evalkit, tmp_path: Path
) -> None:
    """The name and the port of a server are no part of what an answer depends on; whose server it is, is."""
    words = ("run", "starter_arithmetic", "--engine", SERVED, "--limit", "3", "--cache", "--json")
    weights = tmp_path / "weights.txt"
    weights.write_text("none", encoding="utf-8")
    started = ("--engine-arg", "start_server=true", "--model", weights)
    first, second = (json.loads(evalkit(*words, *started).stdout) for _ in range(2))
    assert (first["from_cache"], second["from_cache"]) == (0, 3)
    with served() as session:
        assert session._server is not None
        attached = ("--engine-arg", f"base_url={session._server.base_url}", "--model", session._server.served_name)
        done = evalkit(*words, *attached)
    assert (done.returncode, "the answer cache cannot tell" in done.stderr) == (2, True)


def test_an_engine_that_is_not_here_cannot_start_its_server() -> None:
    """The error says which package is needed here."""
    with pytest.raises(ConfigError, match="pip install evalkit-nosuch"):
        choose_engine(
            make_spec({"tasks": ["t"], "engine": "nosuch", "model": "m", "engine_args": {"start_server": True}})
        )
