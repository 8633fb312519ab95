"""Create, update and remove environments: one process at a time, whole or not at all."""

from __future__ import annotations

import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from evalkit.environments.asking import Report, ask
from evalkit.environments.environment import FILE, Environment, Request, is_writable, read
from evalkit.environments.installer import Installer, OnStep
from evalkit.environments.plan import Plan, make_plan
from evalkit.environments.recipe import Variant
from evalkit.environments.registry import folders, get
from evalkit.errors import ConfigError, MissingDependencyError, PluginError, one_line

VENV = "venv-"


def create(request: Request, on_step: OnStep) -> tuple[Environment, bool]:
    """The environment that is asked for, and whether it was made now: one that is there already stays as it is.

    Raises ConfigError, MissingDependencyError, PluginError. What an interrupted or failed one has made is removed.
    """
    _check_name(request.name)
    folder = _writable() / request.name
    with _locked(folder, on_step):
        made = read(folder)
        if made is not None:
            _check_same(made, request)
            return made, False
        return _make(folder, request, on_step), True


def update(name: str, on_step: OnStep) -> Environment:
    """Make an environment anew beside the old one, which stays until the new one works."""
    folder = _own(name)
    with _locked(folder, on_step):
        made = read(folder)
        if made is None or made.request is None:
            raise ConfigError(f"environment {name!r} does not say how it was made. Remove it and create it again")
        return _make(folder, made.request, on_step)


def remove(name: str, *, force: bool = False) -> Path:
    """Remove an environment; the folder that it was in. Raises ConfigError while a process uses it, unless forced."""
    folder = _own(name)
    with _locked(folder, lambda step: None):
        using = users(folder)
        if using and not force:
            raise ConfigError(f"environment {name!r} is used by process {using[0]}. End it, or add --yes")
        # In this order: what is half removed is not there any more.
        (folder / FILE).unlink(missing_ok=True)
        shutil.rmtree(folder)
    return folder


def users(folder: Path) -> list[int]:
    """Processes whose interpreter is in `folder`, as far as this system tells."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if line.read_bytes().startswith(f"{folder}/".encode()):
                found.append(int(line.parent.name))
    return sorted(found)


def _make(folder: Path, request: Request, on_step: OnStep) -> Environment:
    plan = make_plan(request, on_step)
    for program, install in plan.variant.programs.items():
        if shutil.which(program) is None:
            raise MissingDependencyError(
                f"engine {request.engine!r} needs the program {program}. Install it ({install}), or choose a --variant"
            )
    _sweep(folder)
    with _ended_by_sigterm():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # A virtual environment cannot be moved: it is made where it stays, beside the one it replaces.
            venv = Path(tempfile.mkdtemp(prefix=VENV, dir=folder))
            made = _fill(venv, plan, on_step)
            made.write()
        except BaseException as error:
            _sweep(folder)
            if isinstance(error, OSError):
                raise ConfigError(
                    f"environment {request.name!r} cannot be made in {folder} ({error.strerror})"
                ) from error
            raise
    _sweep(folder)
    return made


def _fill(venv: Path, plan: Plan, on_step: OnStep) -> Environment:
    request, variant = plan.request, plan.variant
    installer = Installer(request.name, on_step, variant.install_variables)
    python = installer.venv(venv, request.python, plan.recipe.pythons)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("".join(f"{line}\n" for line in plan.constraints))
        constraints.flush()
        options = ["--constraint", constraints.name] if plan.constraints else []
        installer.install(python, plan.words, plan.summary, options)
    if variant.no_deps:
        installer.install(python, variant.no_deps, ", ".join(variant.no_deps), ["--no-deps"])
    if variant.uninstall:
        installer.uninstall(python, variant.uninstall)
    on_step("checking that it works")
    report = _checked(python, request, variant, installer.log)
    return Environment(
        name=request.name,
        engine=request.engine,
        **report.model_dump(exclude={"problems", "versions", "device"}),
        library=plan.library,
        library_version=report.versions.get(plan.library or ""),
        variant=plan.variant_name,
        interpreter=str(Path(python).relative_to(venv.parent)),
        variables=variant.variables,
        requirements=installer.freeze(python),
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        request=request,
        folder=venv.parent,
    )


def _checked(python: str, request: Request, variant: Variant, log: Path) -> Report:
    """What the new environment says of its engine. Raises PluginError where it does not work."""
    try:
        report = ask(python, request.engine, variant.variables, check=True)
        problem = next(iter(report.problems), None)
    except PluginError as error:
        problem = one_line(error, 800)
    if problem is not None:
        raise PluginError(
            f"environment {request.name!r} was installed and does not work: {problem}. "
            f"Nothing of it was kept. The whole log: {log}"
        )
    return report


def _check_same(made: Environment, request: Request) -> None:
    if made.engine != request.engine:
        raise ConfigError(
            f"environment {made.name!r} is there already, for engine {made.engine!r}. Choose another --name"
        )


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
        raise ConfigError(f"{name!r} cannot name an environment. Use letters, digits, hyphens and dots in --name")


def _own(name: str) -> Path:
    made = get(name)
    if made.read_only or not is_writable(made.folder):
        raise ConfigError(
            f"environment {name!r} in {made.folder.parent} is read-only. Make one of your own with --name"
        )
    return made.folder


def _writable() -> Path:
    folder = folders()[0].absolute()
    if not is_writable(folder):
        raise ConfigError(f"environments cannot be made in {folder}. Name a folder of your own in EVALKIT_ENVS")
    return folder


def _sweep(folder: Path) -> None:
    """Remove what no finished environment of `folder` uses, and the folder where there is none."""
    made = read(folder)
    if made is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for venv in folder.glob(f"{VENV}*"):
        # A process that began before an update goes on with what it began with; the next update sweeps again.
        if not made.interpreter.startswith(f"{venv.name}/") and not users(venv):
            shutil.rmtree(venv, ignore_errors=True)


@contextmanager
def _locked(folder: Path, on_step: OnStep) -> Iterator[None]:
    from filelock import FileLock, Timeout

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_step("waiting for another process that works on it")
            lock.acquire()
    except OSError as error:
        raise ConfigError(
            f"{folder.parent} cannot be written to ({error.strerror}). Name a folder of your own in EVALKIT_ENVS"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """While inside, a polite end of this process is an exception, so that what is half-made is removed."""

    def end(number: int, frame: FrameType | None) -> Any:
        sys.exit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # signals are the main thread's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
