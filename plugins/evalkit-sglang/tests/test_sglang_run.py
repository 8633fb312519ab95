"""Whole commands: over the stand-in, and where there is no GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DOUBLE = Path(__file__).parent / "double"
ENGINE = "evalkit_sglang.engine:SGLang"


def evalkit(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command with the stand-in on the path, and an empty home."""
    paths = os.pathsep.join([str(DOUBLE), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {**os.environ, "PYTHONPATH": paths, "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "evalkit", *words]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)


def test_a_run_over_the_stand_in(tmp_path: Path, model_path: Path) -> None:
    """Scoring and generation; what is described of the engine is in the run."""
    pytest.importorskip("evalkit_tasks_starter", reason="needs evalkit-tasks-starter")
    done = evalkit(
        tmp_path,
        *("run", "starter", "--engine", ENGINE, "--model", str(model_path), "--limit", "3", "--output", "run"),
        *("--engine-arg", "device=cpu", "--engine-arg", "context_length=600"),
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert results["tokens"]["computed"] >= results["tokens"]["unique"] > 0
    described = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert "behind cached prefixes" in json.dumps(described)


def test_without_a_gpu_a_run_ends_in_one_line(tmp_path: Path, model_path: Path) -> None:
    """Exit status 2, the cause and the next step, and no folder is left."""
    done = evalkit(tmp_path, "run", "starter", "--engine", ENGINE, "--model", str(model_path), "--output", "run")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "needs a GPU" in done.stderr or "evalkit env create sglang" in done.stderr
    assert not (tmp_path / "run").exists()
