"""Which files: folders, globs, manifests and standard input, whatever they are called and wherever they lead."""

import codecs
import csv
import glob
import io
import json
import os
import pty
import random
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.batch.files import Files
from pipeline.batch.listing import Entry, entry_digest
from pipeline.core.errors import ConfigError
from pipeline.media.walk import media_files

ODD = [b"plain.wav", b"two  spaces.wav", b" .wav", b"new\nline.wav", b"tab\t.wav", b"cr\r.wav", "ü中😀.wav".encode(), b"\xff\xfe.wav",
       b"'\"`$(x).wav", b"a,b;c.wav", b"=1+1.wav", b"-rf.wav", b"~.wav", b"back\\slash.wav", b"[1]*?.wav", b"%03d.wav", b"#.wav",
       "e\u0301.wav".encode(), "\u202e.wav".encode(), b"\x1b[31m.wav", b"x" * 251 + b".wav"]  # fmt: skip


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def paths(given, **options):
    return [entry.path for entry in Files(given if isinstance(given, list) else str(given), **options).entries()]


def below(folder, **options):
    return [os.path.relpath(path, folder) for path in paths(folder, **options)]


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows(rows)
    return path


def feed(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


# ---------------------------------------------------------------- folders
def test_folders_are_listed_by_endings_and_in_order(tmp_path):
    names = ["b.WAV", "a.mp4", "sub/c.flac", "sub/deeper/d.ogg", "sub.wav", "a/z.wav", "a.b/y.wav", "B.wav", "ä.wav"]
    names += ["10.wav", "9.wav", "c.3gp"]
    touch(tmp_path, *names, "text.txt", "wav", ".hidden.wav", ".hidden/e.wav", "sub/.h/f.wav", "list.csv")
    touch(tmp_path, "e.m3u8", "f.pt", "h.pcm", "i.png")
    (tmp_path / "folder.wav").mkdir()  # named like a file: that is an error to be told
    touch(tmp_path, "folder.wav/inside.wav")
    (tmp_path / "link.wav").symlink_to(tmp_path / "b.WAV")
    (tmp_path / "dangling.wav").symlink_to("nowhere")
    found = below(tmp_path)
    assert set(found) == {*names, "folder.wav", "folder.wav/inside.wav", "link.wav", "dangling.wav"}
    assert found == sorted(found, key=lambda name: [os.fsencode(part) for part in name.split("/")])
    assert [Path(path) for path in paths(tmp_path)] == media_files(tmp_path, "x"), "the same as for training"


@pytest.mark.parametrize("spelling", [".", "./", "sub/..", "{tmp}", "{tmp}/", "{tmp}//."])
def test_a_folder_under_any_spelling(tmp_path, monkeypatch, spelling):
    touch(tmp_path, "sub/a.wav", "b.wav")
    monkeypatch.chdir(tmp_path)
    found = paths(spelling.format(tmp=tmp_path))
    assert all(os.path.exists(path) and "//" not in path for path in found)
    assert [os.path.relpath(path) for path in found] == ["b.wav", "sub/a.wav"]
    if spelling in (".", "./"):
        assert found == ["b.wav", "sub/a.wav"]


def test_links_that_lead_back_do_not_loop(tmp_path, capsys):
    top = touch(tmp_path / "data" / "top", "a.wav", "sub/b.wav")
    (top / "sub" / "up").symlink_to("..")
    (top / "sub" / "far up").symlink_to(tmp_path)
    (top / "self").symlink_to("self")
    (top / "here").symlink_to(".")
    touch(tmp_path / "other", "c.wav")
    (top / "other").symlink_to(tmp_path / "other")
    (top / "other again").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(top)
    assert below(top) == ["a.wav", "other/c.wav", "sub/b.wav"]
    assert "not followed: 5, such as" in capsys.readouterr().err
    assert below(f"{top}/../top/sub") == ["b.wav"]
    assert paths(f"{top}/**/*.wav") == [f"{top}/a.wav", f"{top}/other/c.wav", f"{top}/sub/b.wav"]
    assert "such as" in capsys.readouterr().err


def test_folders_full_of_links_to_each_other_end(tmp_path):
    """Every order of twelve folders would be 12! ways."""
    for one in range(12):
        touch(tmp_path / f"{one:02}", "x.wav")
        for other in range(12):
            (tmp_path / f"{one:02}" / f"to {other:02}").symlink_to(f"../{other:02}")
    began = time.monotonic()
    found = below(tmp_path)
    assert {f"{one:02}/x.wav" for one in range(12)} <= set(found) and len(found) <= 12 * 13
    assert time.monotonic() - began < 5


@contextmanager
def closed(mode):
    """A folder in a folder, which we may not do all with."""
    with tempfile.TemporaryDirectory() as name:
        top = touch(Path(name), "a.wav", "closed/b.wav", "z.wav").resolve()
        (top / "closed" / "out.wav").symlink_to("/etc/hostname")
        write_csv(top / "l.csv", [["path"], ["closed/b.wav"], ["closed/out.wav"]])
        top.chmod(0o755)
        (top / "closed").chmod(mode)
        codecs.lookup("utf-8-sig")  # nobody else may be allowed to import it
        if os.getuid() == 0:
            os.seteuid(65534)
        try:
            yield top
        finally:
            os.seteuid(os.getuid())
            (top / "closed").chmod(0o755)


def test_a_folder_that_cannot_be_read_is_told(capsys):
    with closed(0) as top:
        assert below(top) == ["a.wav", "z.wav"]
        assert f"warning: source.paths: '{top}/closed/' cannot be read" in capsys.readouterr().err
        with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
            paths(top / "closed")


def test_a_folder_that_may_be_entered_but_not_listed_has_no_way_out_either():
    with closed(0o311) as top:
        assert [entry.refused for entry in Files(str(top / "l.csv")).entries()] == ["", "unsafe_path"]


def test_deeper_than_a_path_can_be_long(tmp_path, capsys):
    touch(tmp_path, "a.wav", "z.wav")
    name, place = "x" * 250, os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir(name, dir_fd=place)
        place, above = os.open(name, os.O_RDONLY, dir_fd=place), place
        os.close(above)
    os.close(place)
    try:
        assert below(tmp_path) == ["a.wav", "z.wav"]
        assert "File name too long" in capsys.readouterr().err
    finally:
        subprocess.run(["rm", "-rf", tmp_path / name], check=True)  # others look into the folders above


# ---------------------------------------------------------------- names
NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: not set(name) & set(b"/\0") and name[0] != ord("."))


@settings(max_examples=12)
@given(st.sets(NAMES.map(lambda name: name + b".wav"), min_size=1, max_size=5))
@example(set(ODD))
def test_any_names_in_every_way(names):
    """Every way of naming files names these, and gives them back as they are."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            with open(os.fsencode(folder) + b"/" + name, "w"):
                pass
        wanted = [os.path.join(folder, os.fsdecode(name)) for name in sorted(names)]
        assert paths(folder) == wanted
        assert paths(f"{folder}/*.wav") == wanted and paths(f"{folder}/**/*.wav") == wanted
        for path in wanted:
            assert paths(path) == [path]
        table = write_csv(Path(folder) / "list.csv", [["path"], *([os.fsdecode(name)] for name in sorted(names))])
        assert paths(table) == wanted
        lines = [json.dumps({"path": os.fsdecode(name)}) for name in sorted(names)]
        (Path(folder) / "list.jsonl").write_text("\n".join(lines))
        assert paths(f"{folder}/list.jsonl") == wanted
        pq.write_table(pa.table({"path": pa.array(sorted(names), pa.binary())}), f"{folder}/list.parquet")
        assert paths(f"{folder}/list.parquet") == wanted
        with pytest.MonkeyPatch.context() as patch:
            feed(patch, b"\0".join(map(os.fsencode, wanted)) + b"\0")
            assert paths("-") == wanted
        assert all(os.path.exists(path) for path in wanted)


# ---------------------------------------------------------------- globs
@pytest.fixture(scope="module")
def forest(tmp_path_factory):
    """Folders with all kinds of names."""
    top, chance = tmp_path_factory.mktemp("forest"), random.Random(0)
    for _ in range(60):
        parts = chance.choices(["a", "b", "a b", ".c", "d[1]", "ab"], k=chance.randrange(4))
        touch(top, "/".join([*parts, chance.choice(["x.wav", "y.WAV", "z.txt", ".h.wav", "[1].wav"])]))
    return top


@pytest.mark.parametrize("pattern", ["*.wav", "*/*.wav", "**/*.wav", "**/a/*.wav", "a/**/*.wav", "**/[ab]/**/?.wav", ".c/*.wav", "**/.c/*.wav",
                                     "**/a*/*.txt", "*/x.wav", "**/*.[wW][aA][vV]", "a/../*.wav", "**/**/x.wav", "d[[]1]/*.wav"])  # fmt: skip
def test_globs_match_as_those_of_python(forest, pattern, monkeypatch):
    for prefix in (f"{glob.escape(str(forest))}/", ""):
        monkeypatch.chdir(forest)
        wanted = [path for path in glob.glob(prefix + pattern, recursive=True) if os.path.isfile(path)]
        assert wanted, pattern
        found = paths(f"{forest}/{pattern}" if prefix else pattern)
        assert Counter(found) == Counter({str(Path(path)) for path in wanted})
        assert found == paths(f"{forest}/{pattern}" if prefix else pattern)


def test_a_glob_of_folders_and_manifests_means_what_is_in_them(forest, tmp_path):
    below = {str(path) for name in ("a", "a b", "ab") for path in media_files(forest / name, "x")}
    assert set(paths(f"{forest}/a*")) == below
    assert set(paths(f"{forest}/**")) == set(map(str, media_files(forest, "x")))
    touch(tmp_path, "x.wav", "y.wav")
    for part in "xy":
        (tmp_path / f"part {part}.jsonl").write_text(json.dumps({"path": f"{part}.wav"}))
    assert paths(f"{tmp_path}/part *.jsonl") == [f"{tmp_path}/x.wav", f"{tmp_path}/y.wav"]


# ---------------------------------------------------------------- standard input
def test_standard_input_by_lines_or_nul(monkeypatch):
    for data, wanted in (
        (b"a.wav\nb c.wav\n\n\xff.wav", ["a.wav", "b c.wav", os.fsdecode(b"\xff.wav")]),
        (b"a.wav\r\nb.wav\r\n", ["a.wav", "b.wav"]),
        (b"a.wav\r\nb.wav\n", ["a.wav\r", "b.wav"]),
        (b"new\nline.wav\0b.wav", ["new\nline.wav", "b.wav"]),
        (b"../a.wav\n/etc/x.wav\n./c.wav\na.wav", ["../a.wav", "/etc/x.wav", "./c.wav", "a.wav"]),
    ):
        feed(monkeypatch, data)
        assert [tuple(entry) for entry in Files("-").entries()] == [(path, 0.0, None, "", "") for path in wanted]
    for data in (b"", b"\n\n", b"\0\0"):
        feed(monkeypatch, data)
        with pytest.raises(ConfigError, match="no paths on standard input; pipe some in, such as find"):
            paths("-")


def test_a_terminal_is_no_list(monkeypatch):
    ours, theirs = pty.openpty()
    with os.fdopen(theirs) as terminal, os.fdopen(ours):
        monkeypatch.setattr(sys, "stdin", terminal)
        with pytest.raises(ConfigError, match="takes paths from standard input; pipe some in"):
            paths("-")


# ---------------------------------------------------------------- manifests
ROWS = [
    {"path": "sub/a.wav", "start": 1, "end": 2.5, "label": "cat", "split": "test", "fold": 1, "good": True},
    {"path": "sub/a.wav", "start": 2.5, "end": None, "label": "dog", "split": "test", "fold": 2, "good": False},
    {"path": "b.wav", "start": None, "end": None, "label": "", "split": "val", "fold": None, "good": None},
    {"path": "ü.wav", "start": 0, "end": 0.25, "label": "=1,\n2", "split": None, "fold": 2, "good": True},
]


def manifest(folder, kind, rows=None):
    """The same rows as a file of any kind."""
    rows, path = ROWS if rows is None else rows, folder / f"list.{kind}"
    if kind == "csv":
        write_csv(path, [list(rows[0]), *(["" if value is None else value for value in row.values()] for row in rows)])
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_manifests_of_every_kind_say_the_same(tmp_path, kind):
    listed = Files(str(manifest(tmp_path, kind)))
    wanted = [
        Entry(f"{tmp_path}/sub/a.wav", 1.0, 2.5, "cat"),
        Entry(f"{tmp_path}/sub/a.wav", 2.5, None, "dog"),
        Entry(f"{tmp_path}/b.wav"),
        Entry(f"{tmp_path}/ü.wav", 0.0, 0.25, "=1,\n2"),
    ]
    assert listed.entries() == wanted and listed.timed and listed.labelled
    assert all(isinstance(entry.start, float) for entry in listed.entries())
    (tmp_path / "root").mkdir()
    elsewhere = Files(str(tmp_path / f"list.{kind}"), root=str(tmp_path / "root"))
    assert elsewhere.entries()[2] == Entry(f"{tmp_path}/root/b.wav") and elsewhere.listed == listed.listed
    plain = Files(str(manifest(tmp_path, kind, [{"path": "a.wav"}])))
    assert plain.entries() == [Entry(f"{tmp_path}/a.wav")] and not plain.timed and not plain.labelled


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_only_some_rows(tmp_path, kind):
    table = str(manifest(tmp_path, kind))
    for only, wanted in (
        ({"split": "test"}, ["cat", "dog"]), ({"split": ["val", "test"]}, ["cat", "dog", ""]), ({"path": "b.wav"}, [""]),
        ({"fold": 2}, ["dog", "=1,\n2"]), ({"fold": [1, "2"], "split": "test"}, ["cat", "dog"]),
        ({"good": True}, ["cat", "=1,\n2"]), ({"split": None}, ["=1,\n2"]),
        ({"Split": "test", " label": "cat"}, ["cat"]),
    ):  # fmt: skip
        assert [entry.truth for entry in Files(table, only=only).entries()] == wanted
    for only, message in (({"splt": "test"}, ".* has no column 'splt'; did you mean 'split'"),
                          ({"split": "tset"}, "got {'split': 'tset'}; no row")):  # fmt: skip
        with pytest.raises(ConfigError, match=f"source.only: {message}"):
            paths(table, only=only)
    touch(tmp_path, "c.wav")
    assert len(Files([table, str(tmp_path)], only={"split": "val"}).entries()) == 2, "folders are all taken"
    with pytest.raises(ConfigError, match="no row of a manifest"):
        Files(str(tmp_path), only={"split": "val"}).entries()


@pytest.fixture
def fenced(tmp_path):
    """A folder with ways out of it."""
    folder = touch(tmp_path / "data", "a.wav", "sub/b.wav", "take: 2.wav")
    touch(tmp_path, "outside.wav", "data2/c.wav")
    (folder / "out.wav").symlink_to("../outside.wav")
    (folder / "out").symlink_to(tmp_path / "data2")
    (folder / "sub" / "in.wav").symlink_to("../a.wav")
    (folder / "in").symlink_to("sub")
    (folder / "long way.wav").symlink_to("in/../out.wav")
    (folder / "gone.wav").symlink_to("/nowhere/x.wav")
    (folder / "loop.wav").symlink_to("loop.wav")
    return folder


SAFE = ["a.wav", "sub/b.wav", "sub/../a.wav", "./a.wav", "sub//b.wav", "sub/in.wav", "in/b.wav", "in/in.wav", "missing.wav",
        "no/such.wav", "take: 2.wav", "loop.wav", "..a.wav", "a..wav", "a.wav/b.wav", "x" * 5000, "../data/a.wav"]  # fmt: skip
UNSAFE = ["../outside.wav", "/etc/hostname", "file:///etc/hostname", "http://127.0.0.1:9/a.wav", "FILE:a.wav", "out.wav", "out/c.wav",
          "sub/../out/c.wav", "sub/../../outside.wav", "in/../../outside.wav", "gone.wav", "../data2/c.wav", "..", "rtsp://x/y",
          "sub/../../data/../outside.wav", "long way.wav", "out/missing.wav", "//etc/hostname", "concat:/etc/x|b"]  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_rows_do_not_leave_their_folder(fenced, kind):
    names = [*SAFE, *UNSAFE, str(fenced / "a.wav"), str(fenced / "out.wav")]
    table = manifest(fenced, kind, [{"path": name} for name in names])
    refused = {entry.path: entry.refused for entry in Files(str(table)).entries()}
    for name in SAFE:
        assert refused[str(fenced / name)] == "", name
    for name in UNSAFE:
        assert refused[name if ":" in name else str(fenced / name).replace("//", "/")] == "unsafe_path", name
    assert refused[str(fenced / "a.wav")] == "" and refused[str(fenced / "out.wav")] == "unsafe_path"


def test_the_root_says_how_far_rows_may_lead(fenced, tmp_path, monkeypatch):

    def refused(names, given=None, **options):
        table = manifest(fenced, "csv", [{"path": name} for name in names])
        return [entry.refused for entry in Files(given or str(table), **options).entries()]

    assert refused(["out.wav", str(tmp_path / "outside.wav"), "file:///etc/x"], root="/") == ["", "", "unsafe_path"]
    wider, expected = ["data/out.wav", "data/../outside.wav", "../x", "/etc/x"], ["", "", "unsafe_path", "unsafe_path"]
    assert refused(wider, root=str(tmp_path)) == expected
    monkeypatch.chdir(fenced)
    assert refused(wider, "list.csv") == expected
    (tmp_path / "linked").symlink_to(fenced)  # the folder itself may be a link
    manifest(fenced, "csv", [{"path": "a.wav"}, {"path": "../outside.wav"}])
    found = Files(str(tmp_path / "linked" / "list.csv")).entries()
    assert [(entry.path, entry.refused) for entry in found] == [
        (f"{tmp_path}/linked/a.wav", ""), (f"{tmp_path}/linked/../outside.wav", "unsafe_path")]  # fmt: skip


def test_text_that_no_file_can_be_named(tmp_path):
    lines = [r'{"path": "a\u0000b.wav"}', r'{"path": "\ud800.wav", "label": "\udfff\ud800"}', r'{"path": "\udcff.wav"}']
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    nul, half, byte = Files(str(tmp_path / "list.jsonl")).entries()
    assert nul.refused == "not_found" and half.refused == byte.refused == ""
    for entry in (nul, half, byte):
        assert os.fsdecode(os.fsencode(entry.path)) == entry.path and os.fsencode(entry.truth) is not None
    assert byte.path == str(tmp_path / "\udcff.wav") and not os.path.exists(half.path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "has no rows"), ("a.csv", "path\n", "has no rows"), ("a.jsonl", "\n\n", "has no rows"),
        ("a.csv", "file,label\nx,y\n", r"has no column 'path'; it has 'file', 'label'"),
        ("a.csv", "path,label\nx.wav,a\n,b\n", "row 2: got the path ''"),
        ("a.csv", "label,path\na,x.wav\nb\n", "row 2: got the path None"),
        ("a.jsonl", '{"path": "x"}\n\n{"pth": "y"}', "row 2 has no column 'path'; it has 'pth'"),
        ("a.jsonl", '{"path": 7}', "row 1: got the path 7"),
        ("a.jsonl", '{"path": "x"}\n["y"]', r"after row 1: got '\[\"y\"\]'; expected an object"),
        ("a.jsonl", '{"path": "x"}\n{"path": ', "cannot be read after row 1"),
        ("a.jsonl", "[" * 100_000, "cannot be read after row 0"),
        ("a.csv", "path,start,end\nx,1,2\nx,soon,\n", "row 2: got start 'soon' and end ''; expected seconds"),
        ("a.csv", "path,start,end\nx,2,1\n", "row 1"), ("a.csv", "path,start,end\nx,-1,1\n", "row 1"),
        ("a.csv", "path,start\nx,nan\n", "row 1"), ("a.csv", "path,end\nx,inf\n", "row 1"),
        ("a.csv", "path,end\nx,0\n", "row 1"), ("a.jsonl", '{"path": "x", "end": 0}', "row 1"),
        ("a.jsonl", '{"path": "x", "start": [1]}', "row 1"), ("a.jsonl", '{"path": "x", "start": NaN}', "row 1"),
        ("a.csv", 'path,label\nx.wav,"a\ny.wav,b\n', "cannot be read after row 0: unexpected end of data"),
        ("a.csv", 'path,label\nx.wav,a\n"y" z.wav,b\n', "cannot be read after row 1"),
        ("a.parquet", "path\nx.wav\n", "cannot be read after row 0"),
        ("a.csv", None, "does not exist"),
        ("a, b.wav", None, "does not exist; a name with , .* is quoted twice"),
        *((name, None, "holds no audio or video file") for name in ("*.wav", "**/*.wav", "no/**", "")),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_told(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        paths(f"{tmp_path}/{name}")
    assert str(caught.value).startswith("source.paths: ")


def test_what_else_is_told(tmp_path, monkeypatch, capsys):
    shards = ("0/2", "3/2", "1", "1/0", "-1/2", "1/2/3", "a/b", "")
    for options, message in (
        ({"paths": []}, "source.paths: is empty"),
        ({"paths": "x", "root": "/no/such"}, "source.root: '/no/such' is no folder"),
        *(({"paths": "x", "shard": shard}, "source.shard: got") for shard in shards),
    ):
        with pytest.raises(ConfigError, match=message):
            Files(**options).entries()
    touch(tmp_path, "a.wav")
    (tmp_path / "list.jsonl").write_text('{"path": "a.wav", "label": "x"}\n{"path": "./a.wav", "label": "y"}')
    assert Files(str(tmp_path / "list.jsonl")).entries() == [Entry(f"{tmp_path}/a.wav", truth="x")]
    assert "1 entries are listed again with another label" in capsys.readouterr().err
    pq.write_table(pa.table({"path": ["a.wav"]}), tmp_path / "list.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match="pip install pyarrow"):
        paths(tmp_path / "list.parquet")


def test_tables_as_other_programs_write_them(tmp_path):
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbfpath,label\r\na.wav,x\r\n\r\nb.wav\r\nc.wav,y,more,cells\r\n")
    assert [(Path(e.path).name, e.truth) for e in Files(str(tmp_path / "bom.csv")).entries()] == [
        ("a.wav", "x"), ("b.wav", ""), ("c.wav", "y")]  # fmt: skip
    (tmp_path / "bom.jsonl").write_bytes(b'\xef\xbb\xbf{"path": "a.wav", "label": 3}\r\n{"path": "\xff.wav"}')
    assert [(Path(e.path).name, e.truth) for e in Files(str(tmp_path / "bom.jsonl")).entries()] == [
        ("a.wav", "3"), ("\udcff.wav", "")]  # fmt: skip
    names = pa.array(["a.wav", "b.wav"]).dictionary_encode()
    columns = {"path": names, "label": pa.array([1.0, None]), "end": pa.array([2, None])}
    pq.write_table(pa.table(columns), tmp_path / "typed.parquet", row_group_size=1)
    assert [e[1:4] for e in Files(str(tmp_path / "typed.parquet")).entries()] == [(0.0, 2.0, "1"), (0.0, None, "")]


# ---------------------------------------------------------------- once, in order, in parts
def test_each_once_in_the_order_given(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "c.wav")
    rows = [["path", "start", "end"], ["b.wav", "", ""], ["b.wav", 0, ""], ["b.wav", 0, 1], ["b.wav", 0, 1.0]]
    table = write_csv(tmp_path / "l.csv", rows)
    given = [f"{tmp_path}/c.wav", str(table), str(tmp_path), f"{tmp_path}/*.wav", f"{tmp_path}/./a.wav"]
    listed = Files(given)
    found = [(Path(entry.path).name, entry.end) for entry in listed.entries()]
    assert found == [("c.wav", None), ("b.wav", None), ("b.wav", 1.0), ("a.wav", None)]
    assert listed.listed[0] == 4


def test_digests_are_blake2b_of_name_and_times():
    """Against ``printf 'sub/a.wav' | b2sum -l 128`` and ``printf 'sub/a.wav\\0001.0\\0002.5' | b2sum -l 128``."""
    whole, part = Entry("/x/sub/a.wav"), Entry("/x/sub/a.wav", 1.0, 2.5, "cat")
    assert f"{entry_digest('sub/a.wav', whole):032x}" == "71355d67dd9762371a1873efb715a9f7"
    assert f"{entry_digest('sub/a.wav', part):032x}" == "5ff327f5917e68b8ccc74543fc4e0c6e"


@settings(max_examples=12)
@given(st.sets(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=9), min_size=1, max_size=40),
       st.integers(1, 9), st.randoms())  # fmt: skip
def test_shards_are_apart_and_together_all(names, count, chance):
    rows = [{"path": f"{name}x", "end": end} for name in sorted(names) for end in (None, 1.5)]
    with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as there:
        (Path(here) / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
        chance.shuffle(rows)
        (Path(there) / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
        whole, found = Files(f"{here}/l.jsonl"), Counter()
        entries = whole.entries()
        for number in range(1, count + 1):  # the same for another order, at another place
            part, other = (Files(path, shard=f"{number}/{count}") for path in (f"{here}/l.jsonl", f"{there}/m.jsonl"))
            mine, theirs = part.entries(), other.entries()
            assert {e.path.removeprefix(here) for e in mine} == {e.path.removeprefix(there) for e in theirs}
            assert part.listed == other.listed == whole.listed
            found.update(mine)
        assert found == Counter(entries) and whole.listed[0] == len(entries)
        (Path(here) / "l.jsonl").write_text("\n".join([*map(json.dumps, rows[1:]), '{"path": "another"}']))
        changed = Files(f"{here}/l.jsonl")
        assert len(changed.entries()) == len(entries) and changed.listed[1] != whole.listed[1]


def test_shards_are_of_like_size_and_may_be_empty(tmp_path):
    touch(tmp_path, *(f"{number}.wav" for number in range(400)))
    sizes = [len(paths(tmp_path, shard=f"{number}/4")) for number in range(1, 5)]
    assert sum(sizes) == 400 and min(sizes) > 60
    assert sorted(len(paths(tmp_path / "7.wav", shard=f"{number}/3")) for number in (1, 2, 3)) == [0, 0, 1]
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert [len(paths(moved, shard=f"{number}/4")) for number in range(1, 5)] == sizes


def test_a_long_listing_is_lean(tmp_path):
    rows = ([f"folder_{n // 100}/utterance_{n:07}.wav", f"class {n % 9}"] for n in range(8_000))
    write_csv(tmp_path / "l.csv", [["path", "label"], *rows])
    tracemalloc.start()
    try:
        entries = Files(str(tmp_path / "l.csv")).entries()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    names = sum(sys.getsizeof(entry.path) for entry in entries)
    assert (held - names) / len(entries) < 120 and (peak - names) / len(entries) < 300
