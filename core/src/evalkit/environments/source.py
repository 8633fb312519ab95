"""What is installed into an environment: this evalkit's core, and the engine's package with its recipe."""

from __future__ import annotations

import json
import re
import tempfile
import tomllib
import zipfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import evalkit
from evalkit.environments.installer import Installer
from evalkit.environments.links import CORE
from evalkit.environments.recipe import Recipe, normal, read_recipe
from evalkit.errors import ConfigError, one_line
from evalkit.plugins import get_plugins


@dataclass(frozen=True, slots=True)
class Source:
    """Something that pip installs: a folder, a wheel, or a requirement."""

    text: str
    folder: Path | None = None

    @property
    def words(self) -> list[str]:
        """As words of `pip install`; a folder stays linked, so that the environment follows its code."""
        return ["-e", str(self.folder)] if self.folder is not None else [self.text]


def core_source() -> Source:
    """The core that runs here: its checkout, where it was installed from, or its version on the package index."""
    folder = _checkout()
    if folder is not None:
        return Source(str(folder / "core"), folder / "core")
    return _installed(CORE) or Source(f"{CORE}=={evalkit.__version__}")


def engine_source(engine: str, chosen: str | None) -> Source:
    """The package of an engine: what was asked for, else what belongs to this evalkit. Raises ConfigError."""
    if chosen is not None:
        return _chosen(chosen)
    name = distribution_of(engine)
    checkout = _checkout()
    if checkout is not None and (checkout / "plugins" / name / "pyproject.toml").is_file():
        return Source(name, checkout / "plugins" / name)
    return _installed(name) or Source(name)


def distribution_of(engine: str) -> str:
    """The distribution that registers an engine here; by custom it is called evalkit-ENGINE."""
    if not re.fullmatch(r"[A-Za-z0-9]+([-_.][A-Za-z0-9]+)*", engine):
        raise ConfigError(f"{engine!r} cannot name an engine. See: evalkit list-engines")
    plugins = get_plugins()
    if engine not in plugins.engines:
        return f"evalkit-{engine}"
    owner = plugins.engines.owner(engine)
    return next(plugin.distribution for plugin in plugins.plugins if plugin.name == owner)


def recipe_of(source: Source, installer: Installer) -> Recipe:
    """The recipe that a package carries. What is neither a folder nor a wheel is fetched for it."""
    if source.folder is not None:
        return read_recipe(source.folder)
    with tempfile.TemporaryDirectory() as folder:
        if source.text.endswith(".whl") and Path(source.text).is_file():
            _unzip(Path(source.text), Path(folder))
        else:
            installer.unpack(source.words, Path(folder))
        return read_recipe(Path(folder))


def _unzip(wheel: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{wheel} cannot be read as a wheel ({one_line(error)}). Check --from") from error


def _chosen(text: str) -> Source:
    path = Path(text).expanduser()
    if path.is_dir():
        if not (path / "pyproject.toml").is_file():
            raise ConfigError(f"{text} holds no pyproject.toml. Give --from the folder of an engine's package")
        return Source(text, path.absolute())
    if path.suffix == ".whl" or text.startswith((".", "/", "~")):
        if not path.is_file():
            raise ConfigError(f"{text} does not exist. Check --from")
        return Source(str(path.absolute()))
    return Source(text)


def _checkout() -> Path | None:
    """The checkout that this evalkit runs from, where it runs from one."""
    root = Path(evalkit.__file__).resolve().parents[3]
    project = root / "core" / "pyproject.toml"
    try:
        return root if tomllib.loads(project.read_text(encoding="utf-8"))["project"]["name"] == CORE else None
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return None


def _installed(name: str) -> Source | None:
    """Where a distribution of this environment came from; None where it is not installed here."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    if "url" not in origin:
        return Source(f"{normal(name)}=={found.version}")
    folder = Path(origin["url"].removeprefix("file://"))
    if "dir_info" in origin and folder.is_dir():
        return Source(name, folder)
    return Source(f"{normal(name)} @ {origin['url']}")
