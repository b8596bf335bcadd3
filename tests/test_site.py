"""The documentation as a site: it builds strictly, needs nothing from elsewhere, and its reference leaves no key out."""

import importlib.util
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from pipeline.core.settings import dotted

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("mkdocs"), reason="needs mkdocs: make docs")
GROUPS = [path.name for path in (ROOT / "conf").iterdir() if any(path.glob("*.yaml")) and path.name != "experiment"]
FETCHED = r'<(?:script|img|source|iframe)\b[^>]*\bsrc="([^"]+)"|<link\b[^>]*\brel="(?:stylesheet|icon|preconnect)"[^>]*\bhref="([^"]+)"'


@pytest.fixture(scope="module")
def site(once):
    """The site, built once for all workers. A broken link or a reference to nothing ends the build."""
    return once("site", build)


def build(folder):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_comes_from_other_hosts(site):
    for page in site.rglob("*.html"):
        fetched = [link for pair in re.findall(FETCHED, page.read_text()) for link in pair if link]
        assert fetched and not [link for link in fetched if "//" in link], page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", style.read_text()), style.name


@pytest.mark.parametrize("group", GROUPS)
def test_each_key_of_the_settings_has_a_row_with_its_meaning(site, group):
    page = (site / "reference" / f"{group}.html").read_text()
    rows = {key: meaning for key, *_, meaning in (re.findall(r"<td>(.*?)</td>", row, re.S) for row in re.findall(r"<tr>\s*(<td><code>.*?)</tr>", page, re.S))}  # fmt: skip
    for path in (ROOT / "conf" / group).rglob("*.yaml"):
        settings = OmegaConf.to_container(OmegaConf.load(path))
        settings.pop("defaults", None)
        for key in dotted(settings, *[path.stem] * (group == "sink")):
            parts = f"{group}.{key}".split(".")
            known = [row for n in range(2, len(parts) + 1) if (row := f"<code>{'.'.join(parts[:n])}</code>") in rows]
            assert parts[-1] in ("", "_target_") or any(rows[row] for row in known), key
