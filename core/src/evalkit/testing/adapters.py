"""LoRA adapters for tiny models, in PEFT's layout. Never torch, nor PEFT."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TinyAdapter:
    """An adapter, and the checkpoint that it makes of its base: their scores are equal."""

    adapter: Path
    merged: Path


def tiny_lora(base: Path, folder: Path, *, rank: int = 4, alpha: int = 8, seed: int = 0) -> TinyAdapter:
    """Write a random adapter of the query and value projections of the decoder in `base`, and the merged checkpoint."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    made = TinyAdapter(folder / "adapter", folder / "merged")
    made.adapter.mkdir()
    shutil.copytree(base, made.merged)
    weights = load_file(base / "model.safetensors")
    sides: dict[str, np.ndarray] = {}
    draw = np.random.default_rng(seed)
    for name in (name for name in weights if name.endswith(("q_proj.weight", "v_proj.weight"))):
        wide, narrow = weights[name].shape
        a = draw.normal(0, 0.2, (rank, narrow)).astype(np.float32)
        b = draw.normal(0, 0.2, (wide, rank)).astype(np.float32)
        module = f"base_model.model.{name.removesuffix('.weight')}"
        sides |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
        weights[name] = weights[name] + alpha / rank * (b @ a)
    save_file(weights, made.merged / "model.safetensors", metadata={"format": "pt"})
    save_file(sides, made.adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha, "bias": "none"}
    config |= {"target_modules": ["q_proj", "v_proj"]}
    (made.adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return made
