"""Tell a checkpoint that is complete from one that is still being written."""

from __future__ import annotations

import json
import struct
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

TEMPORARY_SUFFIXES = (".tmp", ".temp", ".part", ".partial", ".incomplete", ".lock", ".writing")
TEMPORARY_PREFIXES = ("tmp", ".tmp", ".~")
WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".xml")
CONFIGS = ("config.json", "adapter_config.json")
LARGEST_HEADER = 100 * 2**20
GGUF = b"GGUF"
Signature = tuple[tuple[str, int, int], ...]


def missing(path: Path) -> str | None:
    """What a local model lacks to be complete, in words; None where nothing is missing that one could see."""
    if not path.exists():
        return f"{path.name} does not exist yet"
    if path.is_file():
        return _unfinished(path)
    files = list(_files(path))
    for file in files:
        if _is_temporary(file.relative_to(path)):
            return f"{file.name} is still being written"
    if not any(file.name in CONFIGS or file.suffix == ".gguf" for file in files):
        return "config.json is missing"
    if not any(file.suffix in WEIGHTS for file in files):
        return "there are no weights yet"
    return next(filter(None, (*map(_missing_shard, path.glob("*.index.json")), *map(_unfinished, files))), None)


@dataclass(slots=True)
class Watch:
    """Looks at checkpoints from time to time: one is ready once it is complete and has not changed for `settle` s."""

    settle: float
    _seen: dict[Path, tuple[Signature, float]] = field(default_factory=dict)
    _since: dict[Path, float] = field(default_factory=dict)

    def reason(self, path: Path) -> str | None:
        """Why a checkpoint is not ready; None where it is."""
        self._since.setdefault(path, time.monotonic())
        try:
            lack = missing(path)
            signature = _signature(path)
        except OSError as error:  # a file went away between two looks: somebody writes there
            return f"{path.name} is changing ({error.strerror})"
        if lack is None and (self._at_rest(path, signature) or _age(path) >= self.settle):
            self.forget(path)
            return None
        return lack or f"{path.name} changed less than {self.settle:g} s ago"

    def waited(self, path: Path) -> float:
        """Seconds since the first look."""
        return time.monotonic() - self._since.get(path, time.monotonic())

    def forget(self, path: Path) -> None:
        """The next look is the first."""
        self._seen.pop(path, None)
        self._since.pop(path, None)

    def _at_rest(self, path: Path, signature: Signature) -> bool:
        # The clock of a file server may be another one than ours: what did not change between looks rests, too.
        before, since = self._seen.get(path, ((), 0.0))
        if before != signature:
            since = time.monotonic()
            self._seen[path] = (signature, since)
        return time.monotonic() - since >= self.settle


def _files(path: Path) -> Iterator[Path]:
    return (file for file in sorted(path.rglob("*")) if file.is_file())


def _signature(path: Path) -> Signature:
    files = [path] if path.is_file() else _files(path) if path.exists() else []
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def _age(path: Path) -> float:
    """Seconds since the youngest change. What keeps a file's own times, as copying may, sets its ctime."""
    files = [path] if path.is_file() else [path, *_files(path)]
    return time.time() - max(max(file.stat().st_mtime, file.stat().st_ctime) for file in files)


def _is_temporary(name: Path) -> bool:
    # What the hub's library keeps about its downloads is no part of the checkpoint.
    if name.parts[0] == ".cache":
        return False
    return name.name.endswith(TEMPORARY_SUFFIXES) or any(part.startswith(TEMPORARY_PREFIXES) for part in name.parts)


def _missing_shard(index: Path) -> str | None:
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError):
        return f"{index.name} is not complete"
    gone = sorted(shard for shard in shards if not (index.parent / str(shard)).is_file())
    return f"{gone[0]} is missing" if gone else None


def _unfinished(file: Path) -> str | None:
    """Whether a file of weights ends before its own header says."""
    checks = {".safetensors": _whole_safetensors, ".gguf": _whole_gguf, ".bin": _whole_zip, ".pt": _whole_zip}
    check = checks.get(file.suffix)
    return None if check is None or check(file) else f"{file.name} is not complete"


def _whole_safetensors(file: Path) -> bool:
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        if len(head) < 8:
            return False
        (length,) = struct.unpack("<Q", head)
        if length > min(size - 8, LARGEST_HEADER):
            return False
        try:
            tensors = json.loads(stream.read(length))
            ends = [value["data_offsets"][1] for name, value in tensors.items() if name != "__metadata__"]
        except (ValueError, KeyError, AttributeError, TypeError, IndexError):
            return False
    return bool(size == 8 + length + max(ends, default=0))


def _whole_gguf(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) == GGUF


def _whole_zip(file: Path) -> bool:
    with file.open("rb") as stream:
        is_zip = stream.read(2) == b"PK"
    # Older files of torch are plain pickles, whose end cannot be told without reading all.
    return zipfile.is_zipfile(file) if is_zip else file.stat().st_size > 0
