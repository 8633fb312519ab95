"""The formats of `evalkit export`, and the one function that writes any of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from evalkit.errors import ConfigError, RunError, did_you_mean
from evalkit.exports.samples import Source
from evalkit.specs import load_object

Writer = Callable[[Source, Path], int]
"""Writes a source to a path that nobody reads yet; the number of rows."""


@dataclass(frozen=True, slots=True)
class Format:
    """A file format: what writes it, and the endings of file names that mean it."""

    name: str
    summary: str
    load: str
    endings: tuple[str, ...] = ()
    one_task: bool = False
    """Whether a file holds one task: several become files of a folder."""


FORMATS = {
    found.name: found
    for found in (
        Format("parquet", "a row a sample, typed columns", "evalkit.exports.parquet:write", (".parquet",)),
        Format("csv", "a row a sample", "evalkit.exports.table:write_csv", (".csv",)),
        Format("jsonl", "the sample files of all tasks in one", "evalkit.exports.table:write_jsonl", (".jsonl",)),
        Format("inspect", "eval logs of Inspect", "evalkit.exports.inspect_log:write", (".json",), one_task=True),
        Format("model-card", "metadata of a model card", "evalkit.exports.model_card:write", (".md",)),
    )
}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written; `file` may be a folder, `rows` counts samples, or results in a model card."""

    file: str
    format: str
    rows: int
    bytes: int


def export(run: Path, file: Path, *, to: str | None = None, task: str | None = None, force: bool = False) -> Exported:
    """Write the run in folder `run` to `file`, all of it or of one task; what is written appears whole or not at all.

    `to` names one of FORMATS; by default the ending of `file` says which. Of a format that holds one task a file,
    several tasks become files of the folder `file`. Raises ConfigError, RunError.
    """
    chosen = _chosen(to, file)
    if file.is_file() and not force:
        raise ConfigError(f"{file} exists. Choose another file, or replace it with --force")
    targets = _targets(chosen, Source.open(run, task), file)
    if taken := [path for path in targets if path.exists() and not force]:
        raise ConfigError(f"{taken[0]} exists. Choose another file, or replace it with --force")
    try:
        rows = _write(load_object(chosen.load), targets)
    except OSError as error:
        raise RunError(f"{file} cannot be written ({error.strerror}). Choose another file") from error
    return Exported(str(file), chosen.name, rows, sum(path.stat().st_size for path in targets))


def _targets(chosen: Format, source: Source, file: Path) -> dict[Path, Source]:
    """The files to write, and what goes into each."""
    ending = file.suffix.lower() in chosen.endings
    if not chosen.one_task or (len(source.tasks) == 1 and (ending or not file.is_dir())):
        return {file: source}
    if ending and not file.is_dir():
        raise ConfigError(
            f"{file} would hold one task of {len(source.tasks)}. Choose with --task: {', '.join(source.tasks)}; "
            f"or name a folder for all: --to {chosen.name} {file.stem}"
        )
    return {file / f"{task}{chosen.endings[0]}": replace(source, tasks=(task,)) for task in source.tasks}


def _write(write: Writer, targets: dict[Path, Source]) -> int:
    """Write every file under another name, then let all of them appear; the number of rows."""
    parts = {path: path.with_name(f"{path.name}.part") for path in targets}
    (folder,) = {path.parent for path in targets}
    is_new = not folder.exists() and len(targets) > 1
    try:
        if is_new:
            folder.mkdir()
        rows = sum(write(source, parts[path]) for path, source in targets.items())
        for path, part in parts.items():
            part.replace(path)
    except BaseException:
        for part in parts.values():
            _forget(part)
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise
    return rows


def _chosen(to: str | None, file: Path) -> Format:
    if to is None:
        by_ending = next((f for f in FORMATS.values() if file.suffix.lower() in f.endings), None)
        if by_ending is None:
            raise ConfigError(f"the name {file.name!r} says no format. Say it with: --to {'|'.join(FORMATS)}")
        return by_ending
    if to not in FORMATS:
        raise ConfigError(f"there is no format {to!r}.{did_you_mean(to, FORMATS)} See: evalkit export --help")
    return FORMATS[to]


def _forget(part: Path) -> None:
    # A folder that cannot be written holds no part either.
    if part.is_file():
        part.unlink()
