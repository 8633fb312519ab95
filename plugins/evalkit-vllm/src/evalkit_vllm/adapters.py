"""What vLLM must know of a LoRA adapter before it loads one, read from the adapter's files. Imports no vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evalkit.errors import ModelError, ModelNotFoundError

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of adapters that vLLM can make room for."""
HEAD = "lm_head"


def adapter_arguments(adapter: str, rank: int | None) -> dict[str, Any]:
    """vLLM's arguments for an adapter of at most this rank, by default its own. Raises ModelError."""
    folder = Path(adapter)
    if not folder.is_dir():
        raise ModelNotFoundError(f"adapter {adapter} is no folder. Check --model-arg adapter=")
    names = _module_names(folder / "adapter_model.safetensors")
    if HEAD in names:
        # https://github.com/vllm-project/vllm/issues/51594
        raise ModelError(
            f"adapter {adapter} changes {HEAD}, which vLLM leaves out of prompt log-probabilities: scores would be "
            "wrong. Merge it into the model, or use --engine transformers"
        )
    # Without their names vLLM adapts the head, too, with one row a sequence where prompts have one a token.
    return {"enable_lora": True, "max_lora_rank": rank or _rank(folder), "lora_target_modules": names}


def _rank(folder: Path) -> int:
    """vLLM's least rank that holds the adapter's."""
    try:
        rank = int(json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"adapter {folder} has no adapter_config.json with a rank. Save it with PEFT") from error
    return next((size for size in RANKS if size >= rank), rank)


def _module_names(path: Path) -> list[str]:
    """The kinds of layers that have weights here, such as q_proj."""
    try:
        with path.open("rb") as file:
            # A length of eight bytes, and so much JSON: https://huggingface.co/docs/safetensors
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), path.stat().st_size)))
        tensors = [name.partition(".lora_")[0] for name in header if ".lora_" in name]
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"adapter file {path} is missing or damaged. Save it with PEFT") from error
    return sorted({name.rpartition(".")[2] for name in tensors})
