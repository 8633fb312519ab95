"""Jobs on a real checkpoint and real engines, submitted while the checkpoint is still being copied."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalkit.plugins import get_plugins
from evalkit.runner import evaluate
from evalkit.testing.tiny import tiny_llama

TASKS = ["starter_questions", "starter_arithmetic"]


@pytest.mark.parametrize("engine", ["transformers", "llamacpp"])
def test_a_checkpoint_is_evaluated_as_evalkit_run_does(engine: str, serve: Callable[..., Any], tmp_path: Path) -> None:
    """The weights arrive last and in pieces; the scores are those of the same run without a server."""
    if engine not in get_plugins().engines:
        pytest.skip(f"evalkit-{engine} is not installed")
    made = tiny_llama(tmp_path / "made", context=2048)
    source = made.hf if engine == "transformers" else made.gguf
    server = serve(checkpoint_settle=1, allow_references=False)
    target = tmp_path / "checkpoints" / source.name
    target.parent.mkdir()
    fields = {"model": engine, "model_args": {"pretrained": str(target), "dtype": "float32"}, "tasks": TASKS}
    if engine == "llamacpp":
        del fields["model_args"]["dtype"]
    id = server.client.evaluate(**fields, limit=4, device="cpu", gen_kwargs="max_gen_toks=4")["job_id"]
    assert "does not exist yet" in server.until(id, lambda job: job["reason"])["reason"]
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors"))
        for weights in source.glob("*.safetensors"):
            part = weights.read_bytes()
            (target / weights.name).write_bytes(part[: len(part) // 2])
            server.until(id, lambda job: "is not complete" in str(job["reason"]))
            (target / weights.name).write_bytes(part)
    else:
        shutil.copyfile(source, target)
    job = server.wait(id)
    assert (job["status"], job["error"]) == ("completed", None)
    arguments = {name: value for name, value in fields["model_args"].items() if name != "pretrained"}
    here = evaluate(
        TASKS,
        engine=engine,
        model=str(source),
        model_args=arguments,
        engine_args={"device": "cpu"},
        limit=4,
        gen={"max_new_tokens": 4},
    )
    assert job["result"]["results"] == here.results
    assert job["devices"] == []
    assert job["attempts"] == 1
