"""Does an environment work? Import its engine there, and say what it is and on what device it would run."""

from __future__ import annotations

from dataclasses import dataclass, field

from evalkit.environments.asking import ask
from evalkit.environments.environment import Environment
from evalkit.errors import PluginError, one_line


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `evalkit env verify` found."""

    environment: Environment
    problems: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    device: str | None = None

    @property
    def next_step(self) -> str | None:
        """What to run where something is wrong."""
        if not self.problems:
            return None
        made = self.environment
        if made.request is None:
            return f"mend {made.python}, or unset {made.name}"
        if made.read_only:
            return f"evalkit env create {made.engine} --name my-{made.name}"
        return f"evalkit env update {made.name}"


def verify(made: Environment) -> Verdict:
    """Import the environment's engine and libraries in a process of their own."""
    try:
        report = ask(made.python, made.engine, made.child_variables(), check=True)
    except PluginError as error:
        return Verdict(made, (one_line(error, 800),))
    return Verdict(made, report.problems, report.versions, report.device)
