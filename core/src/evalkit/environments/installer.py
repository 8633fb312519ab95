"""Make a virtual environment and install into it, with uv where there is one, else with pip. All is logged."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from evalkit.cache import cache_dir
from evalkit.environments.asking import SHOWN_CHARACTERS, ending, last_lines, own_environment, run_python
from evalkit.errors import MissingDependencyError, PluginError

OnStep = Callable[[str], None]
TAIL_BYTES = 1 << 14
CHECK_NAME = "Check the engine's name with evalkit list-engines, or give its package with --from"
QUIET = ("--disable-pip-version-check", "--no-input")


class Installer:
    """Runs the steps that make the environment `name`. `on_step` is told each before it begins."""

    def __init__(self, name: str, on_step: OnStep, variables: Mapping[str, str] | None = None) -> None:
        self.name, self.on_step = name, on_step
        self.variables = dict(variables or {})
        self.uv = find_uv()
        self.log = log_file(name)

    # ── steps ───────────────────────────────────────────────────────────────────────────────────────────
    def venv(self, folder: Path, python: str | None, versions: tuple[str, ...]) -> str:
        """Make a virtual environment in `folder` for `python`, or one of `versions`; its interpreter."""
        made = str(folder / "bin" / "python")
        found = find_python(python, versions)
        wanted = found or (python if python is not None else versions[0])
        self.on_step(f"making a virtual environment with Python {wanted}")
        if self.uv is not None and self._try([self.uv, "venv", "--quiet", "--seed", "--python", wanted, str(folder)]):
            return made
        if found is None:
            raise MissingDependencyError(
                f"environment {self.name!r} needs Python {' or '.join(versions or (str(python),))}, which is not here. "
                "Install it, or uv, which fetches it (pip install uv), or give another with --python"
            )
        self._must([found, "-m", "venv", "--clear", str(folder)], "Its venv module must work (Debian: python3-venv)")
        return made

    def install(self, python: str, words: Iterable[str], what: str, options: Iterable[str] = ()) -> None:
        """Install into the environment of the interpreter `python`; with pip where uv fails."""
        self.on_step(f"installing {what}")
        asked = [*options, *words]
        if self.uv is not None:
            if self._try([self.uv, "pip", "install", "--python", python, *asked]):
                return
            self.on_step(f"installing {what} with pip, because uv could not")
        self._must([python, "-m", "pip", "install", *QUIET, *asked])

    def uninstall(self, python: str, names: Iterable[str]) -> None:
        """Remove packages; those that are not there do not matter."""
        self.on_step(f"removing {', '.join(names)}")
        self._must([python, "-m", "pip", "uninstall", *QUIET, "--yes", *names])

    def freeze(self, python: str) -> tuple[str, ...]:
        """What is installed, one requirement a line."""
        done = run_python(python, ["-m", "pip", "freeze", "--disable-pip-version-check"])
        if done.returncode != 0:
            raise PluginError(f"pip freeze in {python} {ending(done.returncode)}{last_lines(done.stdout)}")
        return tuple(line for line in done.stdout.splitlines() if line and not line.startswith(("#", "WARNING")))

    def unpack(self, words: Iterable[str], folder: Path) -> None:
        """Put a package's files into `folder`, without what it requires."""
        self.on_step(f"fetching {' '.join(words)}")
        asked = ["--no-deps", "--target", str(folder), *words]
        if self.uv is not None and self._try([self.uv, "pip", "install", *asked]):
            return
        if importlib.util.find_spec("pip") is None:
            raise MissingDependencyError("neither uv nor pip is here. Install one, such as: python -m ensurepip")
        self._must([sys.executable, "-m", "pip", "install", *QUIET, "--ignore-requires-python", *asked], CHECK_NAME)

    # ── running them ────────────────────────────────────────────────────────────────────────────────────
    def _must(self, words: list[str], hint: str = "") -> None:
        code = self._run(words)
        if code != 0:
            hint = f"{hint}. " if hint else ""
            raise PluginError(
                f"environment {self.name!r} cannot be made: {' '.join(words[:4])} ... {ending(code)}"
                f"{last_lines(self._tail())}. {hint}The whole log: {self.log}"
            )

    def _try(self, words: list[str]) -> bool:
        return self._run(words) == 0

    def _run(self, words: list[str]) -> int:
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(words)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**own_environment(), **self.variables},
                start_new_session=True,
            )
            try:
                return process.wait()
            finally:
                # Also what it started: an interrupted installation leaves no compiler behind.
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _tail(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            return log.read().decode(errors="replace").rpartition("\n$ ")[2].partition("\n")[2][-4 * SHOWN_CHARACTERS :]


def find_uv() -> str | None:
    """uv beside this interpreter or on the path; EVALKIT_UV=0 does without."""
    if os.environ.get("EVALKIT_UV") == "0":
        return None
    beside = Path(sys.executable).parent / "uv"
    return str(beside) if beside.is_file() else shutil.which("uv")


def find_python(chosen: str | None, versions: tuple[str, ...]) -> str | None:
    """An interpreter: the chosen path or version, else this one where its version fits, else one on the path."""
    if chosen is not None and os.sep in chosen:
        if version_of(chosen) is None:
            raise MissingDependencyError(f"{chosen} is no working Python. Give --python another one")
        return chosen
    wanted = (chosen,) if chosen is not None else versions
    here = "{}.{}".format(*sys.version_info)
    if not wanted or here in wanted:
        return sys.executable
    return next((path for name in wanted if (path := _on_path(name)) is not None), None)


def _on_path(version: str) -> str | None:
    path = shutil.which(f"python{version}")
    # A launcher of that name may find no interpreter behind it.
    return path if path is not None and version_of(path) == version else None


def version_of(python: str) -> str | None:
    """ "3.11", or None where it is no Python that starts."""
    try:
        done = run_python(python, ["-c", "import sys; print('{}.{}'.format(*sys.version_info))"])
    except PluginError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def log_file(name: str) -> Path:
    """A new log for making an environment, in the place of the one before."""
    folder = cache_dir() / "logs"
    folder.mkdir(exist_ok=True)
    path = folder / f"environment-{name}.log"
    path.write_bytes(b"")
    return path
