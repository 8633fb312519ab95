"""A trainer may save, free its memory, evaluate in another process, and go on as if nothing had been."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import evalkit
from evalkit.errors import EvalkitError, RunError
from evalkit.servers.guard import descendants

TEXT = "The river was low that year. Nobody remembered a summer so dry, nor a harvest so early."
STEPS = 6
PROSE = """
from evalkit.tasks import DatasetSpec, Perplexity

PROSE = Perplexity(
    name="prose",
    dataset=DatasetSpec("rows", files={{"test": {rows!r}}}),
    test_split="test",
    text=lambda doc: doc["text"],
)
"""


class Trainer:
    """A small model, its optimizer and its random numbers."""

    def __init__(self, path: Path) -> None:
        torch.manual_seed(0)
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.ids = self.tokenizer(TEXT, return_tensors="pt")["input_ids"]

    def step(self) -> float:
        """One step on tokens of which some are left out at random; its loss."""
        labels = torch.where(torch.rand(self.ids.shape) < 0.1, -100, self.ids)
        loss = self.model(self.ids, labels=labels).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def save(self, folder: Path) -> Path:
        """Write a checkpoint."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return folder

    def offload(self, device: str) -> None:
        """Move everything, as a trainer does between its accelerator and the memory of the machine."""
        self.model.to(device)
        for state in self.optimizer.state.values():
            state.update({k: v.to(device) for k, v in state.items() if torch.is_tensor(v) and v.ndim})


@pytest.fixture
def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Evaluate a checkpoint on one text; the scores."""
    (tmp_path / "rows.jsonl").write_text(f'{{"text": "{TEXT}"}}\n', encoding="utf-8")
    (tmp_path / "prose_task.py").write_text(PROSE.format(rows=str(tmp_path / "rows.jsonl")), encoding="utf-8")
    # Another test may have imported its own.
    monkeypatch.delitem(sys.modules, "prose_task", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("EVALKIT_CACHE_DIR", str(tmp_path / "cache"))

    def run(checkpoint: Path, name: str, **fields: Any) -> dict[str, Any]:
        args = {"dtype": "float32", "device": "cpu"}
        result = evalkit.evaluate(
            ["prose_task:PROSE"],
            engine="transformers",
            engine_args=args,
            model=str(checkpoint),
            output=str(tmp_path / "runs" / name),
            **fields,
        )
        scores = next(iter(result.results.values()))
        return {name: value for name, value in scores.items() if isinstance(value, float)}

    return run


def test_training_goes_on_as_if_nothing_had_been(
    llama_path: Path, tmp_path: Path, evaluated: Callable[..., dict[str, Any]]
) -> None:
    """Losses are those of a training without evaluation; scores are those of the checkpoint; no process is left."""
    before = descendants(os.getpid())
    alone = Trainer(llama_path)
    expected = [alone.step() for _ in range(STEPS)]
    trainer, losses, scores = Trainer(llama_path), [], []
    for number in range(STEPS):
        losses.append(trainer.step())
        if number % 3 == 1:
            checkpoint = trainer.save(tmp_path / f"checkpoint-{number}")
            trainer.offload("cpu")
            scores.append(evaluated(checkpoint, f"step-{number}", isolate=True))
            assert descendants(os.getpid()) - before == set()
            trainer.offload("cpu")
    assert losses == expected
    again = evaluated(tmp_path / "checkpoint-1", "here")
    assert scores[0] == pytest.approx(again, rel=1e-6)
    assert scores[1]["word_perplexity,none"] < scores[0]["word_perplexity,none"]


def test_a_checkpoint_that_cannot_be_loaded_is_an_error_and_no_score(
    llama_path: Path, tmp_path: Path, evaluated: Callable[..., dict[str, Any]]
) -> None:
    """A checkpoint without weights, or one that changed under a run, ends the evaluation and not the training."""
    trainer = Trainer(llama_path)
    broken = trainer.save(tmp_path / "broken")
    (broken / "model.safetensors").unlink()
    with pytest.raises(EvalkitError):
        evaluated(broken, "broken", isolate=True)
    assert not (tmp_path / "runs" / "broken").exists()
    whole = trainer.save(tmp_path / "whole")
    evaluated(whole, "whole", isolate=True)
    run = tmp_path / "runs" / "whole"
    (run / "results.json").unlink()
    trainer.step()
    trainer.save(whole)
    with pytest.raises(RunError, match="changed since"):
        evalkit.resume(run)
