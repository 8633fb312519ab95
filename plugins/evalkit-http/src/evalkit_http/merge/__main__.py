"""`python -m evalkit_http.merge WORDS...` is `evalkit merge WORDS...`."""

from __future__ import annotations

import sys

from evalkit.cli.main import main

if __name__ == "__main__":
    sys.argv = ["evalkit", "merge", *sys.argv[1:]]
    main()
