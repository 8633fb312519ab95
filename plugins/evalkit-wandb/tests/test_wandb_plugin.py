"""Runs reach wandb itself, offline; a store that cannot be written loses no run."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from evalkit.testing.trackers import Seen, TrackerTests

pytest.importorskip("wandb", reason="wandb is not installed")
pytest.importorskip("evalkit_tasks_starter", reason="evalkit-tasks-starter is not installed")
BLOCK = 32 * 1024
FULL, LAST = 1, 4


class TestWandb(TrackerTests):
    """Offline, each attempt is a file; those with the same id become one run once they are synchronised."""

    variable: ClassVar[str] = "EVALKIT_WANDB"
    broken: ClassVar[dict[str, str]] = {"WANDB_MODE": "nonsense"}

    def store(self, folder: Path) -> dict[str, str]:
        """Variables with which wandb keeps to a folder."""
        return {"WANDB_MODE": "offline", "WANDB_DIR": str(folder), "WANDB_CACHE_DIR": str(folder / "wandb")}

    def seen(self, folder: Path, project: str) -> list[Seen]:
        """What is in wandb's own files, by the id of the run."""
        found: dict[str, Seen] = {}
        for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
            records = list(_records(file.read_bytes()))
            run = next((record.run for record in records if record.WhichOneof("record_type") == "run"), None)
            if run is not None and run.project == project:
                seen = found.setdefault(run.run_id, Seen(run.display_name, {}, {}))
                _add(seen, run, records)
        return list(found.values())


def _add(seen: Seen, run: Any, records: list[Any]) -> None:
    seen.parameters.update((item.key, json.loads(item.value_json)) for item in run.config.update)
    for record in records:
        for item in record.history.item if record.WhichOneof("record_type") == "history" else ():
            seen.metrics[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    if any(b"results.json" in record.SerializeToString() for record in records):
        seen.files.append("results.json")


def _records(data: bytes) -> Iterator[Any]:
    """What wandb wrote to an offline file, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    text = b""
    for kind, part in _chunks(data):
        text += part
        if kind in (FULL, LAST):
            yield Record.FromString(text)
            text = b""


def _chunks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The kind and payload of each whole chunk of a file in LevelDB's log format, behind wandb's own 7 bytes."""
    place = 7
    while place + 7 <= len(data):
        left = BLOCK - place % BLOCK
        if left < 7:  # too short for a header: padding at the end of a block
            place += left
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        if place + 7 + size > len(data):  # a writer that was killed
            return
        yield kind, data[place + 7 : place + 7 + size]
        place += 7 + size
