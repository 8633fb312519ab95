"""Tell a checkpoint that is complete from one that is still being written."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

TEMPORARY_SUFFIXES = (".tmp", ".temp", ".part", ".partial", ".incomplete", ".lock", ".writing")
TEMPORARY_PREFIXES = ("tmp", ".tmp", ".~")
WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".xml")
CONFIGS = ("config.json", "adapter_config.json")
LARGEST_HEADER = 100 * 2**20
MOST_LOOKS = 32
"""How many looks may hang at a time."""
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


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a checkpoint found; `age` is that of its youngest change in seconds."""

    lack: str | None
    signature: Signature = ()
    age: float = 0.0


@dataclass(slots=True)
class Watch:
    """Looks at jobs' checkpoints: one is ready once it is complete and has not changed for `settle` s.

    Each look has a thread of its own, which may hang for ever with a file server. Used by one event loop.
    """

    settle: float
    patience: float = 2.0
    """Seconds after which a look that has not ended is no longer waited for."""
    _seen: dict[str, tuple[Signature, float]] = field(default_factory=dict)
    _since: dict[str, float] = field(default_factory=dict)
    _looks: dict[str, Future[Look]] = field(default_factory=dict)

    def __contains__(self, job: str) -> bool:
        """Whether the job's checkpoint was looked at and not ready."""
        return job in self._since

    async def reason(self, job: str, path: Path) -> str | None:
        """Why a job's checkpoint is not ready; None where it is."""
        self._since.setdefault(job, time.monotonic())
        found = await self._look(job, path)
        if found is None:
            return f"the folder of {path.name} does not answer"
        if found.lack is None and (self._at_rest(job, found.signature) or found.age >= self.settle):
            self.forget(job)
            return None
        return found.lack or f"{path.name} changed less than {self.settle:g} s ago"

    def waited(self, job: str) -> float:
        """Seconds since the first look."""
        return time.monotonic() - self._since[job] if job in self._since else 0.0

    def forget(self, job: str) -> None:
        """The next look is the first."""
        self._seen.pop(job, None)
        self._since.pop(job, None)
        self._looks.pop(job, None)

    async def _look(self, job: str, path: Path) -> Look | None:
        """What is there; None where no look ends in time, which goes on meanwhile."""
        look = self._looks.get(job)
        if look is None:
            if len(self._looks) >= MOST_LOOKS:
                return None
            look = self._looks[job] = _begin_look(path)
            await asyncio.wait({asyncio.wrap_future(look)}, timeout=self.patience)
        if not look.done():
            return None
        self._looks.pop(job, None)
        return look.result()

    def _at_rest(self, job: str, signature: Signature) -> bool:
        # The clock of a file server may be another one than ours: what did not change between looks rests, too.
        before, since = self._seen.get(job, ((), 0.0))
        if before != signature:
            since = time.monotonic()
            self._seen[job] = (signature, since)
        return time.monotonic() - since >= self.settle


def _begin_look(path: Path) -> Future[Look]:
    future: Future[Look] = Future()

    def look() -> None:
        try:
            future.set_result(_found(path))
        except Exception as error:
            future.set_exception(error)

    # Not one of a pool: a program waits for those before it ends.
    threading.Thread(target=look, daemon=True).start()
    return future


def _found(path: Path) -> Look:
    try:
        lack = missing(path)
        return Look(lack) if lack else Look(None, _signature(path), _age(path))
    except OSError as error:  # a file went away between two looks: somebody writes there
        return Look(f"{path.name} is changing ({error.strerror})")


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
