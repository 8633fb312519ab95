"""RunContext: what hooks see of a run in progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Every command loads the plugins that see a RunContext: pydantic must not come with them.
    from evalkit.runs.folder import RunFolder
    from evalkit.runs.spec import RunSpec
    from evalkit.tasks.base import Task


@dataclass(frozen=True, slots=True)
class RunContext:
    """The run's folder, what was asked, its tasks by name, and what the session says about itself."""

    folder: RunFolder
    spec: RunSpec
    tasks: Mapping[str, Task]
    engine: Mapping[str, Any]
    documents: Mapping[str, int]
    """Documents evaluated, by task."""
    shots: Mapping[str, int]
    """Few-shot examples, by task."""
