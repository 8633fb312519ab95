"""The plugin registers a model in two formats and a command that prepares it, and costs nothing until used."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner, Result

from evalkit.errors import ModelNotFoundError
from evalkit.plugins import get_plugins
from evalkit.specs import load_object
from evalkit_smollm2 import checkpoint, gguf, plugin

HEAVY = ("gguf", "numpy", "safetensors", "tokenizers", "typer")


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both formats are there already."""
    monkeypatch.setattr(checkpoint, "hf_checkpoint", lambda: "cache/hf")
    monkeypatch.setattr(gguf, "gguf_file", lambda: "cache/model.gguf")


def _invoke(*arguments: str) -> Result:
    app = typer.Typer()
    # A second command, so that typer does not take the only one for the whole app.
    app.command("other")(lambda: None)
    plugin.register_commands(app)
    return CliRunner().invoke(app, ["smollm2", *arguments])


def test_model_is_registered_in_both_formats() -> None:
    """`--model smollm2-135m` finds a checkpoint for engines that read "hf" and one for those that read "gguf"."""
    spec = get_plugins().models.get("smollm2-135m")
    assert list(spec.formats) == ["hf", "gguf"]
    assert all(callable(load_object(reference)) for reference in spec.formats.values())


def test_registering_imports_nothing_heavy() -> None:
    """Listing models reads no tensor library and no command line library."""
    code = f"import sys, evalkit_smollm2.plugin; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize(
    ("arguments", "path"),
    [((), "cache/hf"), (("--format", "hf"), "cache/hf"), (("--format", "gguf"), "cache/model.gguf")],
)
def test_command_prints_the_path_and_nothing_else(arguments: tuple[str, ...], path: str) -> None:
    """`MODEL=$(evalkit smollm2)` works; the default is the Hugging Face checkpoint."""
    result = _invoke(*arguments)
    assert (result.exit_code, result.output) == (0, f"{path}\n")


@pytest.mark.usefixtures("prepared")
def test_unknown_format_is_a_usage_error() -> None:
    """The message lists the formats that there are."""
    result = _invoke("--format", "onnx")
    assert result.exit_code == 2
    assert "'hf'" in result.output
    assert "'gguf'" in result.output


def test_a_failed_preparation_reaches_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The expected error passes through, so that `evalkit` can print it as one line."""

    def fail() -> str:
        raise ModelNotFoundError("no network")

    monkeypatch.setattr(gguf, "gguf_file", fail)
    assert isinstance(_invoke("--format", "gguf").exception, ModelNotFoundError)
