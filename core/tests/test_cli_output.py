"""Tables fit a terminal and are whole everywhere else."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.text import Text

from evalkit.cli.compare import COLUMNS, _cells, _print
from evalkit.cli.output import MANY_ROWS, print_table
from evalkit.runs.compare_row import Row

STYLE = re.compile("\x1b\\[[0-9;]*m")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


@pytest.mark.parametrize("columns", ["100", "90"])
def test_the_table_of_a_comparison_fits_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    """Names of usual length stand on one line of 100 characters; where there is less room, only they are folded."""
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    numbers = (0.2345, 0.7345, -0.5, (-0.6590, -0.3886), 0.00001, 0.00002, "McNemar")
    row = Row("b", "starter_questions", "acc_norm", "none", True, 40, *numbers, worse=(1, 2), better=(3,))
    stream = Terminal()
    print_table(COLUMNS, [_cells(row, wide=False)], stream, folding="task", tight=True)
    lines = STYLE.sub("", stream.getvalue()).splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert "-0.5000 [-0.6590, -0.3886] ▼" in lines[2]
    assert len(lines) == (3 if columns == "100" else 4)


def test_claims_stand_before_what_explains_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Groups and tasks that stand alone come first; tasks within a group are indented; each other run has its table."""
    plain = Row("b", "alone", "acc", "none", True, 4, 0.5, 0.5, 0.0, p_value=1.0, corrected=1.0, test="McNemar")
    parts = tuple(replace(plain, task=name, detail=True, worse=(1,)) for name in ("one", "two"))
    group = replace(plain, task="all", parts=parts, corrected=0.01, difference=-0.5)
    rows = [plain, *parts, group, replace(plain, run="c")]
    _print("a", [(row, []) for row in rows], wide=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "compared" in line] == ["b, compared with a:", "c, compared with a:"]
    assert [line.rstrip().partition(" acc")[0].rstrip() for line in lines[4:8]] == ["alone", "all", "  one", "  two"]
    assert "-0.5000 ▼" in lines[5]
    assert "+0 -2" in lines[5]
    assert lines[8].startswith("▲ better, ▼ worse")


def test_styles_are_for_terminals_only() -> None:
    """What goes to a file has no colours."""
    stream = io.StringIO()
    print_table(("a", "b"), [(Text("x", "red"), None)], stream)
    assert stream.getvalue().split() == ["a", "b", "─" * len(stream.getvalue().splitlines()[1]), "x"]


def test_a_long_table_is_written_at_once() -> None:
    """A pipe or a terminal takes a write a row badly: lm-eval has 13,000 tasks."""

    class Counting(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            return super().write(text)

    stream = Counting()
    print_table(("task", "summary"), [(f"task_{n}", "Ünïcode") for n in range(MANY_ROWS + 1)], stream)
    assert stream.writes == 1
    assert stream.getvalue().splitlines()[2] == "task_0      Ünïcode"
