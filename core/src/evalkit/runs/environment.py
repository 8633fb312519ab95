"""What a run ran on: packages, machine, and the model's fingerprint. Recorded for every attempt."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from evalkit.hooks import hookimpl
from evalkit.runs.context import RunContext

FINGERPRINT_BYTES = 1 << 20


@hookimpl
def run_started(run: RunContext) -> None:
    """Add this attempt to run.json."""
    attempts = [*run.folder.manifest().get("attempts", []), describe_attempt(dict(run.engine))]
    run.folder.update_manifest(attempts=attempts)


def describe_attempt(engine: dict[str, Any]) -> dict[str, Any]:
    """Time, packages, machine and engine of one attempt."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "engine": engine,
        "packages": package_versions(),
        "machine": machine(),
    }


def package_versions() -> dict[str, str]:
    """Versions of evalkit, of its plugins and of what they require directly."""
    from evalkit.plugins import get_plugins

    ours = ["evalkit-core", *(plugin.distribution for plugin in get_plugins().plugins)]
    found: dict[str, str] = {}
    for name in ours:
        for needed in [name, *(_bare(line) for line in _requires(name))]:
            try:
                found[needed] = version(needed)
            except PackageNotFoundError:
                continue
    return dict(sorted(found.items()))


def machine() -> dict[str, Any]:
    """Operating system, processor, cores and Python."""
    return {
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def fingerprint(path: str) -> str | None:
    """A hash that changes with a local model's files: names, sizes, and both ends of each. None for a hub id."""
    root = Path(path)
    if not root.exists():
        return None
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        # Whole files would take minutes for a large model; weights differ in their first or last megabyte.
        with file.open("rb") as stream:
            head = stream.read(FINGERPRINT_BYTES)
            stream.seek(max(0, size - FINGERPRINT_BYTES))
            tail = stream.read()
        digest.update(f"{file.name}\0{size}\0".encode() + head + tail)
    return digest.hexdigest()


def _requires(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []


def _bare(requirement: str) -> str:
    """The name at the start of a requirement line."""
    for index, character in enumerate(requirement):
        if not (character.isalnum() or character in "-_."):
            return requirement[:index]
    return requirement
