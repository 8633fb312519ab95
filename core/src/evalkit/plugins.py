"""The plugin manager: finds plugins by entry point, loads them once, and lets no broken one stop the rest."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar

import pluggy

from evalkit import hookspecs
from evalkit.errors import ConfigError, PluginError, UnknownNameError, did_you_mean, one_line
from evalkit.specs import EngineSpec, ModelSpec, TaskFamily, TaskSpec, load_object

ENTRY_POINT_GROUP = "evalkit"
# Hooks are called last registered first: listed files win over the mirror, the mirror over the hub.
BUILT_IN = (
    "evalkit.tasks.metrics",
    "evalkit.datasets.hub",
    "evalkit.datasets.mirror",
    "evalkit.datasets.files",
    "evalkit.runs.environment",
    "evalkit.runs.reports",
)


class Named(Protocol):
    """Anything that is registered under its name."""

    @property
    def name(self) -> str:
        """The name it is registered under."""
        ...


S = TypeVar("S", bound=Named)


@dataclass(slots=True)
class Plugin:
    """An installed plugin and what became of it."""

    name: str
    distribution: str
    version: str
    module: str
    error: str | None = None
    hooks: tuple[str, ...] = ()


@dataclass(slots=True)
class Registry(Generic[S]):
    """Specs of one kind by name. A name that two plugins claim belongs to neither."""

    kind: str
    owners: dict[str, list[tuple[str, S]]] = field(default_factory=dict)
    families: list[tuple[str, TaskFamily]] = field(default_factory=list)
    """Those whose members nobody has asked for yet."""
    on_failure: Callable[[str, Exception], None] | None = None
    """Told of a plugin whose family cannot name its members, where all names are asked for."""

    def add(self, plugin: str, spec: S | TaskFamily) -> None:
        """Register `spec` for `plugin`."""
        if isinstance(spec, TaskFamily):
            self.families.append((plugin, spec))
        else:
            self.owners.setdefault(spec.name, []).append((plugin, spec))

    def drop(self, plugin: str) -> None:
        """Forget what a plugin registered before it failed."""
        kept = {name: [o for o in owners if o[0] != plugin] for name, owners in self.owners.items()}
        self.owners = {name: owners for name, owners in kept.items() if owners}
        self.families = [family for family in self.families if family[0] != plugin]

    def __iter__(self) -> Iterator[S]:
        """The usable specs, sorted by name. A family that cannot name its members is left out, and reported."""
        for plugin, family in list(self.families):
            try:
                self._unfold(plugin, family)
            except Exception as error:  # a plugin is somebody else's code: whatever it raises is its report
                if self.on_failure:
                    self.on_failure(plugin, error)
        return (owners[0][1] for _, owners in sorted(self.owners.items()) if len(owners) == 1)

    def __contains__(self, name: str) -> bool:
        """Whether `name` is registered, or a family's."""
        return name in self.owners or any(name.startswith(family.prefix) for _, family in self.families)

    def _unfold(self, plugin: str, family: TaskFamily) -> None:
        """Register the members of a family."""
        for spec in load_object(family.load)():
            self.add(plugin, spec)
        self.families.remove((plugin, family))

    def owner(self, name: str) -> str:
        """The plugin that registered `name`."""
        return self.owners[name][0][0]

    def conflicts(self) -> list[str]:
        """One sentence for every name that several plugins claim."""
        return [self._conflict(name) for name, owners in sorted(self.owners.items()) if len(owners) > 1]

    def _conflict(self, name: str) -> str:
        plugins = " and ".join(sorted({plugin for plugin, _ in self.owners[name]}))
        return (
            f"{self.kind} {name!r} is claimed by plugins {plugins}. "
            "Uninstall one of them, or choose with EVALKIT_PLUGINS"
        )

    def get(self, name: str, hint: str = "") -> S:
        """The spec named `name`. Raises UnknownNameError with near matches, PluginError on a conflict.

        Raises what its family raises that cannot name its members.
        """
        for plugin, family in list(self.families):
            if name.startswith(family.prefix):
                self._unfold(plugin, family)
        owners = self.owners.get(name, [])
        if not owners:
            command = "" if self.kind == "metric" else f" See: evalkit list-{self.kind}s"
            raise UnknownNameError(f"unknown {self.kind} {name!r}.{did_you_mean(name, self.owners)}{hint}{command}")
        if len(owners) > 1:
            raise PluginError(self._conflict(name))
        return owners[0][1]


class PluginManager:
    """Loads the plugins of this environment and keeps what they register."""

    def __init__(self, only: tuple[str, ...] | None = None) -> None:
        from evalkit.tasks.metrics import Metric

        self.pm = pluggy.PluginManager("evalkit")
        self.pm.add_hookspecs(hookspecs)
        self.engines: Registry[EngineSpec] = Registry("engine")
        self.tasks: Registry[TaskSpec] = Registry("task", on_failure=self._note_failure)
        self.models: Registry[ModelSpec] = Registry("model")
        self.metrics: Registry[Metric] = Registry("metric")
        self.plugins: list[Plugin] = []
        for module in BUILT_IN:
            self._load(Plugin("core", "evalkit-core", "", module), functools.partial(_import, module))
        for name, points in _installed(only).items():
            self._add_installed(name, points)

    @property
    def hook(self) -> Any:
        """The pluggy relay: `hook.run_started(run=...)` calls every plugin."""
        return self.pm.hook

    @property
    def broken(self) -> list[Plugin]:
        """Plugins that did not load."""
        return [plugin for plugin in self.plugins if plugin.error]

    def conflicts(self) -> list[str]:
        """One sentence for every name that several plugins claim."""
        registries = (self.engines, self.tasks, self.models, self.metrics)
        return [sentence for registry in registries for sentence in registry.conflicts()]

    def engine(self, name: str) -> EngineSpec:
        """The engine named `name`."""
        return self.engines.get(name, self._broken_hint())

    def task(self, name: str) -> TaskSpec:
        """The task named `name`."""
        return self.tasks.get(name, self._broken_hint())

    def _broken_hint(self) -> str:
        if not self.broken:
            return ""
        names = ", ".join(plugin.name for plugin in self.broken)
        return f" Not loaded, because broken: {names} (see: evalkit plugins)."

    def _add_installed(self, name: str, points: list[EntryPoint]) -> None:
        owners = sorted({_distribution(point) for point in points})
        plugin = Plugin(name, owners[0], points[0].dist.version if points[0].dist else "", points[0].value)
        self.plugins.append(plugin)
        if len(points) > 1:
            plugin.distribution = ", ".join(owners)
            plugin.error = f"plugin name {name!r} is claimed by {' and '.join(owners)}. Uninstall one of them"
        else:
            self._load(plugin, points[0].load)

    def _load(self, plugin: Plugin, load: Callable[[], ModuleType]) -> None:
        key = plugin.module if plugin.module in BUILT_IN else plugin.name
        try:
            module = load()
            self.pm.register(module, name=key)
            plugin.hooks = self._hooks(module)
            self._collect(plugin.name, module)
        except (Exception, SystemExit) as error:  # a plugin is somebody else's code: whatever it raises is its report
            plugin.error = _cause(error)
            # By name: the module may be registered under another plugin's, which stays.
            if self.pm.has_plugin(key):
                self.pm.unregister(name=key)
            for registry in (self.engines, self.tasks, self.models, self.metrics):
                registry.drop(plugin.name)
            if plugin.module in BUILT_IN:
                raise

    def _note_failure(self, name: str, error: Exception) -> None:
        for plugin in self.plugins:
            if plugin.name == name:
                plugin.error = _cause(error)

    def _hooks(self, module: ModuleType) -> tuple[str, ...]:
        names = []
        for caller in self.pm.get_hookcallers(module) or []:
            if caller.spec is None:
                known = [name for name in vars(self.pm.hook) if not name.startswith("_") and name != caller.name]
                specified = [name for name in known if getattr(self.pm.hook, name).spec]
                raise PluginError(f"there is no hook {caller.name!r}.{did_you_mean(caller.name, specified)}")
            names.append(caller.name)
        return tuple(sorted(names))

    def _collect(self, plugin: str, module: ModuleType) -> None:
        for kind in ("engines", "tasks", "models", "metrics"):
            registry: Registry[Any] = getattr(self, kind)
            for impl in getattr(self.pm.hook, f"register_{kind}").get_hookimpls():
                if impl.plugin is module:
                    impl.function(functools.partial(registry.add, plugin))


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def _import(module: str) -> ModuleType:
    import importlib

    return importlib.import_module(module)


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def _installed(only: tuple[str, ...] | None) -> dict[str, list[EntryPoint]]:
    """Entry points by name; `only` limits them and must name installed plugins."""
    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda p: (p.name, _distribution(p))):
        found.setdefault(point.name, []).append(point)
    for name in only or ():
        if name not in found:
            raise ConfigError(f"EVALKIT_PLUGINS names {name!r}, which is not installed.{did_you_mean(name, found)}")
    return found if only is None else {name: found[name] for name in found if name in only}


@functools.cache
def get_plugins() -> PluginManager:
    """The plugins of this process; EVALKIT_PLUGINS=a,b limits which installed ones load."""
    value = os.environ.get("EVALKIT_PLUGINS")
    names = None if value is None else tuple(name.strip() for name in value.split(",") if name.strip())
    return PluginManager(names)


def load_engine_class(name: str) -> tuple[type[Any], EngineSpec]:
    """The engine class and spec for a registered name, or for "module:Class" of an engine in development."""
    if ":" in name:
        return load_object(name), EngineSpec(name, "loaded by its path", load=name, formats=("hf", "gguf"))
    spec = get_plugins().engine(name)
    return load_object(spec.load), spec
