"""Write safetensors files one tensor at a time: the memory needed is the largest tensor's, not the model's.

The format: https://huggingface.co/docs/safetensors (a length, a JSON header with offsets, the bytes).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evalkit.errors import ModelError

GIB = 2**30
MAX_SHARD_BYTES = 5 * GIB
DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
Entry = tuple[Any, tuple[int, ...]]
"""A tensor's dtype and shape."""


def total_bytes(entries: Mapping[str, Entry]) -> int:
    """The size of all tensors."""
    return sum(_size(entry) for entry in entries.values())


def write_model(
    folder: Path, entries: Mapping[str, Entry], load: Callable[[str], Any], *, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write model.safetensors, or numbered files and their index; `load(name)` gives a contiguous CPU tensor."""
    files = _split(entries, max_shard_bytes)
    if len(files) == 1:
        _write_file(folder / "model.safetensors", files[0], load)
        return
    names = [f"model-{number:05}-of-{len(files):05}.safetensors" for number in range(1, len(files) + 1)]
    for name, part in zip(names, files, strict=True):
        _write_file(folder / name, part, load)
    index = {
        "metadata": {"total_size": total_bytes(entries)},
        "weight_map": {tensor: name for name, part in zip(names, files, strict=True) for tensor in part},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def _split(entries: Mapping[str, Entry], limit: int) -> list[dict[str, Entry]]:
    files: list[dict[str, Entry]] = [{}]
    for name, entry in entries.items():
        if files[-1] and total_bytes(files[-1]) + _size(entry) > limit:
            files.append({})
        files[-1][name] = entry
    return files


def _write_file(path: Path, entries: Mapping[str, Entry], load: Callable[[str], Any]) -> None:
    import torch

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, entry in entries.items():
        start, end = end, end + _size(entry)
        header[name] = {"dtype": _code(entry[0], name), "shape": list(entry[1]), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    # The data begins at a multiple of eight, so that it can be mapped into memory.
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in entries:
            file.write(load(name).reshape(-1).view(torch.uint8).numpy())
        file.flush()
        os.fsync(file.fileno())


def _size(entry: Entry) -> int:
    dtype, shape = entry
    return int(math.prod(shape)) * int(dtype.itemsize)


def _code(dtype: Any, name: str) -> str:
    code = DTYPES.get(str(dtype).removeprefix("torch."))
    if code is None:
        raise ModelError(f"{name} is of dtype {dtype}, which safetensors does not have. Convert it before saving")
    return code
