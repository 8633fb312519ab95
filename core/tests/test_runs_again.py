"""A run is repeated from its run.json alone; secrets are never in it, and are asked for."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evalkit.errors import ConfigError, RunError, RunNotFoundError
from evalkit.model import Model
from evalkit.runner import rerun

if TYPE_CHECKING:
    from conftest import Toy

SECRET = "sk-sesame0123456789abcdef"


def _samples(run_dir: str) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in Path(run_dir).glob("samples_*")}


def _change(run: Path, **fields: Any) -> None:
    manifest = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps({**manifest, **fields}), encoding="utf-8")


def test_run_json_alone_is_enough(toy: Toy) -> None:
    """Without any other file the same is asked and answered, sampled texts included, in a folder of its own."""
    first = toy.run(num_fewshot=2, limit=3, seed=7, engine_args={"batch_tokens": 500}, gen={"temperature": 0.5})
    alone = toy.path / "alone"
    alone.mkdir()
    shutil.copy(Path(first.run_dir) / "run.json", alone)
    again = rerun(alone)
    assert again.run_dir not in (first.run_dir, str(alone))
    assert (again.results, again.warnings) == (first.results, ())
    assert _samples(again.run_dir) == _samples(first.run_dir)
    assert [path.name for path in alone.iterdir()] == ["run.json"]


def test_an_unfinished_run_can_be_repeated(toy: Toy) -> None:
    """What was answered before does not matter: everything is asked anew."""
    toy.tape.crash_after = 3
    with pytest.raises(RuntimeError):
        toy.run("toy_target", output=str(toy.path / "broken"))
    toy.tape.crash_after = None
    toy.tape.asked.clear()
    assert rerun(toy.path / "broken", output=str(toy.path / "new")).run_dir == str(toy.path / "new")
    assert len(toy.tape.asked) == 4


def test_changed_prompts_are_noticed(toy: Toy) -> None:
    """The new run says that it is not a repetition; it runs all the same."""
    first = toy.run("toy_target")
    toy.write("test", [{"question": "new", "choices": ["a"], "answer": 0, "text": "T"}])
    (warning,) = rerun(first.run_dir).warnings
    assert "the prompts are not those of" in warning


def test_a_changed_model_is_noticed(toy: Toy) -> None:
    """A local model whose files changed is another model."""
    model = toy.path / "model.bin"
    model.write_bytes(b"one")
    first = toy.run("toy_target", model=str(model))
    assert rerun(first.run_dir).warnings == ()
    model.write_bytes(b"two")
    (warning,) = rerun(first.run_dir).warnings
    assert "the model's files are not those of" in warning


def test_another_version_of_run_json_is_refused(toy: Toy) -> None:
    """A run of a later evalkit is not guessed at."""
    run = Path(toy.run("toy_target").run_dir)
    _change(run, format=2)
    with pytest.raises(RunError, match=r"has format 2, this evalkit reads 1\. Upgrade evalkit"):
        rerun(run)
    spec = json.loads((run / "run.json").read_text(encoding="utf-8"))["spec"]
    _change(run, format=1, spec={**spec, "later": 1})
    with pytest.raises(RunError, match=r"was made by another evalkit: it has a field 'later'\. Upgrade evalkit"):
        rerun(run)


def test_secrets_are_asked_for(toy: Toy) -> None:
    """The message names each option that had one, and the command; given again, they reach the engine."""
    fields: dict[str, Any] = {"engine_args": {"api_key": "sesame"}, "model_args": {"options": {"token": "sesame"}}}
    run = toy.run("toy_target", **fields).run_dir
    step = r"Give them again: evalkit rerun .* --engine-arg api_key=\.\.\. --model-arg options=\.\.\."
    with pytest.raises(ConfigError, match=rf"engine_args\.api_key, model_args\.options\.token\. {step}"):
        rerun(run)
    seen = []
    build = toy.module.Breakable.build

    def watched(engine: Any, model: Model) -> Any:
        seen.append((engine.api_key, model.options))
        return build(engine, model)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(toy.module.Breakable, "build", watched)
        rerun(run, **fields)
    assert seen == [("sesame", {"token": "sesame"})]


def test_no_run_no_rerun(tmp_path: Path) -> None:
    """A folder that holds no run is named."""
    with pytest.raises(RunNotFoundError, match=r"no run at"):
        rerun(tmp_path)


def test_a_secret_in_any_option_stays_out_of_the_run_folder(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted in every option of engine and model that takes a text, and in the environment: no file holds it."""
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DOOR_PASSWORD", "PLAIN", "EVALKIT_X", "USER"):
        monkeypatch.setenv(name, SECRET)
    texts = [f.name for f in dataclasses.fields(Model) if "str" in str(f.type) and f.name not in ("path", "options")]
    engine = {f.name: SECRET for f in dataclasses.fields(toy.module.Breakable) if "str" in str(f.type)}
    options = {"headers": {"X": SECRET}, "list": [SECRET], "address": f"https://me:{SECRET}@host", "kept": 1}
    assert set(engine) == {"fail_on", "api_key"}
    assert {"tokenizer_path", "revision", "dtype", "adapter", "chat_template"} <= set(texts)
    toy.tape.crash_after = 3
    fields: dict[str, Any] = {
        "engine_args": engine,
        "model_args": {**dict.fromkeys(texts, SECRET), "options": options},
        "chat_template_args": {"a": SECRET},
        "model": SECRET,
    }
    with pytest.raises(RuntimeError):
        toy.run(output=str(toy.path / "broken"), **fields)
    toy.tape.crash_after = None
    for run in (toy.path / "broken", Path(toy.run(**fields).run_dir)):
        files = [path for path in run.rglob("*") if path.is_file()]
        assert len(files) >= 3
        assert [path.name for path in files if b"sesame" in path.read_bytes()] == []
        assert json.loads((run / "run.json").read_text(encoding="utf-8"))["spec"]["model_args"]["options"]["kept"] == 1
