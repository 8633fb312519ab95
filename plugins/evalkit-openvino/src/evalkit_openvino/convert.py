"""`python -m evalkit_openvino.convert JSON`: export a checkpoint, in a process whose memory goes with it.

Prints one line and exits with a status of `Status`.
"""

from __future__ import annotations

import json
import sys
from enum import IntEnum
from typing import Any

BITS = {"int8": 8, "int4": 4}


class Status(IntEnum):
    """How an export ended."""

    DONE = 0
    NO_LIBRARY = 3
    NOT_FOUND = 4
    NOT_POSSIBLE = 5


def convert(path: str, folder: str, weights: str, revision: str | None, trust_remote_code: bool) -> Status:
    """Write the exported model into a new folder."""
    try:
        from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig
    except ImportError as error:
        return _say(Status.NO_LIBRARY, error)
    options: dict[str, Any] = {"load_in_8bit": False}
    if weights in BITS:
        options = {"quantization_config": OVWeightQuantizationConfig(bits=BITS[weights])}
    try:
        loaded = OVModelForCausalLM.from_pretrained(
            path, export=True, compile=False, revision=revision, trust_remote_code=trust_remote_code, **options
        )
        loaded.save_pretrained(folder)
    except OSError as error:
        return _say(Status.NOT_FOUND, error)
    except (ImportError, ValueError, KeyError, TypeError, NotImplementedError, RuntimeError) as error:
        return _say(Status.NOT_POSSIBLE, error)
    return Status.DONE


def _say(status: Status, error: Exception) -> Status:
    print(" ".join(str(error).split()))
    return status


if __name__ == "__main__":
    sys.exit(convert(**json.loads(sys.argv[1])))
