"""The process that holds the model: `python -m evalkit.isolation.child READ WRITE`, two inherited file descriptors.

It builds one engine's session, answers calls one after another, and ends with its parent. What libraries print goes
to the log: nothing but frames goes over the descriptors.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from evalkit.encoding import from_plain, to_plain
from evalkit.errors import EvalkitError
from evalkit.isolation.channel import Channel, Frame
from evalkit.model import Model
from evalkit.requests import GenerationPart

PLAIN_CALLS = ("gc", "keep_prefixes", "describe_execution", "apply_chat_template")
STREAMS = ("generate_continuous", "loglikelihood_continuous", "loglikelihood_rolling_continuous")


class Child:
    """Calls that arrive, and the session that answers them."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.calls: queue.Queue[Frame] = queue.Queue()
        self.items: queue.Queue[Frame] = queue.Queue()
        self.cancelled = -1
        """The last call that nobody waits for any more."""
        self._running: set[Any] = set()
        """Keys that are asked and not answered."""
        self._silent: set[Any] = set()
        """Keys of which no parts are wanted."""

    def listen(self) -> None:
        """Sort what arrives, in a thread of its own, until the parent ends; then end this process and its children."""
        try:
            while (frame := self.channel.receive()) is not None:
                if "cancel" in frame:
                    self.cancelled = frame["cancel"]
                    self.items.put(frame)
                elif "items" in frame:
                    self.items.put(frame)
                else:
                    self.calls.put(frame)
        except (EOFError, OSError):
            pass
        end_group()

    def serve(self) -> None:
        """Build the session, then answer calls until one says `close`."""
        build = self.calls.get()
        answered = self._guarded(build, partial(self._build, build))
        while answered and (call := self.calls.get())["call"] != "close":
            self._guarded(call, partial(self._answer, call))
        if answered:
            self.session.close()
        self.channel.send({"id": -1, "closed": True})

    def _build(self, frame: Frame) -> Any:
        from evalkit.answers.identity import packages_of
        from evalkit.runs.resolve import build_engine, resolve_model

        engine, spec = build_engine(frame["engine"], frame["engine_args"])
        self.session = engine.build(resolve_model(Model(**frame["model"]), spec))
        return {
            "engine": engine.to_dict(),
            "max_length": getattr(self.session, "max_length", None),
            "takes_messages": getattr(self.session, "takes_messages", False),
            "python": platform.python_version(),
            "packages": _hash(packages_of(frame["engine"], type(engine))),
        }

    def _guarded(self, frame: Frame, run: Callable[[], Any]) -> bool:
        """Whether the call was answered; what it raises goes to the parent, with its traceback in the log."""
        try:
            self.channel.send({"id": frame["id"], "value": run(), "counts": self._counts()})
        except EvalkitError as error:
            self.channel.send({"id": frame["id"], "error": [type(error).__name__, str(error)]})
            return False
        except Exception as error:
            traceback.print_exc()
            text = f"{type(error).__name__}: {error}"
            self.channel.send({"id": frame["id"], "error": ["", text], "traceback": traceback.format_exc()})
            return False
        return True

    def _answer(self, frame: Frame) -> Any:
        name, arguments = frame["call"], frame.get("arguments", {})
        if name in STREAMS:
            requests = self._arrivals(frame["id"], live=False)
            return self._stream(frame["id"], getattr(self.session, name)(requests, **arguments))
        if name == "generate_live":
            feed = self._arrivals(frame["id"], live=True)
            answers = self.session.generate_live(feed, wants_parts=lambda key: key not in self._silent)
            return self._stream(frame["id"], answers)
        if name == "too_long":
            found = self.session.too_long([from_plain(plain) for plain in frame["requests"]])
            return [[item.index, item.length, item.limit, item.fatal] for item in found]
        assert name in PLAIN_CALLS
        return getattr(self.session, name)(**arguments)

    def _counts(self) -> list[int] | None:
        """Tokens so far; with every frame, because a parent that is reading a stream cannot ask."""
        counts = self.session.token_counts()
        return None if counts is None else [counts.requested, counts.unique, counts.computed]

    def _stream(self, number: int, answers: Iterator[tuple[Any, Any]]) -> None:
        for key, output in answers:
            if not isinstance(output, GenerationPart):
                self._running.discard(key)
                self._silent.discard(key)
            if self.cancelled >= number:
                break
            self.channel.send({"id": number, "item": [key, to_plain(output)], "counts": self._counts()})

    def _arrivals(self, number: int, *, live: bool) -> Iterator[tuple[Any, Any] | None]:
        """What the parent asks in this call, as it arrives; if `live`, None while nothing does and something runs."""
        self._running.clear()
        while True:
            try:
                frame = self.items.get(block=not (live and self._running))
            except queue.Empty:
                yield None
                continue
            if frame.get("cancel", -1) >= number:
                return
            if frame.get("id") != number:
                continue
            for key, plain, *wants in frame["items"]:
                if plain is not None:
                    self._running.add(key)
                if wants == [False]:
                    self._silent.add(key)
                yield key, None if plain is None else from_plain(plain)
            if frame.get("end"):
                return


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def end_group() -> None:
    """End this process and those that it started: without the parent nobody wants their work."""
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main() -> None:
    """Serve the parent that started this process."""
    channel = Channel(int(sys.argv[1]), int(sys.argv[2]))
    child = Child(channel)
    threading.Thread(target=child.listen, daemon=True).start()
    # Ctrl-C in the terminal is the parent's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child.serve()


if __name__ == "__main__":
    main()
