"""What a job's process runs: `python -m evalkit_http.service.child SERVER_PID WORDS...`, that is `evalkit WORDS...`.

It dies with the server that started it: a server that comes back continues the job, and two processes must not.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import NoReturn

PR_SET_PDEATHSIG = 1


def main() -> NoReturn:
    """Tie this process to its server, then be the command line."""
    server = int(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The server may have died before the tie was made.
    if os.getppid() != server:
        sys.exit(f"the server (process {server}) is gone")
    sys.argv = ["evalkit", *sys.argv[2:]]
    from evalkit.cli.main import main as evalkit

    evalkit()


if __name__ == "__main__":
    main()
