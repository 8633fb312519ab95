"""Names of models become local paths in a format that the engine reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from evalkit.errors import ModelNotFoundError
from evalkit.model import Model
from evalkit.runs.resolve import portable, resolve_model
from evalkit.runs.spec import make_spec
from evalkit.specs import EngineSpec

if TYPE_CHECKING:
    from conftest import Toy


def test_a_registered_model_comes_in_the_engines_format(toy: Toy) -> None:
    """The first format that both know; a name that nothing provides is left to the hub."""
    path = toy.site.path / "toy_benchmark.py"
    assert resolve_model(Model("toy-model", dtype="x"), EngineSpec("e", "", "")) == Model(str(path), dtype="x")
    with pytest.raises(ModelNotFoundError, match=r"model 'toy-quantized' comes as gguf, but engine 'e' reads hf"):
        resolve_model(Model("toy-quantized"), EngineSpec("e", "", ""))
    for name in ("org/toy-modle", "gpt2"):
        assert resolve_model(Model(name), EngineSpec("e", "", "")) == Model(name)


@pytest.mark.parametrize("name", ["/gone/model", "./gone", "gone.gguf", "a/b/c", "~/gone"])
def test_a_path_that_leads_nowhere_is_no_hub_id(toy: Toy, name: str) -> None:
    """What can only be a file is not looked for on the network."""
    with pytest.raises(ModelNotFoundError, match=r"does not exist. Check --model"):
        resolve_model(Model(name), EngineSpec("e", "", ""))


def test_a_path_that_exists_wins_over_a_name(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local folder is a local folder, whatever is registered; the path becomes absolute."""
    monkeypatch.chdir(toy.path)
    Path("toy-model").mkdir()
    assert resolve_model(Model("toy-model"), EngineSpec("e", "", "")).path == str(toy.path / "toy-model")


@pytest.mark.parametrize("name", ["toy-model", "here", "/models/llama", "a/b/c", "x.gguf", "toy-modle"])
def test_a_remote_engines_model_is_a_name(toy: Toy, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Nothing here is looked up: no file, no registered model, no likely typing error."""
    monkeypatch.chdir(toy.path)
    Path("here").mkdir()
    assert resolve_model(Model(name), EngineSpec("e", "", "", remote=True)) == Model(name)
    spec = make_spec({"tasks": ["toy"], "engine": "e", "model": name})
    assert portable(spec, is_remote=True).model == name
