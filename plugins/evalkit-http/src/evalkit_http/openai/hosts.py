"""Several hosts that hold one model: rank 0 serves, the others do the same work in lock-step.

Rank 0 says each unit of work before it does it, and each item of a generation's feed as its session takes it; the
others hear the same and call their sessions alike. A word is a tuple: ("score", requests), ("generate",) and then
("item", ...) until ("end",), ("broken",) where rank 0's generation failed, ("idle",), ("stop",).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Protocol

from evalkit.engine import BaseInferenceSession
from evalkit.errors import ConfigError, EvalkitError, MissingDependencyError, one_line
from evalkit.requests import GenerationRequest, LoglikelihoodRequest, Output, Request

Word = tuple[Any, ...]
Item = tuple[int, GenerationRequest | None] | None
TIMEOUT = timedelta(minutes=10)
"""A host that is silent for longer is lost; an idle one is heard every few seconds, but a pass may take long."""
log = logging.getLogger(__name__)


class HostLostError(EvalkitError):
    """Another host ended, or cannot be reached."""


class BrokenError(Exception):
    """Rank 0's generation failed: this host gives up the same one."""


class Hosts(Protocol):
    """The hosts, as rank 0 sees them."""

    lost: tuple[type[Exception], ...]
    """What `say` raises where a host is gone."""

    def connect(self) -> None:
        """Meet the other hosts, once this one's model is loaded."""
        ...

    def say(self, word: Word) -> None:
        """Tell all others."""
        ...

    def leading(self, feed: Iterator[Item]) -> Iterator[Item]:
        """The feed, each item told to the others before it is used here."""
        ...


class Alone:
    """One host."""

    lost: tuple[type[Exception], ...] = ()

    def connect(self) -> None:
        """Nobody to meet."""

    def say(self, word: Word) -> None:
        """Nobody to tell."""

    def leading(self, feed: Iterator[Item]) -> Iterator[Item]:
        """The feed itself."""
        return feed


class TorchHosts:
    """Hosts that torchrun or the like started, speaking through torch.distributed."""

    lost: tuple[type[Exception], ...] = (HostLostError,)

    def __init__(self) -> None:
        self.rank, self.size = rank(), size()
        self._group: Any = None

    def connect(self) -> None:
        """Meet the other hosts. The engine may have set up torch.distributed for itself: its group is left alone."""
        try:
            import torch.distributed as dist
        except ImportError as error:
            raise MissingDependencyError(
                "several hosts need torch. Install it, or start one process only (WORLD_SIZE unset)"
            ) from error
        try:
            if not dist.is_initialized():
                dist.init_process_group("gloo", timeout=TIMEOUT)
            self._group = dist.new_group(backend="gloo", timeout=TIMEOUT)
        except (RuntimeError, ValueError) as error:
            raise HostLostError(
                f"the hosts cannot meet ({one_line(error, 160)}). Start all {self.size} of them, with one MASTER_ADDR "
                "and MASTER_PORT"
            ) from error

    def say(self, word: Word) -> None:
        """Tell all others. Raises HostLostError."""
        if self._group is not None:
            self._broadcast([word])

    def hear(self) -> Word:
        """What rank 0 says next. Raises HostLostError."""
        heard: list[Any] = [None]
        self._broadcast(heard)
        word: Word = heard[0]
        return word

    def leading(self, feed: Iterator[Item]) -> Iterator[Item]:
        """The feed, each item told to the others before it is used here."""
        for item in feed:
            self.say(("item", item))
            yield item
        self.say(("end",))

    def following(self) -> Iterator[Item]:
        """The feed that rank 0's session reads."""
        while (word := self.hear())[0] == "item":
            yield word[1]
        if word[0] != "end":
            raise BrokenError

    def _broadcast(self, words: list[Any]) -> None:
        import torch.distributed as dist

        try:
            dist.broadcast_object_list(words, src=0, group=self._group)
        except RuntimeError as error:
            self._group = None
            raise HostLostError(
                f"another host was lost ({one_line(error, 160)}). Start all {self.size} hosts again"
            ) from error


def follow(session: BaseInferenceSession, hosts: TorchHosts) -> None:
    """Do what rank 0 does, until it stops. Raises HostLostError."""
    while True:
        word = hosts.hear()
        if word[0] == "stop":
            return
        try:
            if word[0] == "score":
                for _ in score(session, word[1]):
                    pass
            elif word[0] == "generate":
                for _ in session.generate_live(hosts.following(), wants_parts=lambda key: False):
                    pass
        except HostLostError:
            raise
        except BrokenError:
            log.warning("a generation failed on the first host")
        except Exception:
            # Rank 0 failed in the same call, and answers its clients.
            log.exception("%s failed", word[0])


def score(session: BaseInferenceSession, requests: Sequence[Request]) -> Iterator[tuple[int, Output]]:
    """Score requests of one kind, each yielded with its place once it is done."""
    numbered: Any = enumerate(requests)
    if isinstance(requests[0], LoglikelihoodRequest):
        return session.loglikelihood_continuous(numbered)
    return session.loglikelihood_rolling_continuous(numbered)


def rank() -> int:
    """This process's number among the hosts."""
    return _number("RANK", 0)


def size() -> int:
    """How many processes serve the model together."""
    return _number("WORLD_SIZE", 1)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "") or str(default)
    if not text.isdecimal():
        raise ConfigError(f"{name} is {text!r}, not a number. Start the hosts with torchrun, or unset it")
    return int(text)
