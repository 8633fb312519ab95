"""`environment.toml` in an engine's package: what its environment needs beside the package's own dependencies."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from evalkit.errors import ConfigError, PluginError, one_line

FILE = "environment.toml"
CUDA, CPU = "cuda", "cpu"
GPU_SECONDS = 20


class Variant(BaseModel):
    """What is installed for one kind of machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requirements: tuple[str, ...] = ()
    """Installed together with the engine's package."""
    constraints: tuple[str, ...] = ()
    """Versions to keep to, of packages that something else may require."""
    no_deps: tuple[str, ...] = ()
    """Installed afterwards without what they require."""
    uninstall: tuple[str, ...] = ()
    """Removed at the end."""
    library: str | None = None
    """The requirement that `--version` is about, where it is not the recipe's."""
    programs: dict[str, str] = {}
    """Programs that must be on the path, and what installs each."""
    install_variables: dict[str, str] = {}
    """Environment variables while it is installed."""
    variables: dict[str, str] = {}
    """Environment variables of the engine's process."""

    def at_version(self, version: str | None, library: str | None) -> tuple[str, ...]:
        """The requirements with the engine's library at `version`."""
        if version is None or library is None:
            return self.requirements
        others = (line for line in self.requirements if normal(bare(line)) != normal(library))
        return (f"{library}=={version}", *others)


class Recipe(BaseModel):
    """How an environment is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pythons: tuple[str, ...] = ()
    """Versions of Python that are known to work, the best first; none: any that evalkit runs on."""
    library: str | None = None
    """The requirement that `--version` is about."""
    imports: tuple[str, ...] = ()
    """Modules that must import."""
    device: str | None = None
    """"module:function" that returns a line about the device."""
    variants: dict[str, Variant] = {}

    def choose(self, wanted: str | None) -> tuple[str | None, Variant]:
        """The variant that is asked for, else the one for this machine. Raises ConfigError."""
        if wanted is not None and wanted not in self.variants:
            known = ", ".join(self.variants) or "none"
            raise ConfigError(f"there is no variant {wanted!r}. Give --variant one of: {known}")
        if not self.variants:
            return None, Variant()
        if wanted is None and list(self.variants) == [CUDA] and not has_gpu():
            raise ConfigError(
                f"{self.library or 'this engine'} has builds for GPUs only, and nvidia-smi lists none here. "
                f"Make the environment where there is one, or all the same with --variant {CUDA}"
            )
        name = wanted or (CUDA if CUDA in self.variants and has_gpu() else CPU)
        name = name if name in self.variants else next(iter(self.variants))
        return name, self.variants[name]

    def library_of(self, variant: Variant) -> str | None:
        """The requirement that `--version` is about."""
        return variant.library or self.library


def read_recipe(folder: Path) -> Recipe:
    """The recipe of the package in `folder`, a source tree or a folder of installed ones; an empty one without."""
    places = sorted([*folder.glob(f"src/*/{FILE}"), *folder.glob(f"*/{FILE}")])
    if not places:
        return Recipe()
    try:
        return Recipe.model_validate(tomllib.loads(places[0].read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PluginError(f"{places[0]} cannot be read: {one_line(error)}. Mend it") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise PluginError(f"{places[0]}: {field!r}: {first['msg']}. Mend it") from error


def has_gpu() -> bool:
    """Whether nvidia-smi lists a GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=GPU_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and "GPU" in done.stdout


def bare(requirement: str) -> str:
    """The name at the start of a requirement."""
    found = re.match(r"[A-Za-z0-9][\w.-]*", requirement)
    return found[0] if found else requirement


def normal(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
