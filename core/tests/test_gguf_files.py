"""A split GGUF is as large as its parts."""

from __future__ import annotations

from pathlib import Path

from evalkit.gguf_files import gguf_bytes


def test_all_parts_of_a_split_count(tmp_path: Path) -> None:
    """Those beside the first that belong to it, and no others."""
    for name in ("m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00002-of-00002.gguf", "n-00003-of-00003.gguf"):
        (tmp_path / name).write_bytes(b"x" * 10)
    assert gguf_bytes(tmp_path / "m-00001-of-00003.gguf") == 20
    assert gguf_bytes(tmp_path / "n-00003-of-00003.gguf") == 10
