"""What run.json says a run was asked, to complete or to repeat it, and whether a repetition is the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evalkit.engine import REDACTED, without_redacted
from evalkit.errors import ConfigError, RunError
from evalkit.runs.spec import RunSpec, make_spec

GIVEN_AGAIN = {"engine_args": "--engine-arg", "model_args": "--model-arg"}
"""Where a secret may stand, and the option that gives it again."""


def recorded_spec(
    manifest: Mapping[str, Any], run: str, given: Mapping[str, Mapping[str, Any]] | None = None
) -> RunSpec:
    """What run.json says was asked. Fields that an older evalkit did not know have their defaults.

    With `given` engine_args and model_args these take the place of the run's own of the same names, and a secret, which
    is never stored, raises ConfigError if it is not among them. Without, secrets are left out: engines find their keys
    in the environment. Raises RunError for fields of a newer evalkit.
    """
    values = asked_of(manifest, run)
    if given is None:
        return make_spec(without_redacted(values))
    for field in GIVEN_AGAIN:
        values[field] = {**values.get(field, {}), **given.get(field, {})}
    missing = [path for name, value in values.items() for path in _redacted(value, (name,))]
    if missing:
        raise ConfigError(f"{run} had secrets, which are not stored: {_shown(missing)}. {_next_step(missing, run)}")
    return make_spec(values)


def asked_of(manifest: Mapping[str, Any], run: str) -> dict[str, Any]:
    """What a run was asked. Raises RunError where its run.json does not say so, or in fields of a newer evalkit."""
    values = dict(manifest.get("spec", {}))
    if newer := sorted(set(values) - set(RunSpec.model_fields)):
        raise RunError(f"{run} was made by another evalkit: it has a field {newer[0]!r}. Upgrade evalkit")
    if missing := [name for name in ("tasks", "engine", "model") if not values.get(name)]:
        raise RunError(f"the run.json of {run} does not say {', '.join(missing)}. Start it anew with: evalkit run")
    return values


def differences(before: Mapping[str, Any], now: Mapping[str, Any], run: str) -> list[str]:
    """What a repetition does not share with the run it repeats, a sentence each."""
    found = []
    if before.get("prompts") and before["prompts"] != now["prompts"]:
        found.append(f"the prompts are not those of {run}: its data, tasks or evalkit changed")
    recorded = before.get("model") or {}
    if "fingerprint" in recorded and recorded["fingerprint"] != now["model"]["fingerprint"]:
        found.append(f"the model's files are not those of {run}")
    return found


def _redacted(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The places of what was left out."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _redacted(item, (*path, str(name)))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _redacted(item, path)
    elif value == REDACTED:
        yield path


def _shown(paths: list[tuple[str, ...]]) -> str:
    return ", ".join(dict.fromkeys(".".join(path) for path in paths))


def _next_step(paths: list[tuple[str, ...]], run: str) -> str:
    if any(path[0] not in GIVEN_AGAIN for path in paths):
        return "Start it anew with: evalkit run"
    words = dict.fromkeys(f"{GIVEN_AGAIN[path[0]]} {path[1]}=..." for path in paths)
    return f"Give them again: evalkit rerun {run} {' '.join(words)}"
