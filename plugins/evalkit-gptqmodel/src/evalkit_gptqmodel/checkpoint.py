"""What a checkpoint's own files say: where it is, and how it is quantized. Needs no GPTQModel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evalkit.errors import ConfigError, ModelError, ModelNotFoundError, one_line
from evalkit.hub import hub_is_reachable
from evalkit.model import Model
from evalkit_gptqmodel.engine import GPTQModel

OWN_FILES = ("quantize_config.json", "quant_config.json")
"""Where older checkpoints have what is in others' config.json."""
WEIGHTS = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.py")


def local_folder(engine: GPTQModel, model: Model) -> Path:
    """The folder of a checkpoint, fetched from the hub where it is not here. Raises ModelNotFoundError, ModelError."""
    path = Path(model.path).expanduser()
    if path.suffix == ".gguf":
        raise ModelError(f"{path} is a GGUF file. Use --engine llamacpp, or give a Hugging Face folder with --model")
    if path.is_dir():
        return path
    if path.exists():
        raise ModelError(f"{path} is a file. Give the folder of a quantized checkpoint with --model")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model.path, revision=model.revision or engine.revision, allow_patterns=WEIGHTS))
    except (OSError, ValueError) as error:
        cause = one_line(error, 200)
        if not hub_is_reachable():
            cause = "it is neither a path, a registered model nor in the hub's cache, and the hub cannot be reached"
        raise ModelNotFoundError(f"model {model.path!r} cannot be loaded: {cause}. Check --model") from error


def quantization(folder: Path) -> dict[str, Any]:
    """How the checkpoint in `folder` says that it is quantized. Raises ModelError where it does not."""
    config = _read(folder / "config.json")
    if config is None:
        raise ModelNotFoundError(f"{folder} has no config.json. Give the folder of a quantized checkpoint with --model")
    found = config.get("quantization_config")
    for name in OWN_FILES:
        found = found or _read(folder / name)
    if not found:
        raise ModelError(
            f"{folder} is not quantized: it has neither a quantization_config nor a quantize_config.json. "
            "Use --engine transformers, or quantize it with GPTQModel first"
        )
    return dict(found)


def check_adapter(path: str, revision: str | None = None) -> None:
    """Refuse an adapter that GPTQModel would apply wrongly. Raises ModelNotFoundError, ModelError."""
    file = Path(path).expanduser() / "adapter_config.json"
    if not Path(path).expanduser().is_dir():
        file = _from_hub(path, revision)
    config = _read(file)
    if config is None:
        raise ModelNotFoundError(f"adapter {path!r} has no adapter_config.json. Check adapter=")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    # GPTQModel adds x @ A @ B as it is.
    if (alpha is not None and alpha != rank) or config.get("use_rslora") or config.get("alpha_pattern"):
        raise ModelError(
            f"adapter {path!r} is to be scaled (r {rank}, lora_alpha {alpha}), and GPTQModel does not scale adapters. "
            "Save it with lora_alpha equal to r, its matrix B multiplied by the scale"
        )
    if config.get("use_dora") or config.get("peft_type", "LORA") != "LORA":
        raise ModelError(f"adapter {path!r} is no plain LoRA, and GPTQModel knows no other kind. Check adapter=")


def _from_hub(path: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        hub_is_reachable()
        return Path(hf_hub_download(path, "adapter_config.json", revision=revision))
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"adapter {path!r} cannot be loaded: {one_line(error, 160)}. Check adapter="
        ) from error


def _read(file: Path) -> dict[str, Any] | None:
    """The content of a JSON file, or None where there is none."""
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {one_line(error, 120)}. Fetch the checkpoint again") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} holds no mapping. Fetch the checkpoint again")
    return content
