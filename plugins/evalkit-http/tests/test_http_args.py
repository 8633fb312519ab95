"""ServerArgs: values that cannot be used are refused when it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import ConfigError
from evalkit_http import ServerArgs
from evalkit_http.security import SecuritySettings


def test_the_settings_of_the_lmms_server_work() -> None:
    """The example of lmms-eval's guide needs another import and nothing else."""
    args = ServerArgs(host="0.0.0.0", port=8000, max_completed_jobs=200, temp_dir_prefix="lmms_eval_")
    assert (args.host, args.port, args.max_completed_jobs) == ("0.0.0.0", 8000, 200)


@pytest.mark.parametrize(
    "bad",
    [
        {"port": 0},
        {"port": 65536},
        {"port": True},
        {"host": " "},
        {"max_completed_jobs": 0},
        {"temp_dir_prefix": "../x"},
        {"job_timeout": 0},
        {"job_timeout": float("nan")},
        {"checkpoint_wait": -1},
        {"cpu_slots": 0},
    ],
    ids=str,
)
def test_bad_values_are_named(bad: dict[str, Any]) -> None:
    """The error is a ValueError, as in lmms-eval, and one line that names the setting."""
    with pytest.raises(ValueError, match=next(iter(bad))) as caught:
        ServerArgs(**bad)
    assert isinstance(caught.value, ConfigError)


def test_tokens_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """EVALKIT_TOKENS guards a server that is started from Python, too; no setting shows them."""
    monkeypatch.setenv("EVALKIT_TOKENS", "submit:0123456789abcdef0123")
    args = ServerArgs()
    assert args.guards.tokens
    assert "0123456789abcdef" not in repr(args)


def test_the_guards_know_the_host() -> None:
    """What is bound and what is guarded are the same address."""
    assert ServerArgs(host="::1", security=SecuritySettings()).guards.host == "::1"


def test_jobs_are_kept_beside_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder of its own the service uses that of the runs."""
    monkeypatch.setenv("EVALKIT_RUNS_DIR", "elsewhere")
    assert ServerArgs().folder == Path("elsewhere/service")
