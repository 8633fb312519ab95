"""A run that is killed at any moment resumes to the results of an unbroken one."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from support import FAKE, Evalkit, clean_environment

from evalkit.testing.end_to_end import kept

KILLS = 20
WORDS = ("starter", *FAKE, "--limit", "60", "--engine-arg", "batch_tokens=200", "--json")


def test_twenty_kills_lose_and_double_nothing(evalkit: Evalkit, tmp_path: Path) -> None:
    """After SIGKILL at 20 random moments: every answer written is kept, none is asked twice, results are equal."""
    reference = json.loads(evalkit("run", *WORDS, "--output", "whole").stdout)
    whole = kept(tmp_path / "whole")
    folder, chance = tmp_path / "broken", random.Random(time.time_ns())
    before: dict[str, str] = {}
    longest = 1.2
    for kill in range(KILLS):
        start = ["resume", "broken"] if (folder / "run.json").exists() else ["run", *WORDS, "--output", "broken"]
        slow = ["--engine-arg", "delay=0.08"] if start[0] == "run" else []
        with subprocess.Popen(
            [sys.executable, "-m", "evalkit", *start, *slow],
            cwd=tmp_path,
            env=clean_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            moment = time.monotonic() + chance.uniform(0.05, longest)
            # So that the last start still finds something to do, however fast the machine has become meanwhile.
            most = max(len(before) + 1, len(whole) * (kill + 1) // (KILLS + 1))
            while time.monotonic() < moment and len(kept(folder)) < most:
                time.sleep(0.005)
            process.kill()
        after = kept(folder)
        if not after:
            # A busy machine takes longer to start.
            longest *= 1.25
        assert before.items() <= after.items(), f"kill {kill} lost or changed an answer"
        before = after
    assert 0 < len(before) < len(whole), "the kills should fall within the run"
    done = evalkit("resume", "broken", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["results"] == reference["results"]
    assert found["errors"] == 0
    assert kept(folder).keys() == whole.keys()
    # Only a batch in flight at a kill may have been computed twice.
    assert found["tokens"]["computed"] <= reference["tokens"]["computed"] * 2
    # Answers count once, but for windows of a long text that was not finished at a kill.
    requested = reference["tokens"]["requested"]
    assert requested <= found["tokens"]["requested"] <= requested * 1.1


def test_damaged_last_record_is_asked_again(evalkit: Evalkit, tmp_path: Path) -> None:
    """A record whose bytes changed on the disk is detected, asked again, and mentioned."""
    reference = json.loads(evalkit("run", *WORDS, "--output", "mine").stdout)
    with closing(sqlite3.connect(tmp_path / "mine" / "journal.sqlite")) as db:
        last = "(SELECT MAX(rowid) FROM outputs)"
        db.execute(f"UPDATE outputs SET output = replace(output, '-', '+') WHERE rowid = {last}")
        db.commit()
    (tmp_path / "mine" / "results.json").unlink()
    manifest = tmp_path / "mine" / "run.json"
    manifest.write_text(manifest.read_text().replace('"status": "finished"', '"status": "running"'))
    done = evalkit("resume", "mine", "--json")
    assert done.returncode == 0, done.stderr
    assert "1 damaged journal records were asked again" in done.stderr
    assert json.loads(done.stdout)["results"] == reference["results"]
