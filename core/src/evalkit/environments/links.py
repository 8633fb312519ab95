"""A folder with links to packages of this process, for another Python's path: these, and nothing else from here."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import tempfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from evalkit import __version__
from evalkit.cache import cache_dir

CORE = "evalkit-core"


def linked(distributions: Iterable[str]) -> Path:
    """The folder for `distributions`, made where it is missing. One that is not installed here is left out."""
    found = {name: place for name in distributions if (place := package_of(name)) is not None}
    said = "\n".join(f"{name} {place} {_version(name)}" for name, place in sorted(found.items()))
    folder = cache_dir() / "links" / hashlib.sha256(said.encode()).hexdigest()[:16]
    if not folder.is_dir():
        folder.parent.mkdir(exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix="part-"))
        for name, place in found.items():
            (part / place.name).symlink_to(place)
            _write_metadata(part, name)
        try:
            part.rename(folder)
        except OSError:  # another process was quicker
            shutil.rmtree(part)
    return folder


def package_of(name: str) -> Path | None:
    """Where the code of a distribution lies that has one package or module; None where it is not installed here."""
    module = "evalkit"
    if name != CORE:
        try:
            points = [point.value for point in distribution(name).entry_points if point.group == "evalkit"]
        except PackageNotFoundError:
            return None
        module = points[0].partition(".")[0] if points else name.replace("-", "_")
    found = importlib.util.find_spec(module)
    if found is None:
        return None
    if found.submodule_search_locations:
        return Path(found.submodule_search_locations[0]).resolve()
    return Path(found.origin).resolve() if found.origin else None


def _version(name: str) -> str:
    if name == CORE:
        return __version__
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return "0"


def _write_metadata(folder: Path, name: str) -> None:
    """What makes a plugin one: its name, its version and its entry points."""
    info = folder / f"{name.replace('-', '_')}-{_version(name)}.dist-info"
    info.mkdir()
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {_version(name)}\n"
    (info / "METADATA").write_text(text, encoding="utf-8")
    try:
        points = distribution(name).read_text("entry_points.txt")
    except PackageNotFoundError:
        points = None
    (info / "entry_points.txt").write_text(points or "", encoding="utf-8")
