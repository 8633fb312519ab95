"""A GGUF file with another header or other tensors: what an engine must refuse is tested on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def changed_gguf(
    source: Path, target: Path, values: Mapping[str, Any], *, tensors: Mapping[str, NDArray[np.float32]] | None = None
) -> Path:
    """Copy a file, with other or further values in its header (None drops one) and further tensors."""
    from gguf import GGUFReader, GGUFWriter

    reader = GGUFReader(source)
    kept = {
        name: (field.contents(), *field.types)
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.") and name not in values
    }
    architecture, *_ = kept.pop("general.architecture")
    writer = GGUFWriter(target, architecture)
    for name, (value, kind, *inner) in kept.items():
        writer.add_key_value(name, value, kind, inner[-1] if inner else None)
    for name, value in values.items():
        if value is not None:
            _add(writer, name, value)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    for name, weight in (tensors or {}).items():
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _add(writer: Any, name: str, value: Any) -> None:
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    add[type(value)](name, value)
