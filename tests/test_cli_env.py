"""`evalkit env`: environments are made whole or not at all, by real pip from real wheels, and engines run in them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from environment_home import Home, make_home

from evalkit.environments import find_environment
from evalkit.environments.installer import find_uv
from evalkit.isolation.engine import IsolatedEngine
from evalkit.model import Model
from evalkit.requests import LoglikelihoodRequest
from evalkit.testing.waiting import eventually

ASKED = [LoglikelihoodRequest("Two and two is", f" {word}") for word in ("four", "five", "a number")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """An evalkit that was installed from a wheel."""
    return make_home(tmp_path_factory.mktemp("installed"))


@pytest.fixture
def home(installed: Home, tmp_path: Path) -> Home:
    """The same with environments of this test's own."""
    return installed.at(tmp_path)


@pytest.fixture(scope="module")
def made(installed: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One that has an environment for the engine `tiny`, which two processes were asked to make at once."""
    home = installed.at(tmp_path_factory.mktemp("made"))
    wheel = home.engine()
    both = [home.start("create", "tiny", "--from", wheel, "--json") for _ in range(2)]
    answers = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    home.folder.joinpath("answers.json").write_text(json.dumps([json.loads(out) for out, _ in answers]))
    return home


def answer(done: subprocess.CompletedProcess[str], status: int = 0) -> Any:
    """The JSON that a command printed."""
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Assert status 2, and a last line that holds `parts`."""
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    for part in parts:
        assert part in done.stderr.splitlines()[-1]


def test_two_at_once_make_it_once(made: Home) -> None:
    """Of two processes that make one environment one waits for the other, and both get the same."""
    first, second = json.loads((made.folder / "answers.json").read_text())
    assert sorted([first.pop("made"), second.pop("made")]) == [False, True]
    assert first == second
    assert len(list(made.environments.glob("tiny/venv-*"))) == 1


def test_it_is_listed_and_works(made: Home) -> None:
    """It is listed with what it holds, its file says what is installed, and its engine loads."""
    (row,) = answer(made.run("list", "--json"))["environments"]
    assert (row["name"], row["distribution_version"], row["library_version"]) == ("tiny", "1.0", "1.0")
    assert [spec["name"] for spec in row["engines"]] == ["tiny", "tiny-slow"]
    assert any(line.startswith("evalkit-tiny") for line in row["requirements"])
    assert "evalkit-tiny 1.0" in made.run("list").stdout
    (verdict,) = answer(made.run("verify", "--json"))
    assert (verdict["works"], verdict["device"], verdict["next"]) == (True, "an abacus", None)
    assert verdict["versions"]["evalkit-tiny"] == "1.0"
    listed = subprocess.run(
        [sys.executable, "-m", "evalkit", "list-engines", "--json"],
        env=made.variables(),
        capture_output=True,
        text=True,
    )
    engines = {row["name"]: row for row in answer(listed)}
    assert (engines["tiny"]["environment"], engines["tiny"]["formats"]) == ("tiny", ["gguf"])
    shown = made.run("verify", "tiny").stdout
    assert "tiny: works" in shown
    assert "an abacus" in shown


def test_its_engine_answers(made: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without the engine finds its environment and evaluates in it, whatever EVALKIT_PLUGINS says here."""
    monkeypatch.setenv("EVALKIT_ENVS", str(made.environments))
    monkeypatch.setenv("EVALKIT_CACHE_DIR", str(made.folder / "cache"))
    monkeypatch.setenv("EVALKIT_PLUGINS", "not-in-there")
    found = find_environment("tiny-slow")
    assert found is not None
    assert (found.engine, found.spec.name, found.name) == ("tiny-slow", "tiny-slow", "tiny")
    engine = IsolatedEngine("tiny-slow", {}, found.python, found.child_variables())
    with engine.build(Model("any")) as session:
        assert [output.token_count for output in session.loglikelihood(ASKED)] == [5, 5, 9]


def test_a_run_finds_the_environment_of_its_engine(made: Home, tmp_path: Path) -> None:
    """An engine that only an environment has runs there, isolated, with its options; scores are those of the engine."""
    (tmp_path / "sums.jsonl").write_text('{"q": "Two and two is", "a": ["four", "five"]}\n', encoding="utf-8")
    task = tmp_path / "sums.yaml"
    task.write_text(
        "task: sums\nkind: multiple_choice\ndataset: {files: {test: sums.jsonl}}\ntest_split: test\n"
        "prompt: '{{q}}'\nchoices: a\ngold: '0'\nmetrics: [acc, acc_norm]\n",
        encoding="utf-8",
    )
    common = (task, "--model", "any", "--json", "--output")
    here = made.run(*common, tmp_path / "a", "--engine", "evalkit.testing.fake:Fake", command="run")
    there = made.run(*common, tmp_path / "b", "--engine", "tiny", "--engine-arg", "delay=0.01", command="run")
    assert answer(there)["results"] == answer(here)["results"]
    engine = json.loads((tmp_path / "b" / "results.json").read_text(encoding="utf-8"))["engine"]
    assert (engine["isolated"], engine["delay"]) == (True, 0.01)
    named = made.run(*common, tmp_path / "c", "--engine", "tiny-slow", "--env", "tiny", command="run")
    assert answer(named)["results"] == answer(here)["results"]
    refused(
        made.run(*common, tmp_path / "d", "--engine", "tiny", "--engine-arg", "no=1", command="run"), "no option 'no'"
    )
    refused(made.run(*common, tmp_path / "d", "--engine", "tinny", command="run"), "unknown engine 'tinny'")
    refused(
        made.run(*common, tmp_path / "d", "--engine", "tiny", "--env", "none", command="run"), "no environment 'none'"
    )
    assert not (tmp_path / "d").exists()


def test_site_environments_are_read_only(made: Home, home: Home) -> None:
    """Those of a folder that is not the first are used and never changed."""
    both = {"EVALKIT_ENVS": f"{home.environments}{os.pathsep}{made.environments}"}
    (row,) = answer(home.run("list", "--json", **both))["environments"]
    assert row["read_only"]
    assert "(read-only)" in home.run("list", **both).stdout
    assert answer(home.run("verify", "tiny", "--json", **both))[0]["works"]
    for command in ("update", "remove"):
        refused(home.run(command, "tiny", **both), "read-only", "--name")


def test_what_is_used_is_kept(made: Home) -> None:
    """An environment in which a process runs is not removed, unless that is said."""
    python = next(made.environments.glob("tiny/venv-*/bin/python"))
    with subprocess.Popen([str(python), "-c", "input()"], stdin=subprocess.PIPE) as process:
        eventually(lambda: str(python).encode() in Path(f"/proc/{process.pid}/cmdline").read_bytes())
        refused(made.run("remove", "tiny"), f"process {process.pid}", "--yes")
        process.kill()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_one_leaves_nothing(home: Home, number: signal.Signals, status: int) -> None:
    """Ended in the middle, nothing counts as made; but for SIGKILL, nothing is left either."""
    with home.start("create", "tiny", "--from", home.engine()) as process:
        eventually(lambda: list(home.environments.glob("tiny/venv-*/bin/python")))
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == status
    assert answer(home.run("list", "--json")) == {"environments": [], "variables": []}
    left = [path.name for path in home.environments.iterdir() if not path.name.startswith(".")]
    assert left == (["tiny"] if number == signal.SIGKILL else [])


def test_a_half_made_one_is_replaced(home: Home) -> None:
    """What a killed process left is swept away by the next one that makes the environment."""
    remains = home.environments / "tiny" / "venv-dead" / "bin"
    remains.mkdir(parents=True)
    assert answer(home.run("create", "tiny", "--from", home.engine(), "--json"))["made"]
    assert not remains.exists()
    assert answer(home.run("remove", "tiny", "--json")) == {"removed": str(home.environments / "tiny")}
    assert answer(home.run("list", "--json"))["environments"] == []


def test_an_update_that_fails_changes_nothing(home: Home) -> None:
    """The old environment stays until the new one works, and then goes."""
    wheel = home.engine()
    before = answer(home.run("create", "tiny", "--from", wheel, "--json"))
    home.engine(engine="import no_such_library\n")
    refused(home.run("update", "tiny"), "does not work", "no_such_library", "log")
    assert answer(home.run("verify", "tiny", "--json"))[0]["works"]
    home.engine(engine="from evalkit.testing.fake import Fake as Tiny\n\ndevice = lambda: 'a slide rule'\n")
    after = answer(home.run("update", "tiny", "--json"))
    assert after["interpreter"] != before["interpreter"]
    assert len(list(home.environments.glob("tiny/venv-*"))) == 1
    assert answer(home.run("verify", "tiny", "--json"))[0]["device"] == "a slide rule"
    shutil.rmtree(next(home.environments.glob("tiny/venv-*/lib/python*/site-packages/evalkit_tiny")))
    (verdict,) = answer(home.run("verify", "--json"), status=1)
    assert verdict["next"] == "evalkit env update tiny"
    assert "tiny: does not work" in home.run("verify").stdout


@pytest.mark.parametrize(
    ("recipe", "words", "parts"),
    [
        ("", ("--python", "3.1"), ("3.1", "--python")),
        ("", ("--python", "/no/such/python"), ("/no/such/python", "--python")),
        ("", ("--variant", "cuda"), ("'cuda'", "--variant")),
        ("", ("--name", "../up"), ("'../up'", "--name")),
        ("", ("--constraint", "none.txt"), ("none.txt", "--constraint")),
        ("pythons = ['3.99']\n", (), ("Python 3.99", "--python")),
        ("pythons = ['3.99']\n", ("--python", "3.98"), ("Python 3.98", "3.99")),
        ("[variants.cpu.programs]\nnosuchprogram = 'apt install it'\n", (), ("nosuchprogram", "apt install it")),
        ("[variants.cpu]\nrequirements = ['evalkit-none']\n", (), ("evalkit-none", "The whole log")),
        ("typo = 1\n", (), ("environment.toml", "'typo'")),
        ("[[[\n", (), ("environment.toml",)),
    ],
)
def test_what_cannot_be_made_is_refused(
    home: Home, recipe: str, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    """One line says what is wrong and what to do, and nothing is left."""
    refused(home.run("create", "tiny", "--from", home.engine(recipe=recipe), *words), *parts)
    assert not list(home.environments.glob("[!.]*"))


def test_a_package_without_the_engine_is_refused(home: Home) -> None:
    """A package must register the engine that was asked for."""
    refused(home.run("create", "other", "--from", home.engine()), "unknown engine 'other'", "Nothing of it was kept")
    assert not list(home.environments.glob("[!.]*"))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("create", "tiny", "--from", "./none.whl"), ("./none.whl", "--from")),
        (("create", "tiny", "--from", "damaged.whl"), ("damaged.whl cannot be read", "--from")),
        (("create", "tiny", "--from", "."), ("pyproject.toml", "--from")),
        (("create", "ti ny", "--name", "tiny"), ("'ti ny'", "list-engines")),
        (("create", "nosuch"), ("evalkit-nosuch", "--from")),
        (("verify", "tiny"), ("no environment 'tiny'", "evalkit env create tiny")),
        (("remove", "tiny"), ("no environment 'tiny'",)),
        (("update", "tiny"), ("no environment 'tiny'",)),
    ],
)
def test_bad_names_are_refused(home: Home, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    """What is not there is named, with the next step."""
    (home.folder / "damaged.whl").write_bytes(b"PK no wheel")
    refused(home.run(*words), *parts)


def test_versions_side_by_side(home: Home) -> None:
    """A version is a requirement, and part of the name."""
    row = answer(home.run("create", "tiny", "--from", home.engine(), "--version", "1.0", "--dry-run", "--json"))
    assert row["name"] == "tiny-1.0"
    assert "evalkit-tiny==1.0" in row["install"]
    assert not list(home.environments.glob("[!.]*"))


def test_uv_makes_it_too(home: Home) -> None:
    """Where uv is installed it does the work; where it cannot find a package, pip is asked."""
    if find_uv() is None:
        pytest.skip("needs uv")
    lonely = home.engine(recipe="[variants.cpu]\nno_deps = ['evalkit-other']\n")
    links = home.folder / "links"
    links.mkdir()
    home.engine("other").rename(links / "evalkit_other-1.0-py3-none-any.whl")
    # uv does not know pip's settings.
    pip = {"EVALKIT_UV": "1", "UV_OFFLINE": "1", "PIP_FIND_LINKS": str(links)}
    done = home.run("create", "tiny", "--from", lonely, **pip)
    assert done.returncode == 0, done.stderr
    assert "installing evalkit-other with pip, because uv could not" in done.stderr
    assert answer(home.run("verify", "tiny", "--json"))[0]["works"]
