"""The run folder: created whole or not at all, one writer at a time, files replaced atomically."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from evalkit.errors import DiskFullError, RunError, RunLockedError, RunNotFoundError

MANIFEST, JOURNAL, RESULTS, LOCK = "run.json", "journal.sqlite", "results.json", "run.lock"
NEEDED_BYTES = 32 * 1024 * 1024
FORMAT = 1
ESCAPED = "backslashreplace"
"""What UTF-8 cannot hold, half a surrogate pair, becomes the escape that JSON has for it."""


class RunFolder:
    """Paths and files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / LOCK)
        self._parts: dict[str, IO[str]] = {}

    @property
    def journal_path(self) -> Path:
        """Where the answers are."""
        return self.path / JOURNAL

    @classmethod
    def create(cls, path: Path, manifest: dict[str, Any]) -> RunFolder:
        """A new run folder at `path`, locked. Raises RunError where something is there, DiskFullError."""
        check_disk(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            if (path / MANIFEST).is_file():
                raise RunError(
                    f"{path} already holds a run. Complete it with: evalkit resume {path}, or choose another --output"
                )
            raise RunError(f"{path} is not empty. Choose another --output")
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        folder = cls(path)
        folder.lock()
        folder.write_json(MANIFEST, {"format": FORMAT, **manifest})
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run folder. Raises RunNotFoundError."""
        if not (path / MANIFEST).is_file():
            raise RunNotFoundError(f"no run at {path}. See: evalkit runs")
        return cls(path)

    def lock(self) -> None:
        """Become the folder's one writer. Raises RunLockedError, RunError; a killed process holds no lock."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise RunLockedError(f"another process is writing to {self.path}. Wait for it, or stop it first") from error
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be written ({error.strerror}). Make it writable, or copy it and use the copy"
            ) from error

    @property
    def locked(self) -> bool:
        """Whether some process writes to it now."""
        if self._lock.is_locked:
            return True
        try:
            with FileLock(self.path / LOCK).acquire(timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            # A folder that cannot be written to, a copy on a read-only disk: nobody writes to it from here.
            return False

    def release(self) -> None:
        """Close open files and give up the lock."""
        for part in self._parts.values():
            part.close()
        self._parts.clear()
        self._lock.release()

    def remove(self) -> None:
        """Delete the folder: nothing of value was written to it."""
        self.release()
        shutil.rmtree(self.path, ignore_errors=True)

    def results(self) -> dict[str, Any]:
        """What results.json says. Raises RunError where it is damaged, or the run is not finished."""
        if not (self.path / RESULTS).is_file():
            raise RunError(f"run {self.path} is not finished. Complete it with: evalkit resume {self.path}")
        found = self.read_json(RESULTS)
        if not isinstance(found.get("results"), dict):
            raise RunError(
                f"{self.path / RESULTS} is damaged (it holds no scores). "
                f"Score it again with: evalkit resume {self.path}"
            )
        return found

    def manifest(self) -> dict[str, Any]:
        """What run.json says. Raises RunError where it is damaged."""
        manifest = self.read_json(MANIFEST)
        if manifest.get("format") != FORMAT:
            raise RunError(
                f"{self.path} has format {manifest.get('format')}, this evalkit reads {FORMAT}. Upgrade evalkit"
            )
        parts = (manifest.get("spec", {}), manifest.get("model") or {})
        if not all(isinstance(part, dict) for part in parts):
            raise RunError(f"{self.path / MANIFEST} is damaged (it does not say what was asked). Start the run again")
        return manifest

    def read_json(self, name: str) -> dict[str, Any]:
        """The object in a JSON file. Raises RunError where it is missing or damaged."""
        try:
            value = json.loads((self.path / name).read_text(encoding="utf-8"))
            if not isinstance(value, dict):
                raise ValueError("no object")
        except (OSError, ValueError) as error:
            # The journal holds the answers: results can be made again, what was asked cannot.
            step = f"Score it again with: evalkit resume {self.path}" if name == RESULTS else "Start the run again"
            raise RunError(f"{self.path / name} is damaged ({error}). {step}") from error
        return value

    def update_manifest(self, **fields: Any) -> None:
        """Replace fields of run.json."""
        self.write_json(MANIFEST, {**self.manifest(), **fields})

    def write_json(self, name: str, value: Any) -> None:
        """Replace a JSON file; readers see the old one or the new one."""
        part = self.path / f"{name}.part"
        text = json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
        with disk_errors(self.path):
            part.write_text(text, encoding="utf-8", errors=ESCAPED)
            part.replace(self.path / name)

    def append_line(self, name: str, text: str) -> None:
        """Add a line to a file that appears once `commit` is called."""
        with disk_errors(self.path):
            if name not in self._parts:
                self._parts[name] = (self.path / f"{name}.part").open(
                    "w", encoding="utf-8", errors=ESCAPED, newline="\n"
                )
            self._parts[name].write(text + "\n")

    def commit(self) -> dict[str, Path]:
        """Make the files of `append_line` appear under their names; those files by name."""
        with disk_errors(self.path):
            for name, part in self._parts.items():
                part.close()
                Path(part.name).replace(self.path / name)
        done = {name: self.path / name for name in self._parts}
        self._parts.clear()
        return done


def default_path(label: str, root: Path | None = None) -> Path:
    """A folder name that is not taken: `runs/<time>-<label>`; EVALKIT_RUNS_DIR moves `runs`."""
    root = root or runs_root()
    clean = "".join(c if c.isalnum() or c in "-_." else "-" for c in label)[:80]
    base = f"{time.strftime('%Y%m%d-%H%M%S')}-{clean}"
    names = (base if number == 1 else f"{base}-{number}" for number in range(1, 10_000))
    return next(root / name for name in names if not (root / name).exists())


def runs_root() -> Path:
    """Where runs go by default: EVALKIT_RUNS_DIR, else ./runs."""
    return Path(os.environ.get("EVALKIT_RUNS_DIR", "runs"))


def find_run(name: str) -> Path:
    """The run folder that `name` means: a path, a name under the runs folder, or "latest"."""
    if name == "latest":
        found = list_runs(runs_root())
        if not found:
            raise RunNotFoundError(f"no runs in {runs_root()}. Start one with: evalkit run TASK ...")
        return found[-1]
    for path in (Path(name), runs_root() / name):
        if (path / MANIFEST).is_file():
            return path
    raise RunNotFoundError(f"no run {name!r} here or in {runs_root()}. See: evalkit runs")


def list_runs(root: Path) -> list[Path]:
    """Run folders below `root` (or `root` itself), oldest first."""
    return sorted((path.parent for path in root.glob(f"**/{MANIFEST}")), key=lambda p: (p / MANIFEST).stat().st_ctime)


def check_disk(path: Path) -> None:
    """Raise DiskFullError where a new run would not have room for its first answers."""
    parent = path.absolute()
    while not parent.exists():
        parent = parent.parent
    if shutil.disk_usage(parent).free < NEEDED_BYTES:
        raise DiskFullError(
            f"less than {NEEDED_BYTES // 2**20} MiB free for {path}. Free some space, or choose another --output"
        )


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFullError(
                f"no disk space left for {path}. "
                f"Everything journaled is safe: free some space, then: evalkit resume {path}"
            ) from error
        raise RunError(f"{path} cannot be written ({error.strerror}). Choose another --output") from error
