"""Every error that evalkit raises on purpose. Each message is one line: the cause, then the next step.

    EvalkitError
    ├── ConfigError              an option, a YAML file or an argument that cannot be used
    │   └── UnknownNameError     no engine, task, model or metric of that name
    ├── PluginError              a plugin that cannot be loaded, or two that claim one name
    │   └── MissingDependencyError   a library that an engine or a reader needs is not installed
    ├── ModelError               a model that cannot be loaded
    │   └── ModelNotFoundError   neither a path, a registered model nor reachable on the hub
    ├── DataError                documents that cannot be used
    │   ├── DatasetNotFoundError     neither in the mirror nor reachable
    │   ├── EmptyDatasetError        a split without documents
    │   └── DocumentError            a document that lacks a field, or has a wrong value in it
    ├── RequestError             a request that no engine could answer (longer than the context, ...)
    ├── RunError                 a run folder that cannot be used
    │   ├── RunNotFoundError
    │   ├── RunLockedError       another process is writing to it
    │   └── DiskFullError        nothing is lost: free some space and resume
    ├── EngineDiedError          the process that an engine ran in ended; what was answered is kept
    ├── ServerStartError         a server that was started does not get ready, or its port is not its own
    └── OutOfMemoryError         raised by engines; the core answers with a smaller batch

The command line prints an EvalkitError as one line on stderr and exits with status 2; any other exception
is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EvalkitError(Exception):
    """Base of all expected errors."""


class ConfigError(EvalkitError):
    """An option, file or argument cannot be used as given."""


class UnknownNameError(ConfigError):
    """A name that nothing installed provides."""


class PluginError(EvalkitError):
    """A plugin is broken, or conflicts with another."""


class MissingDependencyError(PluginError):
    """A needed library is not installed."""


class ModelError(EvalkitError):
    """A model was found but cannot be used."""


class ModelNotFoundError(ModelError):
    """A model is nowhere to be found."""


class DataError(EvalkitError):
    """Documents cannot be used."""


class DatasetNotFoundError(DataError):
    """A data set or split is nowhere to be found."""


class EmptyDatasetError(DataError):
    """A split holds no documents."""


class DocumentError(DataError):
    """One document lacks a field or holds an unusable value."""


class RequestError(EvalkitError):
    """A request cannot be answered by this model."""


class RunError(EvalkitError):
    """A run folder cannot be used."""


class RunNotFoundError(RunError):
    """No run lies where one was asked for."""


class RunLockedError(RunError):
    """Another process holds the run folder."""


class DiskFullError(RunError):
    """The disk is full; what was journaled is safe."""


class EngineDiedError(EvalkitError):
    """The process of an isolated engine ended."""


class ServerStartError(EvalkitError):
    """A server that was started for a session cannot be used."""


class OutOfMemoryError(EvalkitError):
    """The device ran out of memory; smaller batches may fit."""


def one_line(error: BaseException, limit: int = 300) -> str:
    """The message of `error` on one line, cut at `limit` characters; its type where it has no message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the nearest known names, or with all of them when they are few, or an empty string."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f" Did you mean {' or '.join(repr(n) for n in near)}?"
    if 0 < len(names) <= 12:
        return f" Known: {', '.join(names)}."
    return ""
