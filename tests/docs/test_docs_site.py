"""The documents hang together: links, navigation, and the site that mkdocs makes of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from docs.pages import GUIDES, PAGES, PLUGIN_READMES, ROOT, name, prose

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags only mkdocs knows."""


_Loader.add_multi_constructor("!", lambda *_: None)


def anchors(page: Path) -> set[str]:
    """The ids that a page's headings get."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", [*GUIDES, *PAGES, *PLUGIN_READMES], ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of the project, and a heading in it."""
    for link in LINK.findall(prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)} links to {link}"
        assert not anchor or anchor in anchors(target), f"{name(page)} links to {link}"


def test_every_page_is_in_the_navigation() -> None:
    """No page is out of reach, and none is named that is not there."""
    entries = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)["nav"]
    listed = re.findall(r"[\w-]+\.md", str(entries))
    assert sorted(listed) == [page.name for page in PAGES]


def test_site_builds_without_warnings(tmp_path: Path) -> None:
    """`mkdocs build --strict` succeeds."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    # Not --quiet, under which mkdocs does not count its warnings.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "hooks" / "index.html").is_file()
    included = (tmp_path / "site" / "write-an-engine" / "index.html").read_text(encoding="utf-8")
    assert "MySession" in included
