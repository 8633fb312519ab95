"""What an engine uses of a library, written down, and checked against the library's source.

Libraries that need hardware cannot be imported everywhere; their source can be read everywhere. A record is a JSON
object: `library`, `version` and `source` say what it was read from,

- `functions` maps "module:function" or "module:Class.method" to the parameters that are used;
- `fields` maps "module:Class", or "package" for all classes of its modules, to annotated fields, properties, and
  attributes that methods set;
- `words` maps a module to string literals that it must hold: the keys of what it answers with.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeGuard

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Record:
    """A library's API as far as it is used."""

    library: str
    version: str
    source: str
    functions: Mapping[str, list[str]] = field(default_factory=dict)
    fields: Mapping[str, list[str]] = field(default_factory=dict)
    words: Mapping[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Record:
        """The record in a file."""
        return cls(**json.loads(file.read_text(encoding="utf-8")))


def missing(root: Path, record: Record) -> list[str]:
    """What of the record is not in the source below `root`, the folder that holds the package."""
    return [
        *_missing(record.functions, lambda name: _parameters(root, name), "parameter"),
        *_missing(record.fields, lambda name: _fields(root, name), "field"),
        *_missing(record.words, lambda name: _words(root, name), "word"),
    ]


def installed(library: str) -> Path | None:
    """The folder that holds an installed package, which is not imported; None where it is not installed."""
    spec = find_spec(library)
    return None if spec is None or spec.origin is None else Path(spec.origin).parents[1]


def differences(function: Callable[..., Any], used: Iterable[str]) -> list[str]:
    """How a double's parameters differ from those that are recorded."""
    have, want = set(inspect.signature(function).parameters) - {"self"}, set(used)
    return [
        *(f"{function.__qualname__} lacks {name}" for name in sorted(want - have)),
        *(f"{function.__qualname__} has {name}, which is not recorded" for name in sorted(have - want)),
    ]


def _missing(wanted: Mapping[str, list[str]], find: Callable[[str], set[str] | None], kind: str) -> Iterator[str]:
    for name, used in wanted.items():
        found = find(name)
        if found is None:
            yield f"{name} is not there"
            continue
        yield from (f"{name} has no {kind} {one}" for one in used if one not in found)


def _parameters(root: Path, name: str) -> set[str] | None:
    function = _find(root, name)
    if not isinstance(function, Function):
        return None
    arguments = function.args
    return {one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}


def _fields(root: Path, name: str) -> set[str] | None:
    if ":" in name:
        found = _find(root, name)
        return set(_members(found)) if isinstance(found, ast.ClassDef) else None
    folder = root.joinpath(*name.split("."))
    if not folder.is_dir():
        return None
    trees = (_tree(file) for file in sorted(folder.glob("*.py")))
    return {
        field for tree in trees for cls in ast.walk(tree) if isinstance(cls, ast.ClassDef) for field in _members(cls)
    }


def _words(root: Path, module: str) -> set[str] | None:
    file = _file(root, module)
    if file is None:
        return None
    constants = (node.value for node in ast.walk(_tree(file)) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


def _members(cls: ast.ClassDef) -> Iterator[str]:
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, Function) and any(_is_property(one) for one in node.decorator_list):
            yield node.name
        elif isinstance(node, Function):
            yield from (one.attr for one in ast.walk(node) if _is_set_on_self(one))


def _is_property(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Name) and decorator.id == "property"


def _is_set_on_self(node: ast.AST) -> TypeGuard[ast.Attribute]:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    )


def _find(root: Path, name: str) -> ast.AST | None:
    """The class or function behind "module:Class.method"."""
    module, _, path = name.partition(":")
    file = _file(root, module)
    found: ast.AST | None = None if file is None else _tree(file)
    for part in path.split("."):
        body = getattr(found, "body", [])
        found = next((node for node in body if getattr(node, "name", None) == part), None)
    return found


def _file(root: Path, module: str) -> Path | None:
    place = root.joinpath(*module.split("."))
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def main() -> None:
    """`python -m evalkit.testing.signatures RECORD FOLDER`: fail where the package in FOLDER differs."""
    file, root = map(Path, sys.argv[1:])
    problems = missing(root, Record.read(file))
    sys.exit("\n".join(problems) if problems else 0)


if __name__ == "__main__":
    main()
