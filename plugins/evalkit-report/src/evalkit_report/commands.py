"""`evalkit report` and `evalkit view`: runs as pages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evalkit.cli import complete
from evalkit.cli.output import JSON, print_json
from evalkit.errors import ConfigError

Runs = Annotated[
    list[str], typer.Argument(metavar="RUN...", autocompletion=complete.run_names, help="Folders, names, or 'latest'.")
]


def add(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("report")(report)
    app.command("view")(view)


def report(
    runs: Runs,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="File to write [default: report-RUN.html]")
    ] = None,
    as_json: bool = JSON,
) -> None:
    """Make one self-contained HTML page of runs: scores, plots, every sample."""
    from evalkit.reading.finished import open_runs
    from evalkit.runs.folder import find_run
    from evalkit_report.page import write_report

    opened = open_runs([find_run(name) for name in runs])
    made = write_report(opened, html or Path(f"report-{opened[0].path.resolve().name}.html"))
    if as_json:
        return print_json({"html": str(made.path), "samples": made.samples, "bytes": made.size})
    typer.echo(f"{made.samples:,} samples, {made.size / 1e6:.1f} MB: {made.path}")


def view(
    folder: Annotated[
        Path | None, typer.Argument(help="Where the runs are [default: EVALKIT_RUNS_DIR, else ./runs]")
    ] = None,
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="Port; 0 takes a free one.")
    ] = 8765,
) -> None:
    """Serve a folder of runs to this machine's browser: a leaderboard, and each run's report."""
    from evalkit.runs.folder import runs_root
    from evalkit_report.server import make_server

    root = folder or runs_root()
    if not root.is_dir():
        raise ConfigError(f"there is no folder {root}. Start a run with: evalkit run TASK ..., or name another folder")
    with make_server(root, port) as server:
        typer.echo(f"runs of {root} at http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("ended", err=True)
