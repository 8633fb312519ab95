"""An environment and its `environment.json`, which is written last: without it a folder is half-made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evalkit import __version__
from evalkit.environments.links import linked
from evalkit.specs import EngineSpec

FILE = "environment.json"
LOCK = "requirements.lock"


class Request(BaseModel):
    """What `evalkit env create` was asked, so that `update` can do it again."""

    model_config = ConfigDict(frozen=True)

    engine: str
    name: str
    version: str | None = None
    source: str | None = None
    """A folder, a wheel or a requirement; None: what belongs to this evalkit."""
    variant: str | None = None
    python: str | None = None
    """A version such as "3.11", or the path of an interpreter."""
    constraint: str | None = None
    """A file of versions to keep to."""


class Environment(BaseModel):
    """A Python with an engine in it."""

    model_config = ConfigDict(frozen=True)

    name: str
    engine: str
    engines: tuple[EngineSpec, ...]
    """All that the package registers, so that they can be listed where it is not installed."""
    plugin: str
    distribution: str
    distribution_version: str
    core_version: str
    python_version: str
    library: str | None = None
    """The requirement that `--version` is about, such as "vllm"."""
    library_version: str | None = None
    variant: str | None = None
    interpreter: str
    """Absolute, or inside the folder."""
    variables: dict[str, str] = {}
    """What the recipe wants in the environment of the engine's process."""
    requirements: tuple[str, ...] = ()
    created: str = ""
    request: Request | None = None
    folder: Path = Field(Path(), exclude=True)
    read_only: bool = Field(False, exclude=True)

    @property
    def python(self) -> str:
        """Path of its interpreter."""
        return str(self.folder / self.interpreter)

    @property
    def spec(self) -> EngineSpec:
        """The engine that it was made for."""
        return next(spec for spec in self.engines if spec.name == self.engine)

    def child_variables(self) -> dict[str, str]:
        """What to add to the environment of a process of this interpreter.

        Where the evalkit inside is of another version, the process gets this one's: both sides must understand each
        other. Only the engine's own plugin is loaded, whatever EVALKIT_PLUGINS asks of this process.
        """
        found = {"EVALKIT_PLUGINS": self.plugin, **self.variables}
        if self.core_version != __version__ and "PYTHONPATH" not in found:
            found["PYTHONPATH"] = str(linked(("evalkit-core",)))
        return found

    def write(self) -> None:
        """Write it into its folder; from now on it counts."""
        pinned = [line for line in self.requirements if "==" in line and " @ " not in line]
        (self.folder / LOCK).write_text("".join(f"{line}\n" for line in pinned), encoding="utf-8")
        part = self.folder / f"{FILE}.part"
        part.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        part.replace(self.folder / FILE)

    def as_row(self) -> dict[str, Any]:
        """All of it as plain data, with where it is."""
        where = {"folder": str(self.folder), "python": self.python, "read_only": self.read_only}
        return {**self.model_dump(mode="json"), **where}


def read(folder: Path, *, read_only: bool = False) -> Environment | None:
    """The environment in `folder`; None where there is none, or a half-made one."""
    try:
        found = Environment.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        return None
    return found.model_copy(update={"folder": folder.absolute(), "read_only": read_only})


def is_writable(folder: Path) -> bool:
    """Whether environments can be made in `folder`, or it can be made itself."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK)
