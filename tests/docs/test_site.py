"""The site is built without a warning, and loads nothing from anywhere else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .executor import ROOT

pytestmark = pytest.mark.slow  # for building the site

LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "object": "data",
    "link": "href",
}
"""Attributes whose address a browser fetches by itself"""
RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect", "dns-prefetch"}


class Loaded(HTMLParser):
    """Addresses that a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "link" and not RELATIONS & set((given.get("rel") or "").split()):
            return
        if tag in LOADS:
            self.addresses.append(given.get(LOADS[tag]) or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", ".mkdocs.yml"]
    done = subprocess.run(
        [*command, "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1", "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        parser = Loaded()
        parser.feed(page.read_text(encoding="utf-8"))
        outside = [address for address in parser.addresses if urlsplit(address).netloc]
        assert not outside, f"{page.relative_to(site)} loads {outside}"
        assert parser.addresses
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", text), f"{sheet.name} loads from elsewhere"


def test_what_is_made_from_the_code_is_there(site: Path) -> None:
    api = (site / "reference" / "api.html").read_text(encoding="utf-8")
    assert 'id="mofa_compiler.apply"' in api and 'id="mofa_compiler.base.errors.MofaError"' in api
    assert 'id="mofa-rewrite"' in (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert 'id="widen-portion"' in (site / "reference" / "passes.html").read_text(encoding="utf-8")
    # links are written for the repository
    assert 'href="how-to/engine.html"' in (site / "index.html").read_text(encoding="utf-8")
    assert 'href="../index.html"' in (site / "how-to" / "ci.html").read_text(encoding="utf-8")


def test_figures_are_drawn(site: Path) -> None:
    method = (site / "method.html").read_text(encoding="utf-8")
    figures = re.findall(r'<img [^>]*src="([^"]+\.svg)"', method)
    assert figures
    for figure in figures:
        assert (site / figure).read_text(encoding="utf-8").count("<path") > 10
