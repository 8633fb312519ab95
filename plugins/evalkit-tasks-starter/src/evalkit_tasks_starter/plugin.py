"""Register the starter tasks and their group."""

from __future__ import annotations

from collections.abc import Callable

from evalkit import TaskSpec, hookimpl

TASKS = {
    "starter": ("All starter tasks", "STARTER"),
    "starter_questions": ("216 easy questions with four choices", "QUESTIONS"),
    "starter_arithmetic": ("124 arithmetic problems, solved step by step", "ARITHMETIC"),
    "starter_prose": ("Perplexity of 12 short texts", "PROSE"),
}


@hookimpl
def register_tasks(register: Callable[[TaskSpec], None]) -> None:
    """Register the tasks and the group."""
    for name, (summary, attribute) in TASKS.items():
        register(TaskSpec(name, summary, load=f"evalkit_tasks_starter.tasks:{attribute}", tags=("offline",)))
