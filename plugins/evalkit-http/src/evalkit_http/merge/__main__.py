"""`python -m evalkit_http.merge CHECKPOINT`: prints the result as JSON; exit status 2 and one line on an error."""

from __future__ import annotations

import argparse
import sys

from evalkit.errors import EvalkitError, one_line
from evalkit_http.merge.layout import FOLDERS
from evalkit_http.merge.merging import merge
from evalkit_http.merge.protocol import MergeResponse


def main(words: list[str] | None = None) -> int:
    """Merge one checkpoint, telling the progress on stderr."""
    parser = argparse.ArgumentParser(prog="python -m evalkit_http.merge", description=__doc__.partition(":")[0])
    parser.add_argument("checkpoint", help="folder that holds pytorch_model_fsdp_0, or checkpoint-N folders")
    parser.add_argument("--output", help="folder to be made [default: merged, in the checkpoint]")
    parser.add_argument("--type", dest="kind", choices=sorted(FOLDERS), default="regular", help="[default: regular]")
    given = parser.parse_args(words)
    try:
        path = merge(given.checkpoint, given.output, given.kind, on_progress=_tell)
    except EvalkitError as error:
        print(f"evalkit: {one_line(error, 1000)}", file=sys.stderr)
        return 2
    print(MergeResponse(success=True, message="merged", merged_path=str(path)).model_dump_json(exclude={"job_id"}))
    return 0


def _tell(done: int, total: int) -> None:
    if done == total or done % 50 == 0:
        print(f"merged {done} of {total} tensors", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
