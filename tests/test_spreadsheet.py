"""Names in csv files: as they are, unless a spreadsheet would run them."""

import os

from conftest import read_csv, read_jsonl
from hypothesis import given
from hypothesis import strategies as st

from datasets.manifest import read_table
from pipeline.batch.files import Files
from pipeline.core.spreadsheet import protect, unprotect
from pipeline.sinks.csv import CSV
from pipeline.sinks.items import FileResult
from pipeline.sinks.jsonl import JSONLines

PLAIN = ["-take.wav", "+1", "-rm", "-0.5", "-3 dB/a-b.wav", "- - -.ogg", "it's.wav", "'quoted'.wav", "a=b.wav", "'",
         "--x.wav"]  # fmt: skip
RUN = ["=x.wav", "@x.wav", "+cmd|'x'!A0.wav", "-1+HYPERLINK(1).wav", " =1.wav", "\t=1.wav", "\r=1.wav", "-'a'#b.wav", "＝1.wav",
       "'=x.wav", "''@x.wav"]  # fmt: skip


def test_only_what_a_spreadsheet_would_run_is_protected():
    assert [protect(name) for name in PLAIN] == PLAIN
    assert [protect(name) for name in RUN] == [f"'{name}" for name in RUN]


@given(st.text(alphabet="'=+-@a 1(\t\n", max_size=8))
def test_nothing_is_lost_and_no_two_names_become_one(name):
    assert unprotect(protect(name)) == name
    assert protect(name).startswith("'") or not protect(name).lstrip().startswith(("=", "@"))


def test_a_table_lists_the_same_files_as_json_lines(tmp_path, monkeypatch):
    """By source=files and dataset=manifest; other readers get the names that were never protected as they are."""
    monkeypatch.chdir(tmp_path)
    names = [name for name in PLAIN + RUN if "/" not in name]
    sinks = CSV("out.csv"), JSONLines("out.jsonl")
    for sink in sinks:
        with sink:
            for name in names:
                open(name, "w").close()
                sink.write(FileResult(name, status="ok", label="-a", truth="=b"))
            sink.finish()
    for path in ("out.csv", "out.jsonl"):
        assert [entry.path for entry in Files(path).entries()] == names
        rows = [(row["path"], row["label"], row["truth"]) for row in read_table(tmp_path / path)]
        assert rows == [(name, "-a", "=b") for name in names]
    exact = [row["path"] for row in read_jsonl("out.jsonl")]
    found = [row["path"] for row in read_csv("out.csv")]
    assert exact == names and [name for name in found if name in PLAIN] == [name for name in exact if name in PLAIN]
    assert len(os.listdir()) == len(names) + 2
