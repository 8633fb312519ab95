"""Read documents from JSONL, CSV and Parquet files, compressed or not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalkit.datasets import DatasetSpec
from evalkit.errors import DataError, DatasetNotFoundError, MissingDependencyError, one_line
from evalkit.hooks import hookimpl

Doc = dict[str, Any]
SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")


@hookimpl
def open_dataset(dataset: DatasetSpec, split: str, data_dir: str | None) -> Sequence[Doc] | None:
    """Documents of a data set that lists its files."""
    if not dataset.files:
        return None
    if split not in dataset.files:
        raise DatasetNotFoundError(
            f"data set {dataset.label!r} has no split {split!r}. It has: {', '.join(sorted(dataset.files))}"
        )
    return read_file(Path(dataset.files[split]))


def read_file(path: Path) -> list[Doc]:
    """All documents of one file. Raises DataError with the line at fault."""
    if not path.is_file():
        raise DatasetNotFoundError(f"data file {path} does not exist. Check the path")
    try:
        if path.name.endswith(".parquet"):
            return _read_parquet(path)
        text = _read_text(path)
        if path.name.removesuffix(".gz").endswith(".csv"):
            return _read_csv(text)
    except (OSError, EOFError, ValueError, zlib.error, csv.Error) as error:
        raise DataError(f"data file {path} cannot be read ({one_line(error)}). Fetch it again") from error
    return _parse_lines(path, text)


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    # Files saved by a spreadsheet may begin with a byte order mark.
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")


def _read_csv(text: str) -> list[Doc]:
    csv.field_size_limit(2**31 - 1)  # the default refuses a long article
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _parse_lines(path: Path, text: str) -> list[Doc]:
    docs = []
    # Only "\n" ends a line: texts may hold U+2028, at which str.splitlines() would cut.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            doc = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"data file {path}, line {number}: not JSON ({error}). Fetch it again") from error
        if not isinstance(doc, dict):
            raise DataError(f"data file {path}, line {number}: a {type(doc).__name__} where an object is expected")
        docs.append(doc)
    return docs


def _read_parquet(path: Path) -> list[Doc]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingDependencyError(
            f"reading {path.name} needs pyarrow. Install it with: pip install 'evalkit-core[parquet]'"
        ) from error
    rows: list[Doc] = parquet.read_table(path).to_pylist()
    return rows
