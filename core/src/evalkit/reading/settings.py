"""The settings of a run: the command that repeats it, and what it ran on."""

from __future__ import annotations

import json
import shlex
from typing import Any

import yaml

from evalkit.reading.finished import Run

ASSIGNMENTS = {
    "engine_args": "--engine-arg",
    "model_args": "--model-arg",
    "gen": "--gen",
    "chat_template_args": "--chat-template-arg",
}


def command(spec: dict[str, Any]) -> str:
    """The `evalkit run` command of a spec. What was redacted stays redacted: fill it in before running."""
    words = ["evalkit", "run", *spec.get("tasks", ())]
    for name, value in spec.items():
        if name in ASSIGNMENTS:
            words += [word for key, item in value.items() for word in (ASSIGNMENTS[name], f"{key}={_yaml(item)}")]
        elif name not in ("tasks", "output"):
            words += _option(f"--{name.replace('_', '-')}", value)
    return shlex.join(words)


def _option(flag: str, value: Any) -> list[str]:
    if value is None or (value is False and flag != "--fewshot-as-multiturn"):
        return []
    if value is False:
        return [flag.replace("--", "--no-", 1)]
    return [flag] if value is True else [f"{flag}={value}"]


def _yaml(value: Any) -> str:
    """A value as it is typed behind K=: plain text where that reads as the same text."""
    if isinstance(value, str):
        try:
            plain = yaml.safe_load(value) == value
        except yaml.YAMLError:
            plain = False
        # `***` is what stands for a secret; quotes would be one more thing to replace.
        return value if plain or value == "***" else json.dumps(value)
    return json.dumps(value)


def environment(run: Run) -> dict[str, str]:
    """What the last attempt ran on, a line each."""
    attempt = (run.manifest.get("attempts") or [{}])[-1]
    model = run.manifest.get("model", {})
    packages = ", ".join(f"{name} {number}" for name, number in attempt.get("packages", {}).items())
    machine = ", ".join(str(value) for value in attempt.get("machine", {}).values())
    found = {
        "started": run.manifest.get("created"),
        "attempts": len(run.manifest.get("attempts", ())),
        "model": model.get("path"),
        "fingerprint of the model": model.get("fingerprint"),
        "task versions": ", ".join(f"{name} {number}" for name, number in run.results.get("versions", {}).items()),
        "examples": ", ".join(f"{name}: {number}" for name, number in run.results.get("n-shot", {}).items()),
        "machine": machine,
        "packages": packages,
        "engine": json.dumps(attempt.get("engine", {}), ensure_ascii=False),
    }
    return {name: str(value) for name, value in found.items() if value not in (None, "", "{}")}
