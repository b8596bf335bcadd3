"""Damaged files of every kind, thousands of them, through infer.py: each is a row, and nothing else happens.

The files are made here from a seed, so that a failure can be repeated: file number N is ``mutant(N, seeds)`` for ever.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, lively_model, run, small_model
from damage import mutant, pictures, sounds

CODES = dict(part.split("\n", 1) for part in (ROOT / "docs" / "codes.md").read_text().split("\n## ")[1:])
WARNINGS, ERRORS = (set(re.findall(r"`(\w+)`", CODES[f"{kind} of files"])) for kind in ("Warnings", "Errors"))
HARMFUL = {"sounds": [], "pictures": [3862, 22073]}  # numbers of mutants


# ---------------------------------------------------------------- what comes of it
@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Small untrained models on disk, of sound and of pictures."""
    folder = tmp_path_factory.mktemp("models")
    small_model().save(folder / "sounds.safetensors")
    seeing = ["extractor=frames", "extractor.height=16", "extractor.width=16", "encoder=image_recurrent"]
    lively_model(*seeing, "encoder.hidden=8", "head=mean", times=1.0).save(folder / "pictures.safetensors")
    return folder


def classified(model, numbers, seeds, folder):
    """The rows of so many mutants, by number; whatever they are, there is one for each and nothing else happens."""
    files = folder / "files"
    files.mkdir()
    for number in numbers:
        ending, data = mutant(number, seeds)
        (files / f"{number}.{ending}").write_bytes(data)
    out = folder / "rows.jsonl"
    settings = ["source=files", f"source.paths={files}", "sink=jsonl", f"sink.jsonl.path={out}"]
    done = run("infer.py", f"checkpoint={model}", *settings, "source.longest=600", cwd=folder)
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode in (0, 3) and "Traceback" not in said, said[-4000:]
    with open(out, encoding="utf-8") as lines:
        rows = {int(Path(row["path"]).stem): row for row in map(json.loads, lines)}
    assert sorted(rows) == sorted(numbers)
    for row in rows.values():
        codes = set(row["code"].split())
        assert row["status"] in ("ok", "warning", "error") and codes <= (
            ERRORS if row["status"] == "error" else WARNINGS
        ), row
        assert not re.match(r"\w+Error\b", row["reason"]), f"nobody thought of this: {row}"
        assert (row["status"] == "ok") == (not codes) and (row["status"] == "error") == (row["label"] == ""), row
    shutil.rmtree(files)
    return rows


def test_every_damaged_file_is_a_row(models, tmp_path):
    """Some hundred of them, and those that once did harm."""
    for kind, seeds in (("sounds", sounds()), ("pictures", pictures())):
        folder = tmp_path / kind
        folder.mkdir()
        rows = classified(models / f"{kind}.safetensors", [*range(150), *HARMFUL[kind]], seeds, folder)
        found = [row["status"] for row in rows.values()]
        assert all(found.count(status) > 15 for status in ("warning", "error")), "or the damage is not of every kind"


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sounds", "pictures"])
def test_ten_thousand_damaged_files(models, tmp_path, kind):
    seeds = sounds() if kind == "sounds" else pictures()
    for start in range(0, 5000, 1000):
        folder = tmp_path / str(start)
        folder.mkdir()
        classified(models / f"{kind}.safetensors", range(start, start + 1000), seeds, folder)
