"""Run the steps of a page, given as JSON on stdin; stop at the first that does not do what the page says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any


def main() -> None:
    """Python blocks share one namespace, as in a notebook; each command is a process of its own."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    for step in json.load(sys.stdin):
        print(f"── {step['place']}", flush=True)
        if step["kind"] == "python":
            # Empty lines in front give tracebacks the page's own line numbers.
            source = "\n" * (step["line"] - 1) + step["text"]
            exec(compile(source, step["place"], "exec"), namespace)
        elif step["kind"] == "command":
            printed += run(step["words"], step["env"], step["status"])
        else:
            compare(step["text"], printed)


def run(words: list[str], env: dict[str, str], status: int) -> str:
    """Run a command; what it printed."""
    options = ["-q", "-p", "no:cacheprovider"] if words[0] == "pytest" else []
    command = [sys.executable, "-P", "-m", *words, *options]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env})
    print(done.stdout, done.stderr, sep="", flush=True)
    if done.returncode != status:
        sys.exit(f"{' '.join(words)}: exit status {done.returncode}, not {status}")
    return done.stdout + done.stderr


def compare(expected: str, printed: str) -> None:
    """Every expected line is among the printed ones."""
    lines = [squeeze(line) for line in printed.splitlines()]
    for line in filter(None, map(squeeze, expected.splitlines())):
        pattern = re.escape(line).replace(r"\.\.\.", ".*")
        if not any(re.fullmatch(pattern, other) for other in lines):
            sys.exit(f"not printed: {line}")


def squeeze(line: str) -> str:
    """`line` with its columns one space apart; rules are left out."""
    return "" if set(line) <= {"─", " "} else " ".join(line.split())


if __name__ == "__main__":
    main()
