"""The documentation as a site: it builds strictly, needs nothing from elsewhere, and its reference leaves no key out."""

import importlib.util
import re
import runpy
import subprocess
import sys

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from pipeline.core.settings import dotted

GROUPS = [path.name for path in (ROOT / "conf").iterdir() if any(path.glob("*.yaml")) and path.name != "experiment"]
FETCHED = r'<(?:script|img|source|iframe)\b[^>]*\bsrc="([^"]+)"|<link\b[^>]*\brel="(?:stylesheet|icon|preconnect)"[^>]*\bhref="([^"]+)"'


@pytest.mark.long  # `make docs` builds it, too
@pytest.mark.skipif(not importlib.util.find_spec("mkdocs"), reason="needs mkdocs: make docs")
def test_a_strict_build_in_which_nothing_comes_from_other_hosts(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        fetched = [link for pair in re.findall(FETCHED, page.read_text()) for link in pair if link]
        assert fetched and not [link for link in fetched if "//" in link], page.name
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", style.read_text()), style.name


def test_each_key_of_the_settings_has_a_row_with_its_meaning():
    pages = runpy.run_path(str(ROOT / "docs" / "site" / "settings.py"))["pages"]()
    for group in GROUPS:
        rows = dict(re.findall(r"^\| `([^`]+)` \|.*\| (.*) \|$", pages[f"{group}.md"], re.M))
        for path in (ROOT / "conf" / group).rglob("*.yaml"):
            settings = OmegaConf.to_container(OmegaConf.load(path))
            settings.pop("defaults", None)
            for key in dotted(settings, *[path.stem] * (group == "sink")):
                parts = f"{group}.{key}".split(".")
                meanings = [rows.get(".".join(parts[:n])) for n in range(2, len(parts) + 1)]
                assert parts[-1] in ("", "_target_") or any(meanings), f"{path}: {key}"
