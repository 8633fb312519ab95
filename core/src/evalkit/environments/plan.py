"""What making an environment will install, from its engine's recipe and what was asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.environments.environment import Request
from evalkit.environments.installer import Installer, OnStep, find_python
from evalkit.environments.recipe import Recipe, Variant
from evalkit.environments.source import Source, core_source, engine_source, recipe_of
from evalkit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Plan:
    """An environment that could be made."""

    request: Request
    recipe: Recipe
    variant_name: str | None
    variant: Variant
    core: Source
    engine: Source
    constraints: tuple[str, ...]

    @property
    def library(self) -> str | None:
        """The requirement that `--version` is about."""
        return self.recipe.library_of(self.variant)

    @property
    def requirements(self) -> tuple[str, ...]:
        """What is installed together with the two packages."""
        return self.variant.at_version(self.request.version, self.library)

    @property
    def words(self) -> list[str]:
        """All of it as words of `pip install`."""
        return [*self.requirements, *self.core.words, *self.engine.words]

    @property
    def summary(self) -> str:
        """What is installed, for people."""
        return ", ".join([self.engine.text, *self.requirements])

    def as_row(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "name": self.request.name,
            "engine": self.request.engine,
            "python": find_python(self.request.python, self.recipe.pythons),
            "variant": self.variant_name,
            "install": self.words,
            "constraints": list(self.constraints),
            "no_deps": list(self.variant.no_deps),
            "uninstall": list(self.variant.uninstall),
            "programs": list(self.variant.programs),
            "variables": self.variant.variables,
        }


def make_plan(request: Request, on_step: OnStep) -> Plan:
    """The plan for what is asked. Raises ConfigError where it cannot be, PluginError for a broken recipe."""
    engine = engine_source(request.engine, request.source)
    recipe = recipe_of(engine, Installer(request.name, on_step))
    name, variant = recipe.choose(request.variant)
    if request.version is not None and recipe.library_of(variant) is None:
        raise ConfigError(
            f"the package of engine {request.engine!r} does not say which library --version is about. "
            "Choose the package's own version with --from 'PACKAGE==VERSION'"
        )
    if request.python is not None and "/" not in request.python and recipe.pythons:
        _check_python(request.python, recipe.pythons)
    return Plan(request, recipe, name, variant, core_source(), engine, variant.constraints + _lines(request.constraint))


def _check_python(version: str, known: tuple[str, ...]) -> None:
    if version not in known:
        raise ConfigError(f"Python {version} does not do for this engine. Give --python one of: {', '.join(known)}")


def _lines(file: str | None) -> tuple[str, ...]:
    if file is None:
        return ()
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read. Give --constraint a file of lines such as torch==2.13.0") from error
    return tuple(line for line in text.splitlines() if line.strip())
