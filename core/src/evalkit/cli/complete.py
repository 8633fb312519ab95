"""Tab completion of engine, task, model and run names."""

from __future__ import annotations

from evalkit.plugins import get_plugins
from evalkit.runs.folder import list_runs, runs_root


def engines(incomplete: str) -> list[tuple[str, str]]:
    """Engines whose name begins so."""
    from evalkit.environments.registry import environments

    elsewhere = {spec.name: spec.summary for made in environments() for spec in made.engines}
    known = {**elsewhere, **{spec.name: spec.summary for spec in get_plugins().engines}}
    return [(name, summary) for name, summary in sorted(known.items()) if name.startswith(incomplete)]


def tasks(incomplete: str) -> list[tuple[str, str]]:
    """Tasks whose name begins so."""
    return [(s.name, s.summary) for s in get_plugins().tasks if s.name.startswith(incomplete)]


def models(incomplete: str) -> list[tuple[str, str]]:
    """Registered models whose name begins so."""
    return [(s.name, s.summary) for s in get_plugins().models if s.name.startswith(incomplete)]


def environments(incomplete: str) -> list[tuple[str, str]]:
    """Environments whose name begins so."""
    from evalkit.environments.registry import environments

    return [(made.name, made.engine) for made in environments() if made.name.startswith(incomplete)]


def run_names(incomplete: str) -> list[str]:
    """Runs whose name begins so."""
    return [path.name for path in list_runs(runs_root()) if path.name.startswith(incomplete)]


def export_formats(incomplete: str) -> list[tuple[str, str]]:
    """Formats of `evalkit export` whose name begins so."""
    from evalkit.exports import FORMATS

    return [(f.name, f.summary) for f in FORMATS.values() if f.name.startswith(incomplete)]


def verdicts(incomplete: str) -> list[str]:
    """What samples can be chosen by whose name begins so."""
    from evalkit.reading.find import FLIPPED, VERDICTS

    return [name for name in (*VERDICTS, FLIPPED) if name.startswith(incomplete)]
