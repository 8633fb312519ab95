"""How long `import evalkit` and `evalkit list-engines` take, as medians over fresh processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 15
COMMANDS = {
    "bare python": ["-c", "pass"],
    "import evalkit": ["-c", "import evalkit"],
    "evalkit list-engines": ["-m", "evalkit", "list-engines"],
    "evalkit list-tasks": ["-m", "evalkit", "list-tasks"],
    "evalkit --help": ["-m", "evalkit", "--help"],
}


def milliseconds(words: list[str]) -> float:
    """Wall time of one fresh process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    """Print a line a command; rounds alternate, so that a busy machine is fair to all."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, words in COMMANDS.items():
            times[name].append(milliseconds(words))
    for name, found in times.items():
        print(f"{name:24}{statistics.median(found):8.0f} ms (min {min(found):.0f}, max {max(found):.0f})")


if __name__ == "__main__":
    main()
