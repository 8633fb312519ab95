"""Whole runs over HTTP: the model is a name, nothing secret is stored, and a run that was stopped goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import evalkit
from evalkit.errors import EvalkitError, ModelError
from evalkit.model import Model
from evalkit.runs.resolve import resolve_model
from evalkit_openai.engine import OpenAICompatible
from evalkit_openai.plugin import register_engines

KEY = "very-private-key-0123456789"


@pytest.fixture(autouse=True)
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tasks that come with their documents, and runs in a folder of this test's."""
    pytest.importorskip("evalkit_tasks_starter")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVALKIT_RUNS_DIR", str(tmp_path / "runs"))


def run(double: Any, *tasks: str, **fields: Any) -> Any:
    args = {"base_url": double.url, **fields.pop("engine_args", {})}
    return evalkit.evaluate(list(tasks), engine="openai", model="fake", engine_args=args, limit=4, **fields)


def evalkit_command(*words: str) -> list[str]:
    return [sys.executable, "-m", "evalkit", *words]


def test_scores_are_those_of_the_engine_behind(kit: Any) -> None:
    """A suite over HTTP gives what the same model gives in this process."""
    over_http = run(kit.serve(max_length=2048), "starter")
    fake = "evalkit.testing.fake:Fake"
    direct = evalkit.evaluate(["starter"], engine=fake, model="any", limit=4)
    assert over_http.errors == 0
    assert _numbers(over_http.results) == pytest.approx(_numbers(direct.results), rel=1e-9)


def test_the_engine_from_python(kit: Any) -> None:
    """As in the engine guide: the model's path is the server's name for it."""
    engine = evalkit.engines.OpenAICompatible(base_url=kit.serve().url)
    result = engine.model(path="fake").run("starter_arithmetic", limit=2)
    assert result.errors == 0


def test_a_run_stores_no_secret(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of a run holds the key or a header's secret, and it can be resumed with them from the environment."""
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("MY_COOKIE", "chocolate-with-nuts-12345")
    double = kit.serve(key=KEY)
    options = {"api_key_env": "MY_KEY", "headers": {"Cookie": "$MY_COOKIE"}}
    result = run(double, "starter_arithmetic", engine_args=options, output="run")
    for path in Path(result.run_dir).rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert KEY.encode() not in content
        assert b"chocolate-with-nuts" not in content
    spec = json.loads(Path("run/run.json").read_text())["spec"]
    assert spec["engine_args"]["api_key_env"] == "MY_KEY"
    Path("run/results.json").unlink()
    assert evalkit.resume("run").results == result.results


def test_a_folder_with_the_name_of_a_model_is_not_it(kit: Any) -> None:
    """A remote model's name is never a path: not made absolute, not hashed."""
    Path("fake").mkdir()
    Path("fake/weights").write_text("here")
    run(kit.serve(), "starter_arithmetic", output="run")
    manifest = json.loads(Path("run/run.json").read_text())
    assert manifest["spec"]["model"] == "fake"
    assert manifest["model"] == {"path": "fake", "fingerprint": None}
    Path("fake/weights").write_text("changed")
    Path("run/results.json").unlink()
    assert evalkit.resume("run").errors == 0


def test_a_model_is_a_name() -> None:
    """Any name passes for a remote engine: one that looks like a path, and one that is registered."""
    specs: list[Any] = []
    register_engines(specs.append)
    for name in ("/models/llama", "org/model/variant", "smollm2-135", "x.gguf"):
        assert resolve_model(Model(name), specs[0]) == Model(name)


def test_conversations_arrive_as_messages(kit: Any) -> None:
    """With --apply-chat-template the server gets messages, examples as turns, and the template's variables."""
    double = kit.serve(routes={"chat"})
    result = run(
        double,
        "starter_arithmetic",
        apply_chat_template=True,
        system_prompt="Be brief.",
        num_fewshot=2,
        chat_template_args={"enable_thinking": False},
        output="run",
    )
    assert result.errors == 0
    bodies = double.bodies("/v1/chat/completions")
    assert len(bodies) == 4
    assert [m["role"] for m in bodies[0]["messages"]] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}
    row = json.loads(Path("run/samples_starter_arithmetic.jsonl").read_text().split("\n")[0])
    arguments = row["arguments"][0][0]
    assert json.loads(arguments)[0] == {"role": "system", "content": "Be brief."}


def test_an_isolated_run_sends_messages_too(kit: Any) -> None:
    """In a process of its own the engine does the same."""
    double = kit.serve(routes={"chat"})
    assert run(double, "starter_arithmetic", apply_chat_template=True, isolate=True).errors == 0
    assert len(double.bodies("/v1/chat/completions")) == 4


def test_choices_of_a_conversation_are_rendered_here(kit: Any) -> None:
    """Choices behind a chat template are scored as text; without a template the run is refused in one line."""
    assert run(kit.serve(max_length=2048), "starter_questions", apply_chat_template=True).errors == 0
    with pytest.raises(EvalkitError, match="offers no chat template"):
        run(kit.serve(routes={"chat", "completions", "eval"}), "starter_questions", apply_chat_template=True)


def test_failed_requests_are_reported_and_resumed(kit: Any, no_waiting: None) -> None:
    """A request that fails for good is no wrong answer: the run says so, and a resumed run asks it again."""
    double = kit.serve()
    expected = run(double, "starter_arithmetic").results
    double.faults.append(kit.faults["status"](422, "not now"))
    result = run(double, "starter_arithmetic", output="run")
    assert result.errors == 1
    assert "not now" in result.warnings[0]
    assert evalkit.resume("run").results == expected


def test_the_answer_cache_is_refused(kit: Any) -> None:
    """Nobody here knows which weights answer under a name."""
    with pytest.raises(ModelError, match=r"may change it at any time.* --cache"):
        run(kit.serve(), "starter_arithmetic", cache=True)


def test_nothing_is_left_of_a_run_that_cannot_begin(kit: Any) -> None:
    """A server that cannot score is found out before there is a folder."""
    with pytest.raises(ModelError, match="cannot score"):
        run(kit.serve(routes={"completions"}, echo="ignored"), "starter_questions", output="run")
    assert not Path("run").exists()


def test_a_server_that_is_down_is_one_line() -> None:
    """Exit status 2, one line, and the next step."""
    words = ("run", "starter_arithmetic", "--engine", "openai", "--model", "m", "--engine-arg")
    done = subprocess.run(
        evalkit_command(*words, "base_url=http://127.0.0.1:9/v1", "--engine-arg", "retries=0"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().split("\n")) == 1
    assert "base_url" in done.stderr
    assert not Path("runs").exists()


def test_ctrl_c_ends_a_run_that_waits(kit: Any) -> None:
    """A run whose server thinks for ten minutes ends at once, with status 130."""
    double = kit.serve()
    words = ("run", "starter_arithmetic", "--engine", "openai", "--model", "fake", "--output", "run", "--engine-arg")
    double.faults += [lambda handler: threading.Event().wait(60)] * 100
    command = evalkit_command(*words, f"base_url={double.url}")
    # What starts the tests in the background may have Ctrl-C ignored, which processes inherit.
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heeded) as process:
        try:
            while not double.bodies("/v1/completions"):
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130


def test_options_that_change_no_answer() -> None:
    """Only how requests are sent is neutral; what is sent is not."""
    sent = {"base_url", "api", "scoring", "tokenizer", "max_length", "headers", "seed", "extra_body"}
    assert OpenAICompatible.neutral_options.isdisjoint(sent)


def _numbers(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    found = {}
    for task, row in results.items():
        found |= {f"{task} {key}": value for key, value in row.items() if isinstance(value, float)}
    return found
