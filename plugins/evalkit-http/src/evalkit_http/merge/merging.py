"""`merge`: one call from a sharded checkpoint to a model folder, which is there whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evalkit.errors import ConfigError, DiskFullError, EvalkitError, MissingDependencyError, RunLockedError
from evalkit_http.merge.layout import Checkpoint, find_checkpoint
from evalkit_http.merge.writer import MAX_SHARD_BYTES, Entry, total_bytes, write_model

RECORD = "merge.json"
"""Written last: what the folder was merged from."""
OUTPUT_HEAD = "lm_head.weight"
EMBEDDING = re.compile(r"embed|wte")
Progress = Callable[[int, int], None]


def merge(
    checkpoint_path: str | Path,
    output_path: str | Path | None = None,
    checkpoint_type: str = "regular",
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    on_progress: Progress | None = None,
) -> Path:
    """Merge an FSDP2 checkpoint; returns the folder. Raises EvalkitError where shards are missing, damaged or unfit.

    Tensors keep their dtype, tied weights are stored once, configuration, tokenizer and processor come along. Asked
    again for the same shards it finds the work done.
    """
    checkpoint = find_checkpoint(Path(checkpoint_path), checkpoint_type)
    output = Path(output_path) if output_path else checkpoint.default_output
    record = _record(checkpoint)
    if _is_done(output, record):
        return output
    others = checkpoint.other_files()
    with _folder_to_be(output) as folder:
        _write(checkpoint, others, folder, max_shard_bytes, on_progress)
        (folder / RECORD).write_text(json.dumps(record, indent=2), encoding="utf-8")
    return output


def is_merged(checkpoint_path: str | Path, output_path: str | Path, checkpoint_type: str = "regular") -> bool:
    """Whether `output_path` is what `merge` makes of the checkpoint as it is now."""
    try:
        return _is_done(Path(output_path), _record(find_checkpoint(Path(checkpoint_path), checkpoint_type)))
    except EvalkitError:
        return False


def _write(
    checkpoint: Checkpoint, others: list[Path], folder: Path, max_shard_bytes: int, on_progress: Progress | None
) -> None:
    try:
        from evalkit_http.merge.shards import Shards

        shards = Shards(checkpoint.shards)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"merging needs {error.name}. Install it with: pip install evalkit-http[merge]"
        ) from error
    for path in others:
        shutil.copyfile(path, folder / path.name)
    entries = _entries(shards, _is_tied(folder / "config.json"))
    free = shutil.disk_usage(folder).free
    if total_bytes(entries) > free:
        raise DiskFullError(
            f"the merged model needs {total_bytes(entries)} bytes and {folder.parent} has {free}. Free some space"
        )
    done = 0

    def load(name: str) -> Any:
        nonlocal done
        done += 1
        if on_progress:
            on_progress(done, len(entries))
        return shards.whole(name)

    write_model(folder, entries, load, max_shard_bytes=max_shard_bytes)


def _entries(shards: Any, tied: bool) -> dict[str, Entry]:
    """What is written: every tensor, of tied ones the first."""
    kept: dict[str, Entry] = {}
    places: set[Any] = set()
    for name in shards.names:
        place = shards.place(name)
        if tied and (place in places or _is_copy_of_embedding(name, kept, shards)):
            continue
        kept[name] = (shards.dtype(name), shards.shape(name))
        if place is not None:
            places.add(place)
    return kept


def _is_copy_of_embedding(name: str, kept: dict[str, Entry], shards: Any) -> bool:
    """Whether `name` is the tied head that was saved a second time, with storage of its own."""
    if not name.endswith(OUTPUT_HEAD):
        return False
    entry = (shards.dtype(name), shards.shape(name))
    names = (other for other in kept if EMBEDDING.search(other) and kept[other] == entry)
    embedding = next(names, None)
    return embedding is not None and shards.same(name, embedding)


def _is_tied(config: Path) -> bool:
    """Whether loading ties weights again; where the configuration says nothing it does."""
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{config.name} of the checkpoint is no JSON. Save the configuration again") from error
    parts = [values, *(part for part in values.values() if isinstance(part, dict))]
    said = [part["tie_word_embeddings"] for part in parts if "tie_word_embeddings" in part]
    return bool(said[0]) if said else True


def _record(checkpoint: Checkpoint) -> dict[str, Any]:
    stats = [path.stat() for path in checkpoint.shards]
    return {
        "checkpoint": str(checkpoint.folder.resolve()),
        "checkpoint_type": checkpoint.kind,
        "shards": [
            [path.name, stat.st_size, stat.st_mtime_ns] for path, stat in zip(checkpoint.shards, stats, strict=True)
        ],
    }


def _is_done(output: Path, record: dict[str, Any]) -> bool:
    """Whether `output` is this merge's result. Raises ConfigError where it is something else."""
    try:
        if json.loads((output / RECORD).read_text(encoding="utf-8")) == record:
            return True
    except (OSError, ValueError):
        pass
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ConfigError(f"{output} exists already and holds something else. Name another output folder")
    return False


@contextmanager
def _folder_to_be(output: Path) -> Iterator[Path]:
    """A folder that becomes `output` in one step when all went well, and vanishes when not."""
    partial = output.parent / f".{output.name}.partial"
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise ConfigError(f"{partial} cannot be made ({os.strerror(error.errno or 0)}). Name another folder") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunLockedError(f"another merge writes to {output}. Wait for it") from error
        _empty(partial)  # of a merge that was killed
        yield partial
        partial.rename(output)
    except OSError as error:
        _remove(partial)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"the disk of {output} is full. Free some space and merge again") from error
        raise ConfigError(
            f"{output} cannot be written ({os.strerror(error.errno or 0)}). Name another folder"
        ) from error
    except RunLockedError:
        raise
    except (EvalkitError, KeyboardInterrupt):
        _remove(partial)
        raise
    finally:
        os.close(lock)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
