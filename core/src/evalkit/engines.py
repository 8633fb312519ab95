"""Engine classes of all installed plugins by class name: `evalkit.engines.Transformers(dtype="bfloat16")`."""

from __future__ import annotations

from typing import Any

from evalkit.errors import did_you_mean
from evalkit.plugins import get_plugins
from evalkit.specs import EngineSpec, load_object


def _by_class() -> dict[str, EngineSpec]:
    return {spec.load.partition(":")[2]: spec for spec in get_plugins().engines}


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    known = _by_class()
    if name not in known:
        raise AttributeError(f"no installed engine has the class {name!r}.{did_you_mean(name, known)}")
    return load_object(known[name].load)


def __dir__() -> list[str]:
    return sorted(_by_class())
