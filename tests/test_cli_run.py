"""Whole runs through the command line, with the fake engine."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import FAKE, Done, Evalkit, clean_environment

STARTER = ("run", "starter", *FAKE, "--limit", "6")


def parsed(done: Done) -> Any:
    """The JSON document on stdout; asserts that the command succeeded."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_json_is_one_object_of_the_documented_shape(evalkit: Evalkit) -> None:
    """`--json` prints results with their errors, tokens, seconds and the run's folder, and nothing else."""
    found = parsed(evalkit(*STARTER, "--json"))
    counted = {"tokens", "seconds", "speed", "errors", "unusable_documents", "from_cache"}
    assert set(found) - {"joules", "joules_from"} == {"run_dir", "results"} | counted
    assert set(found["results"]["starter_questions"]) == {
        "acc,none",
        "acc_stderr,none",
        "acc_norm,none",
        "acc_norm_stderr,none",
    }
    assert set(found["tokens"]) == {"requested", "unique", "computed"}
    assert found["tokens"]["computed"] >= found["tokens"]["unique"] > 0
    assert set(found["seconds"]) == {"load", "inference", "total"}
    speed = found["speed"]
    assert speed["tokens_in"] + speed["tokens_out"] == found["tokens"]["requested"]
    assert speed["tokens_in"] > speed["tokens_out"] > 0
    assert found["errors"] == 0


def test_quiet_when_not_on_a_terminal(evalkit: Evalkit) -> None:
    """Without a terminal there is a table on stdout and nothing on stderr."""
    done = evalkit(*STARTER)
    assert done.returncode == 0
    assert done.stderr == ""
    for part in ("starter_questions", "acc_norm", "word_perplexity", "±", "tokens:", "run: runs"):
        assert part in done.stdout


def test_run_folder_holds_what_the_design_names(evalkit: Evalkit, tmp_path: Path) -> None:
    """run.json, the journal, results and a sample file a task lie in the folder that --output names."""
    found = parsed(evalkit(*STARTER, "--json", "--output", "mine"))
    assert found["run_dir"] == "mine"
    names = {path.name for path in (tmp_path / "mine").iterdir()}
    assert {"run.json", "journal.sqlite", "results.json", "samples_starter_prose.jsonl"} <= names
    assert not [name for name in names if name.endswith(".part")]
    manifest = json.loads((tmp_path / "mine" / "run.json").read_text(encoding="utf-8"))
    assert manifest["status"] == "finished"
    assert manifest["spec"]["tasks"] == ["starter"]
    assert manifest["attempts"][0]["packages"]["evalkit-core"]
    assert manifest["attempts"][0]["machine"]["cores"]


def test_samples_are_rows_of_the_harness_shape(evalkit: Evalkit, tmp_path: Path) -> None:
    """A sample row has the keys that tools made for lm-evaluation-harness read."""
    parsed(evalkit(*STARTER, "--json", "--output", "mine"))
    lines = (tmp_path / "mine" / "samples_starter_questions.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    rows = [json.loads(line) for line in lines]
    assert [row["doc_id"] for row in rows] == list(range(6))
    expected = {"doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash"}
    assert expected | {"acc", "acc_norm"} <= set(rows[0])
    assert len(rows[0]["arguments"]) == len(rows[0]["doc"]["choices"]) == 4


def test_config_file_says_the_same_as_options(evalkit: Evalkit, tmp_path: Path) -> None:
    """A YAML file with the same fields gives the same results; options win over it."""
    text = f"tasks: [starter_questions]\nengine: {FAKE[1]}\nmodel: fake\nlimit: 3\nengine_args:\n  batch_tokens: 100\n"
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    by_file = parsed(evalkit("run", "--config", "run.yaml", "--json"))
    words = ("run", "starter_questions", *FAKE, "--limit", "3", "--engine-arg", "batch_tokens=100", "--json")
    by_options = parsed(evalkit(*words))
    assert by_file["results"] == by_options["results"]
    more = parsed(evalkit("run", "--config", "run.yaml", "--limit", "4", "--output", "more", "--json"))
    assert len((tmp_path / "more" / "samples_starter_questions.jsonl").read_text().split("\n")[:-1]) == 4
    assert more["tokens"]["requested"] > by_file["tokens"]["requested"]


@pytest.mark.parametrize("rows", ["1", "3", "auto"])
def test_scores_do_not_depend_on_batch_size(evalkit: Evalkit, rows: str) -> None:
    """Every batch size gives the same numbers."""
    expected = parsed(evalkit(*STARTER, "--json"))["results"]
    assert parsed(evalkit(*STARTER, "--batch-size", rows, "--json"))["results"] == expected


def test_few_shot_and_chat_template_change_the_prompts(evalkit: Evalkit, tmp_path: Path) -> None:
    """`--num-fewshot` puts examples before the question, `--apply-chat-template` renders it as a message."""
    words = ("run", "starter_questions", *FAKE, "--limit", "2", "--json")
    parsed(evalkit(*words, "--num-fewshot", "2", "--output", "shots"))
    parsed(evalkit(*words, "--apply-chat-template", "--output", "chat"))
    first = {
        name: json.loads((tmp_path / name / "samples_starter_questions.jsonl").read_text().split("\n")[0])
        for name in ("shots", "chat")
    }
    context, continuation = first["shots"]["arguments"][0]
    assert context.count("Question:") == 3
    assert continuation.startswith(" ")
    context, continuation = first["chat"]["arguments"][0]
    assert context.startswith("<user>Question:")
    assert context.endswith("<assistant>")
    assert not continuation.startswith(" ")


def test_generation_options_and_repeats(evalkit: Evalkit, tmp_path: Path) -> None:
    """`--gen` sets sampling values; repeats are asked each with a seed of its own and counted in votes and chances."""
    words = ("run", "starter_arithmetic", *FAKE, "--limit", "2", "--num-fewshot", "0", "--output", "r", "--json")
    gen = ("--gen", "temperature=0.7", "--gen", "repeats=3", "--gen", "max_new_tokens=5", "--gen", "stop=[x]")
    row = parsed(evalkit(*words, *gen))["results"]["starter_arithmetic"]
    assert {
        "exact_match,last-number",
        "exact_match,last-number-maj@3",
        "pass@1,last-number",
        "pass@3,last-number",
    } <= set(row)
    sample = json.loads(
        (tmp_path / "r" / "samples_starter_arithmetic.jsonl").read_text(encoding="utf-8").split("\n")[0]
    )
    assert len(sample["arguments"]) == len(sample["resps"]) == 3
    assert sample["arguments"][0][1] == {"until": ["x"], "max_gen_toks": 5, "temperature": 0.7, "do_sample": True}
    assert len({text for (text,) in sample["resps"]}) > 1


def test_a_system_prompt_and_turns(evalkit: Evalkit, tmp_path: Path) -> None:
    """Examples are turns of their own with a chat template, unless told otherwise."""
    words = ("run", "starter_questions", *FAKE, "--limit", "1", "--num-fewshot", "1", "--system-prompt", "Be brief.")
    prompts = {}
    for name, more in {"turns": (), "single": ("--no-fewshot-as-multiturn",)}.items():
        parsed(evalkit(*words, "--apply-chat-template", *more, "--output", name, "--json"))
        row = (tmp_path / name / "samples_starter_questions.jsonl").read_text(encoding="utf-8").split("\n")[0]
        prompts[name] = json.loads(row)["arguments"][0][0]
    assert all("Be brief." in prompt for prompt in prompts.values())
    assert [prompt.count("user") for prompt in prompts.values()] == [2, 1]


def test_runs_and_show(evalkit: Evalkit) -> None:
    """`evalkit runs` lists a finished run, `evalkit show` repeats its results."""
    found = parsed(evalkit(*STARTER, "--json"))
    listed = parsed(evalkit("runs", "--json"))
    assert [row["state"] for row in listed] == ["finished"]
    assert parsed(evalkit("show", listed[0]["run"], "--json"))["results"]["results"] == found["results"]
    assert "acc_norm" in evalkit("show", "latest").stdout
    assert listed[0]["run"] in evalkit("runs").stdout


def test_finished_run_resumes_at_once(evalkit: Evalkit) -> None:
    """Resuming a finished run asks nothing and shows the same."""
    found = parsed(evalkit(*STARTER, "--json", "--output", "mine"))
    again = parsed(evalkit("resume", "mine", "--json"))
    assert again["results"] == found["results"]
    assert again["tokens"] == found["tokens"]


def test_existing_run_is_not_overwritten(evalkit: Evalkit) -> None:
    """A second run into the same folder is refused."""
    parsed(evalkit(*STARTER, "--json", "--output", "mine"))
    done = evalkit(*STARTER, "--output", "mine")
    assert done.returncode == 2
    assert "already holds a run" in done.stderr


def test_second_process_on_a_run_folder_is_refused(evalkit: Evalkit, tmp_path: Path) -> None:
    """While one process writes to a run, another cannot resume it."""
    words = [*STARTER, "--engine-arg", "delay=0.3", "--engine-arg", "batch_tokens=1", "--output", "mine"]
    command = [sys.executable, "-m", "evalkit", *words]
    with subprocess.Popen(command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.DEVNULL) as first:
        while not (tmp_path / "mine" / "journal.sqlite").exists():
            assert first.poll() is None
        done = evalkit("resume", "mine")
        first.kill()
    assert done.returncode == 2
    assert "another process is writing to mine" in done.stderr


def test_failed_requests_are_reported_and_retried(evalkit: Evalkit, tmp_path: Path, docs: Callable[..., str]) -> None:
    """A request that fails alone is no wrong answer: it is counted, status 1, and resume asks it again."""
    docs({"question": "good", "answer": 1, "choices": []}, {"question": "bad", "answer": 1, "choices": []})
    words = ("run", "quiz:WRITE", *FAKE, "--engine-arg", "fail_on=bad", "--output", "mine", "--json")
    done = evalkit(*words, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert json.loads(done.stdout)["errors"] == 1
    assert "evalkit resume mine" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "mine" / "samples_write.jsonl").read_text().split("\n")[:-1]]
    assert ["error" in row for row in rows] == [False, True]
    manifest = tmp_path / "mine" / "run.json"
    manifest.write_text(manifest.read_text().replace('"fail_on": "bad"', '"fail_on": "worse"'))
    again = evalkit("resume", "mine", "--json", PYTHONPATH=str(tmp_path))
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["errors"] == 0


def test_progress_bar_on_a_terminal(tmp_path: Path) -> None:
    """On a terminal a bar shows what is done, the rate and the time left."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "evalkit", *STARTER, "--engine-arg", "delay=0.02"]
    environment = clean_environment(TERM="xterm")
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=slave) as process:
        os.close(slave)
        shown = b"".join(iter(lambda: read_terminal(master), b"")).decode()
    os.close(master)
    assert process.returncode == 0
    assert "loglikelihood" in shown
    assert "/s" in shown


def read_terminal(descriptor: int) -> bytes:
    """What the terminal shows next; nothing once the program has ended."""
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux reports a closed terminal as an error
        return b""


def test_plugin_commands_are_part_of_the_command_line(evalkit: Evalkit, plugin: Callable[[str, str], Path]) -> None:
    """A command that a plugin registers runs like the core's own."""
    source = (
        "from evalkit import hookimpl\n"
        "@hookimpl\n"
        "def register_commands(app):\n"
        "    @app.command('greet')\n"
        "    def greet(): print('hello')\n"
        "    @app.command('leave')\n"
        "    def leave(): pass\n"
    )
    done = evalkit("greet", PYTHONPATH=str(plugin("greeter", source)))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "hello\n"


def test_unexpected_errors_keep_their_traceback(evalkit: Evalkit, plugin: Callable[[str, str], Path]) -> None:
    """A bug is not dressed up as bad input."""
    source = (
        "from evalkit import hookimpl\n"
        "@hookimpl\n"
        "def sample_scored(run, sample):\n"
        "    raise ZeroDivisionError('a bug')\n"
    )
    done = evalkit(*STARTER, PYTHONPATH=str(plugin("buggy", source)))
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError: a bug" in done.stderr
