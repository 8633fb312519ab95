"""Frames between a session and the process that holds its model: a length, then JSON. No pickle."""

from __future__ import annotations

import json
import os
import select
import struct
import threading
from typing import Any

LENGTH = struct.Struct(">Q")
PIECE = 1 << 16
Frame = dict[str, Any]


class Channel:
    """Frames over two file descriptors, both of which it owns. `send` may be called by several threads."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing
        self._received = bytearray()
        self._lock = threading.Lock()
        self._closed = False

    def send(self, frame: Frame) -> None:
        """Write one frame. Raises BrokenPipeError where nobody reads any more."""
        data = json.dumps(frame).encode()
        view = memoryview(LENGTH.pack(len(data)) + data)
        with self._lock:
            while view:
                view = view[os.write(self._writing, view) :]

    def receive(self, timeout: float | None = None) -> Frame | None:
        """The next frame; None where none comes within `timeout` seconds. Raises EOFError once the other side ended."""
        while (frame := self._whole()) is None:
            if timeout is not None and not select.select([self._reading], [], [], timeout)[0]:
                return None
            data = os.read(self._reading, PIECE)
            if not data:
                raise EOFError("the other side ended")
            self._received += data
        return frame

    def _whole(self) -> Frame | None:
        if len(self._received) < LENGTH.size:
            return None
        end = LENGTH.size + LENGTH.unpack_from(self._received)[0]
        if len(self._received) < end:
            return None
        frame: Frame = json.loads(self._received[LENGTH.size : end])
        del self._received[:end]
        return frame

    def close(self) -> None:
        """Close both sides. May be called more than once."""
        if not self._closed:
            self._closed = True
            os.close(self._reading)
            os.close(self._writing)
