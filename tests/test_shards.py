"""Tar shards: what is written, what is read, and what hostile archives do not achieve."""

import fcntl
import io
import itertools
import json
import os
import pickle
import re
import shutil
import tarfile
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import QUICK, no_file_above, ran, tone_clip, write_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_video_datasets import with_sound

from datasets import packing, shards
from datasets.folder import Folder
from datasets.manifest import Manifest
from datasets.shard_contents import list_clips, list_shard
from datasets.shards import Shards, expand
from pipeline.core.errors import ConfigError
from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Picture
from pipeline.training.loader import Loader, draw_order, plan_steps

SOUND = InputSpec(16000)
EACH = {split: f"{split}-*.tar" for split in ("train", "val", "test")}


def opened(folder, **options):
    return Shards(str(folder), **{"shards": EACH, "index": None} | options)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A manifest of short tones of four speakers, in three splits, with six parts of one longer recording."""
    root = tmp_path_factory.mktemp("source")
    rows = []
    for number in range(40):
        label = ("low", "high")[number % 2]
        path = tone_clip(root / label / f"{number}.{('wav', 'flac', 'ogg')[number % 3]}", 200 + 50 * number, 0.2)
        split = ("train", "train", "train", "val", "test")[number // 2 % 5]
        rows.append({"path": path.relative_to(root), "label": label, "split": split, "who": f"{split}{number % 4}"})
    tone_clip(root / "long.wav", 500, 1.2)
    for number in range(6):
        split, label = ("train", "train", "val")[number // 2], ("low", "high")[number % 2]
        part = {"start": number / 5, "end": number / 5 + 0.2, "who": f"{split}9"}
        rows.append({"path": "long.wav", "label": label, "split": split} | part)
    return write_table(root / "manifest.csv", rows).parent


def pack(source, out, *options):
    """python -m datasets.shards, in this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        return shards.main([str(source), str(out), *map(str, options)])


def pack_source(source, out, *options):
    return pack(source / "manifest.csv", out, "--group", "who", "--clips", 7, *options)


@pytest.fixture(scope="module")
def packed(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards")
    assert pack_source(source, out) == 0
    return out


def origin(clip):
    """Where a clip in a shard came from, by the json that stands beside it."""
    with tarfile.open(clip.path) as archive:
        return json.load(archive.extractfile(clip.key.rpartition(".")[0] + ".json"))["name"]


def alike(manifest, packed, spec, root):
    """How many clips there are, of which all have the same samples and facts in both."""
    total = 0
    for split in EACH:
        found = []
        for part in (manifest.split(split, spec), packed.split(split, spec)):
            names = [origin(c) if hasattr(c, "key") else c.path.relative_to(root).as_posix() for c in part.clips]
            found.append({(name, c.start): (c, part[n]) for n, (name, c) in enumerate(zip(names, part.clips))})
            assert len(found[-1]) == len(part)
        assert found[0].keys() == found[1].keys()
        for (clip, sample), (other, same) in ((found[0][name], found[1][name]) for name in found[0]):
            assert (clip.label, clip.end, clip.group) == (other.label, other.end, other.group)
            assert (sample.labels, sample.spans, len(sample.x)) == (same.labels, same.spans, len(same.x))
            assert all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(sample.x, same.x))
        total += len(found[0])
    return total


def test_the_same_clips_give_the_same_samples(source, packed, tmp_path):
    """Bit for bit, with and without caches; parts of recordings, groups and splits included."""
    assert alike(Manifest(str(source), group="who", cache=None), opened(packed), SOUND, source) == 46
    options = {"cache": str(tmp_path / "clips"), "index": str(tmp_path / "index"), "background": "low"}
    for _ in range(2):  # decoded, then from the cache
        loose = Manifest(str(source), group="who", cache=None, background="low")
        assert alike(loose, opened(packed, **options), SOUND, source) == 46
    assert len(list(tmp_path.glob("clips/*/*.safetensors"))) == 46


def test_videos_with_sound_give_the_same_samples(tmp_path):
    for split, label in itertools.product(("train", "val"), "ab"):
        with_sound(tmp_path / "few" / split / label / "film.mp4")
    assert pack(tmp_path / "few", tmp_path / "out") == 0
    for spec in (InputSpec(8000, Picture(10, 16, 16)), InputSpec(picture=Picture(10, 16, 16))):
        loose = Folder(str(tmp_path / "few"), cache=None, crop=None)
        assert alike(loose, opened(tmp_path / "out"), spec, tmp_path / "few") == 4


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_shards_are_shuffled_repeatable_and_of_bounded_size(source, packed, tmp_path, capsys):
    assert pack_source(source, tmp_path / "again") == 0 and bytes_of(tmp_path / "again") == bytes_of(packed)
    assert pack_source(source, tmp_path / "other", "--seed", 1) == 0
    assert bytes_of(tmp_path / "other")["train-000000.tar"] != bytes_of(packed)["train-000000.tar"]
    order = [origin(clip) for clip in opened(packed).clips if clip.split == "train"]
    assert order != sorted(order) and sorted(order) != order[::-1]
    index = json.loads((packed / "index.json").read_text())
    assert index["labels"] == ["high", "low"] and index["counts"]["train"] == {"high": 14, "low": 14}
    assert all(0 < shard["clips"] <= 7 for shard in index["shards"]) and sum(s["clips"] for s in index["shards"]) == 46
    assert pack(source / "manifest.csv", tmp_path / "small", "--megabytes", 0.06) == 0
    sizes = [path.stat().st_size for path in (tmp_path / "small").glob("*.tar")]
    assert len(sizes) > 3 and max(sizes) <= 60_000
    assert pack("--check", packed) == 0 and "whole" in capsys.readouterr().out


def test_a_damaged_shard_is_found_and_written_again(source, packed, tmp_path, capsys):
    """Damage that leaves the size is found by the checksum: with --overwrite, that shard alone is written again."""
    out = shutil.copytree(packed, tmp_path / "copy")
    path, lost = out / "train-000001.tar", out / "val-000000.tar"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    lost.unlink()
    assert pack("--check", out) == 1
    printed = capsys.readouterr().out
    assert "train-000001.tar: is not what was written" in printed and "val-000000.tar: is not there" in printed
    assert "with --overwrite" in printed
    others = {other.name: other.stat().st_ino for other in out.glob("*.tar") if other != path}
    assert pack_source(source, out) == 0 and pack("--check", out) == 1, "what is whole is not read without need"
    assert pack_source(source, out, "--overwrite") == 0 and bytes_of(out) == bytes_of(packed)
    assert all((out / name).stat().st_ino == number for name, number in others.items())


def test_what_was_written_is_read_back(tmp_path):
    """Also of recordings with endings that nobody looks for, and many parts of one."""
    day = tone_clip(tmp_path / "day.wav", 300, 0.2)
    day_part = {"path": "day.wav", "split": "train"}
    rows = [day_part | {"label": "ab"[n % 2], "start": n / 10, "end": n / 10 + 0.1} for n in range(1800)]
    for label, ending in itertools.product("ab", ("dat", "WAV", "json", "cls", "tar.gz")):
        shutil.copyfile(day, tmp_path / f"{label}.{ending}")
        rows.append({"path": f"{label}.{ending}", "label": label, "split": "val"})
    assert pack(write_table(tmp_path / "list.csv", rows), tmp_path / "out") == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = opened(tmp_path / "out")
    assert [clip.split for clip in data.clips].count("train") == 1800 and len(data.clips) == 1810
    assert {clip.name.rpartition(".")[2] for clip in data.clips if clip.split == "val"} == {"bin", "wav"}
    assert data.split("val", SOUND)[0] is not None


def test_a_folder_per_class(tones, tmp_path, capsys):
    """With files that are no recordings, and one recording of nothing."""
    root = shutil.copytree(tones, tmp_path / "tones")
    (root / "low" / "text.wav").write_text("no sound")
    (root / "low" / "pipe.wav").symlink_to("/dev/zero")
    for second in range(5):
        tone_clip(root / "nothing" / f"street_{second:05}.00.wav", 50, 0.1)
    shares = ("--val", 0.25, "--test", 0.25)
    assert pack(root, tmp_path / "out", *shares) == 2 and "label 'nothing' has 1 recording" in capsys.readouterr().err
    assert pack(root, tmp_path / "out", *shares, "--background", "nothing") == 3  # done, but some files are errors
    assert "text.wav" in (told := capsys.readouterr().err) and "pipe.wav" in told
    clips = opened(tmp_path / "out").clips
    assert len(clips) == 29 and {clip.split for clip in clips} == {*EACH}
    assert {(clip.group, clip.split) for clip in clips if clip.label == "nothing"} == {("street", "train")}


# ---------------------------------------------------------------- interrupted, full, in the way
def test_an_interrupted_run_goes_on(source, packed, tmp_path, monkeypatch, capsys):
    """In the end the shards are those of an undisturbed one, and what was there stays."""
    copy, names = packing.copy, []

    def interrupted(archive, key, recording):
        names.append(recording.name)
        if len(names) == 20:
            raise KeyboardInterrupt
        copy(archive, key, recording)

    with monkeypatch.context() as patch:
        patch.setattr(packing, "copy", interrupted)
        assert pack_source(source, tmp_path) == 130
    assert "the same command goes on" in capsys.readouterr().err
    (tmp_path / "val-000000.tar.part").write_bytes(b"of a run that was killed")
    made = {path.name: path.stat().st_ino for path in tmp_path.glob("*.tar")}
    assert 2 <= len(made) < len(list(packed.glob("*.tar"))) and not (tmp_path / "index.json").exists()
    assert pack_source(source, tmp_path) == 0 and bytes_of(tmp_path) == bytes_of(packed)
    assert all((tmp_path / name).stat().st_ino == number for name, number in made.items())


def test_a_full_disk_is_an_error_and_leaves_no_half_shard(source, packed, tmp_path, capsys):
    with no_file_above(60_000):
        assert pack_source(source, tmp_path / "out") == 74
    text = capsys.readouterr().err
    assert "error: cannot write" in text and ".tar" in text
    assert not list(tmp_path.glob("out/*.tar.part")) and not (tmp_path / "out" / "index.json").exists()
    assert pack_source(source, tmp_path / "out") == 0 and bytes_of(tmp_path / "out") == bytes_of(packed)


def test_shards_of_other_settings_are_not_mixed(source, packed, tmp_path, capsys):
    out, table = shutil.copytree(packed, tmp_path / "out"), source / "manifest.csv"
    assert pack(table, out, "--clips", 3) == 2
    assert "other clips or settings" in capsys.readouterr().err and bytes_of(out) == bytes_of(packed)
    (out / "train-000009.tar").write_bytes(b"old")
    assert pack(table, out, "--clips", 20, "--overwrite") == 0
    assert len(list(out.glob("*.tar"))) < len(list(packed.glob("*.tar"))) and not (out / "train-000009.tar").exists()
    assert len(opened(out).clips) == 46
    for name in ("train-000000.tar", "index.json"):
        (other := tmp_path / name[:3]).mkdir()
        (other / name).write_bytes(b"of somebody else")
        assert pack(table, other) == 2 and bytes_of(other) == {name: b"of somebody else"}


def test_two_writers_of_one_folder(source, tmp_path, capsys):
    with open(tmp_path / ".index.part", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert pack(source / "manifest.csv", tmp_path) == 74
    assert "another run" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "message"), [
    ("{tones} out --split val=fold3", "--split: is of a manifest's columns, and .*tones.* is a folder"),
    ("{tones} out --group who", "--group: is of a manifest's columns"),
    ("{source}/manifest.csv out --split val=a --split val=b", "--split: got val=b; expected train, val, test, once each"),
    ("{source}/manifest.csv out --split val=a,b --split test=b", "'b' is in val and test"),
    ("{source}/manifest.csv out --split nonsense", "--split: got nonsense; expected train, val, test"),
    ("{source}/manifest.csv out --split val=a,,b", "--split: got val=a,,b; expected"),
    ("--check out --group who", "--group: means nothing to --check"),
    ("--check out --overwrite", "--overwrite: means nothing to --check"),
    ("--check m.csv out", "or --check FOLDER"),
    ("nowhere.csv out", "does not exist"),
    ("{source}/manifest.csv out --group speaker", "has no column 'speaker'"),
    ("{source}/manifest.csv out --split val=test", "no clip in split 'train'"),
    ("{source} out --val 0.6 --test 0.6", "dataset.val, dataset.test: 0.6 and 0.6 leave nothing for train"),
])  # fmt: skip
def test_what_cannot_be_written_as_shards(source, tones, tmp_path, arguments, message, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert pack(*arguments.format(tones=tones, source=source).split()) == 2
    assert re.search(message, capsys.readouterr().err) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("changed", "message"), [
    ({"label": "x" * 201}, "label 'xx.* has 201 characters; expected at most 200"),
    ({"who": "\x1b{split}"}, "group '.x1btrain' has 6 characters; .* can be shown"),
    ({"label": "a\x1bb"}, "label 'a.x1bb' .*: expected characters that can be shown"),
    ({"label": "ab" * 100}, "a.wav: what is said of the clips takes"),
])  # fmt: skip
def test_what_would_not_be_read_back_is_not_written(tmp_path, changed, message, capsys):
    """A label or a group, or so many that the card is too long."""
    tone_clip(tmp_path / "a.wav", 300, 0.2)
    rows = []
    for n, split in itertools.product(range(4000 if "takes" in message else 1), ("train", "val")):
        row = {"path": "a.wav", "label": "a", "split": split, "start": n, "end": n + 1, "who": split}
        rows += [row | {key: text.format(split=split) for key, text in changed.items()}, row | {"label": "b"}]
    assert pack(write_table(tmp_path / "list.csv", rows), tmp_path / "out", "--group", "who") == 2
    assert re.search(message, capsys.readouterr().err) and not (tmp_path / "out").exists()


# ---------------------------------------------------------------- others' shards
def test_webdataset_reads_our_shards(source, packed):
    wds = pytest.importorskip("webdataset")
    found = []
    for path in sorted(packed.glob("train-*.tar")):
        with open(path, "rb") as file:  # as webdataset opens, but does not close
            source_of = ({"__url__": str(path)} | part for part in wds.tariterators.tar_file_iterator(file))
            found += wds.tariterators.group_by_keys(source_of)
    cards = [json.loads(sample["json"]) for sample in found]
    assert sum(len(card.get("clips", [card])) for card in cards) == 28
    for sample, card in zip(found, cards):
        assert sample[Path(card["name"]).suffix[1:]] == (source / card["name"]).read_bytes()


def test_we_read_shards_of_webdataset(source, tmp_path):
    wds = pytest.importorskip("webdataset")
    for name, numbers in (("train-0.tar", range(8)), ("other-0.tar", range(8, 12))):
        with wds.TarWriter(str(tmp_path / name), compress=False) as writer:
            for number in numbers:
                path = next(source.glob(f"*/{number}.*"))
                late = {"json": {"label": number % 2, "start": 0.05}}
                card = late if number > 7 else {"cls": number % 2, "txt": "words"}
                writer.write({"__key__": f"deep/er/{number}", path.suffix[1:]: path.read_bytes()} | card)
    data = opened(tmp_path, shards={"train": "train-{0..0}.tar", "val": "other-?.tar"})
    assert data.labels == ["0", "1"]
    sample = data.split("train", SOUND)[3]
    expected = soundfile.read(source / "high" / "3.wav", dtype="float32")[0]
    assert np.array_equal(sample.x[0], expected) and sample.labels == (1,)
    assert [len(data.split("val", SOUND)[n].x[0]) for n in range(4)] == [2400] * 4


def test_without_shards_for_validation_a_share_of_train_is_held_out(packed):
    data = opened(packed, shards={"train": "train-*.tar", "val": None}, val=0.25)
    groups = {split: {c.group for c in data.clips if c.split == split} for split in ("train", "val")}
    assert len(data.clips) == 28 and groups["val"] and not groups["train"] & groups["val"]


# ---------------------------------------------------------------- hostile
soundfile.write(wave := io.BytesIO(), 0.1 * np.sin(np.arange(800)), 8000, format="WAV")
WAVE = wave.getvalue()


def entry(name, data=b"", kind=tarfile.REGTYPE, size=None, link="", form=tarfile.PAX_FORMAT, **pax):
    """The bytes of one member, with whatever header."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, len(data) if size is None else size
    member.pax_headers = pax
    header = member.tobuf(form, "utf-8", "surrogateescape")
    return header + data + b"\0" * (-len(data) % 512)


def sample(key, label="a", **more):
    return entry(f"{key}.wav", WAVE) + entry(f"{key}.json", json.dumps({"label": label} | more).encode())


END = b"\0" * 1024


def rows(data, tmp_path):
    """The keys that a shard of these bytes gives, and what is odd about it."""
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    _, found, odd = list_shard(path, None)
    assert all(row.offset >= 0 and row.offset + row.size <= len(data) for row in found)
    return [row.key for row in found], odd


def raw(name, kind=b"0", size=b"00000000000", rest=b""):
    """A header made by hand, with a checksum that is right."""
    block = bytearray(name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size.ljust(12, b"\0") + b"0" * 11
                      + b"\0" + b" " * 8 + kind + b"\0" * 100 + b"ustar\x0000" + rest)  # fmt: skip
    block = block.ljust(512, b"\0")
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


HOSTILE = {
    "absolute": (entry("/etc/passwd.wav", WAVE) + entry("/etc/passwd.json", b'{"label": "a"}'), "unsafe"),
    "out of the folder": (sample("../../up"), "unsafe"),
    "out in the middle": (sample("a/../../up"), "unsafe"),
    "backslashes": (sample("..\\up"), "unsafe"),
    "control characters": (sample("\x1b[2Jgone\n"), "unsafe"),
    "a very long name": (sample("a" * 5000), "unsafe"),
    "renamed by pax": (entry("a.wav", WAVE, path="/tmp/PWNED.wav"), "unsafe"),
    "a symbolic link": (entry("l.wav", kind=tarfile.SYMTYPE, link="/etc/passwd"), "a link"),
    "a hard link": (entry("l.wav", kind=tarfile.LNKTYPE, link="/etc/passwd"), "a link"),
    "a device": (entry("d.wav", kind=tarfile.CHRTYPE), "no regular file"),
    "a pipe": (entry("p.wav", kind=tarfile.FIFOTYPE), "no regular file"),
    "an unknown kind": (raw(b"u.wav", b"Z", b"00000001000") + b"x" * 512, "no regular file"),
    "a sparse file": (raw(b"s.wav", b"S", b"00000001000", b"\0" * 217 + b"\1") + b"\0" * 512 + b"x" * 512, "sparse"),
    "a sparse file by pax": (entry("s.wav", WAVE, **{"GNU.sparse.major": "1", "GNU.sparse.realsize": "9" * 15}), "sparse"),
    "the same again": (sample("good0", "b"), "there before"),
    "two recordings": (entry("t.wav", WAVE) + entry("t.flac", WAVE) + entry("t.json", b'{"label": "a"}'), "not one recording"),
    "two labels": (sample("t") + entry("t.cls", b"1"), "not one recording"),
    "no label": (entry("n.wav", WAVE), "not one recording"),
    "deep json": (entry("j.wav", WAVE) + entry("j.json", b'{"label":' + b"[" * 60000), "no sense"),
    "long json": (entry("j.wav", WAVE) + entry("j.json", b" " * (1 << 20) + b'{"label": "a"}'), "no sense"),
    "a list": (entry("j.wav", WAVE) + entry("j.json", b"[1, 2]"), "no sense"),
    "clips of clips": (entry("j.wav", WAVE) + entry("j.json", b'{"clips": [{"label": "a"}, {"clips": []}]}'), "no sense"),
    "no utf-8": (entry("j.wav", WAVE) + entry("j.json", b'{"label": "\xff"}'), "no sense"),
    "half a character": (entry("j.wav", WAVE) + entry("j.json", b'{"label": "\\ud800"}'), "no sense"),
    "a label that acts": (sample("j", "\x1b]0;owned\x07"), "no sense"),
    "a group that acts": (sample("j", "b", group="\u202e"), "no sense"),
    "label true": (sample("j", True), "no sense"),
    "label of nothing": (sample("j", ""), "no sense"),
    "a novel": (sample("j", "a" * 300), "no sense"),
    "start NaN": (sample("j", start=float("nan")), "no sense"),
    "end before start": (sample("j", start=2, end=1), "no sense"),
    "a huge number": (entry("j.wav", WAVE) + entry("j.json", b'{"label": "a", "start": 1' + b"0" * 5000 + b"}"), "no sense"),
    "a number of 401 digits": (entry("j.wav", WAVE) + entry("j.json", b'{"label": "a", "start": 1' + b"0" * 400 + b"}"), "no sense"),
    "a pickle beside": (entry("k.pkl", pickle.dumps(print)) + entry("k.json", b'{"label": "a"}'), "known ending"),
    "an unknown ending": (entry("k.dat", WAVE) + entry("k.json", b'{"label": "a"}'), "known ending"),
    "a folder": (entry("folder/", kind=tarfile.DIRTYPE), None),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_member_is_passed_over(case, tmp_path):
    """What stands before and behind it is used, and the rest is said in words."""
    data, word = HOSTILE[case]
    keys, odd = rows(sample("good0") + data + sample("good1") + END, tmp_path)
    assert [key for key in keys if key.startswith("good")] == ["good0.wav", "good1.wav"] and len(keys) == 2, odd
    assert not odd if word is None else any(word in text for text in odd), odd


BROKEN = {
    "nothing": (b"", 0),
    "text": (b"no archive at all\n" * 100, 0),
    "compressed": (b"\x1f\x8b\x08" + b"\0\1\2\3" * 500, 0),
    "no end": (sample("good0") + sample("good1"), 2),
    "cut in a header": (sample("good0") + sample("good1")[:100], 1),
    "cut in a recording": (sample("good0") + sample("good1")[:1000], 1),
    "cut before its label": (sample("good0") + entry("good1.wav", WAVE), 1),
    "garbage": (sample("good0") + os.urandom(2048) + sample("good1") + END, 1),
    "a size beyond the end": (sample("good0") + raw(b"big.wav", size=b"77777777777") + sample("good1") + END, 1),
    "a negative size": (sample("good0") + raw(b"neg.wav", size=b"\xff" * 12) + sample("good1") + END, 1),
    "a negative size by pax": (sample("good0") + entry("pax", b"14 size=-5120\n", tarfile.XHDTYPE) + sample("good1") + END, 1),
    "pax records of no length": (sample("good0") + entry("pax", b"0 path=x\n", tarfile.XHDTYPE) + sample("good1") + END, 1),
    "a name by pax for all that follows": (sample("good0") + entry("pax", b"19 path=/etc/x.wav\n", tarfile.XGLTYPE) + sample("good1") + END, 1),
    "an absurd pax header": (sample("good0") + entry("pax", b"x" * 70000, tarfile.XHDTYPE) + sample("good1") + END, 1),
    "an absurd long name": (sample("good0") + entry("long", b"x" * 70000, tarfile.GNUTYPE_LONGNAME) + END, 1),
    "a sparse map without end": (sample("good0") + raw(b"s.wav", b"S", rest=b"\0" * 217 + b"\1") + b"\1" * 5120, 1),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_of_a_broken_shard_what_is_whole_is_used(case, tmp_path):
    data, count = BROKEN[case]
    keys, odd = rows(data, tmp_path)
    assert keys == ["good0.wav", "good1.wav"][:count]
    assert odd or case == "nothing"


def test_bombs_cost_neither_memory_nor_time(tmp_path):
    """Gigabytes in headers and members, which are holes on the disk; and a header upon header without end."""
    path = tmp_path / "x.tar"
    record = b"30 path=" + b"x" * 21 + b"\n"
    many = b"".join(b"%d k%07d=%s\n" % (28, n, b"v" * 15) for n in range(2000))
    for head in (
        raw(b"pax", b"x", b"57777777777"),  # six gigabytes
        raw(b"long", b"L", b"57777777777"),
        sample("good0") + raw(b"big.wav", b"0", b"57777777777"),
        entry("pax", record + many, tarfile.XHDTYPE) * 50,
        raw(b"p", b"x", b"00000000000") * 5000,
        raw(b"p", b"S", b"00000000000", b"\0" * 217 + b"\1") + b"\1" * 1_024_000,
    ):
        path.write_bytes(head)
        os.truncate(path, 7 << 30)
        started = time.process_time()
        tracemalloc.start()
        _, found, _ = list_shard(path, None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20_000_000 and time.process_time() - started < 5 and len(found) <= 1


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=12)), max_size=6), st.integers(0, 9999)
)
def test_no_bytes_crash_the_listing(tmp_path, changes, length):
    data = bytearray(sample("a") + entry("b/c.ogg", b"OggS" * 100, path="b/" + "c" * 120 + ".ogg") + sample("d") + END)
    for at, new in changes:
        at %= len(data)
        data[at : at + len(new)] = new
    rows(bytes(data[: max(len(data) - length, 0)] if length < 5000 else data), tmp_path)


def test_nothing_is_written_and_nothing_run(tmp_path, monkeypatch):
    """Listing and decoding hostile shards touches no file but what is kept of them."""
    canary = tmp_path / "PWNED"

    class Hostile:
        def __reduce__(self):
            return (canary.touch, ())

    data = b"".join(part for part, _ in HOSTILE.values()) + sample("w", "b") + entry("w2.json", b'{"label": "a"}')
    data += b"".join(entry(f"w2.{ending}", pickle.dumps(Hostile())) for ending in ("pkl", "wav"))
    folder = tmp_path / "shards"
    folder.mkdir()
    for split in ("train", "val"):
        (folder / f"{split}-0.tar").write_bytes(sample("good0") + data + END)
    monkeypatch.chdir(folder)
    before = bytes_of(folder)
    with pytest.warns(UserWarning, match="unsafe"):
        part = opened(folder).split("train", InputSpec(8000))
    with pytest.warns(UserWarning, match="skipped .*w2.wav: [a-z_]+: (?!/proc)"):
        found = [part[n] for n in range(len(part))]
    assert len(found) == 3 and found[-1] is None and len(found[0].x[0]) == 800
    assert bytes_of(folder) == before and {path.name for path in tmp_path.iterdir()} == {"shards"}


# ---------------------------------------------------------------- folders that make no sense
@pytest.mark.parametrize(("pattern", "message"), [
    ("pipe:cat train-000000.tar", "local disk"),
    ("https:" + "//example.org/train-{000000..000009}.tar", "local disk"),
    ("s3:" + "//bucket/train.tar", "local disk"),
    ("train-{000000..000099}.tar", "train-00000[0-9].tar is not there"),
    ("train-{0..999999999}.tar", "at most 100000"),
    ("train-{0..999}{0..999}.tar", "at most 100000"),
    ("train-{3..1}.tar", "range"),
    ("nothing-*.tar", "no file is"),
    ("val-*.tar", "in two splits"),
])  # fmt: skip
def test_patterns_that_make_no_sense(packed, pattern, message):
    with pytest.raises(ConfigError, match=message):
        opened(packed, shards=EACH | {"train": pattern})


def test_patterns(packed, tmp_path):
    names = lambda pattern, folder=packed: [path.name for path in expand(folder, "train", pattern)]  # noqa: E731
    two = names("train-{000001..000002}.tar")
    assert two == ["train-000001.tar", "train-000002.tar"] == names("train-00000{1..2}.tar")
    assert two == names("train-00000[12].tar") == names(f"{packed}/train-00000[12].tar", tmp_path)
    assert names("*-{000000..000001}.tar")[:3] == ["test-000000.tar", "train-000000.tar", "val-000000.tar"]


def changed(packed, folder, change):
    """A copy of shards, changed, and what its index says."""
    shutil.copytree(packed, folder)
    index = json.loads((folder / "index.json").read_text())
    change(folder, index)
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize(("change", "message"), [
    (lambda folder, index: index.update(labels=["low", "higher"]), "label 'high' .* did you mean 'higher'"),
    (lambda folder, index: (folder / "train-000002.tar").unlink(), "train-000002.tar is in index.json, but not there"),
    (lambda folder, index: shutil.copy(folder / "val-000000.tar", folder / "train-000077.tar"), "is not one of its"),
    (lambda folder, index: index["shards"][0].update(file="../../etc/x.tar"), "is no index of shards"),
    (lambda folder, index: index.update(version=2), "is no index of shards"),
    (lambda folder, index: index["shards"][0].update(bytes=-5), "is no index of shards"),
    (lambda folder, index: index.update(labels={"a": "b"}), "is no index of shards"),
])  # fmt: skip
def test_an_index_that_says_otherwise(packed, tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        opened(changed(packed, tmp_path / "copy", change))


def test_an_index_of_other_numbers_and_one_that_is_none(packed, tmp_path):
    with pytest.warns(UserWarning, match=r"train-000000.tar: 7 clips were found, index.json says 9"):
        opened(changed(packed, tmp_path / "a", lambda folder, index: index["shards"][0].update(clips=9)))
    with pytest.warns(UserWarning) as told:
        cut = lambda folder, index: os.truncate(folder / "train-000000.tar", 40_000)  # noqa: E731
        data = opened(changed(packed, tmp_path / "b", cut))
    told = " ".join(str(one.message) for one in told)
    assert "40000 bytes, index.json says" in told and "cut short" in told and 39 < len(data.clips) < 46
    for text in (b"", b"[", b"[" * 100_000, b"\xff\xfe", b"null", b'{"version": 1' + b"0" * 9000 + b"}"):
        (tmp_path / "b" / "index.json").write_bytes(text)
        with pytest.raises(ConfigError, match="is no index of shards"):
            opened(tmp_path / "b")


def test_a_shard_that_is_changed_or_lost_later(packed, tmp_path):
    folder = shutil.copytree(packed, tmp_path / "copy")
    part = opened(folder, index=str(tmp_path / "index")).split("train", SOUND)
    first = part.clips[0].path
    other = next(clip.path for clip in part.clips if clip.path != first)
    data = first.read_bytes()
    first.write_bytes(data[::-1])
    other.unlink()
    told = []
    for number, clip in enumerate(part.clips):
        if clip.path in (first, other):
            with pytest.warns(UserWarning, match="skipped .*tar/") as warned:
                assert part[number] is None
            told.append(str(warned[0].message))
    assert "changed since" in told[0] and "not_found" in " ".join(told)
    first.write_bytes(data)  # another time: what is kept of the shard is not believed any more
    few = {"train": "train-000000.tar", "val": "val-*.tar"}
    assert len(opened(folder, index=str(tmp_path / "index"), shards=few).clips)


def test_what_is_kept_of_a_shard(packed, tmp_path, monkeypatch):
    """Headers are read once; a record that is broken is made anew."""
    first = opened(packed, index=str(tmp_path))
    read = []
    monkeypatch.setattr("datasets.shard_contents.list_clips", lambda *given: read.append(given) or list_clips(*given))
    assert opened(packed, index=str(tmp_path)).clips == first.clips and not read
    for path in tmp_path.glob("*.json"):
        path.write_text(path.read_text()[: len(path.read_text()) // 2])
    assert opened(packed, index=str(tmp_path)).clips == first.clips and len(read) == len(list(tmp_path.glob("*.json")))


# ---------------------------------------------------------------- training
def test_workers_share_the_clips(packed):
    """As spawned workers get the split: each clip comes once."""
    part = pickle.loads(pickle.dumps(opened(packed).split("train", SOUND)))
    steps = plan_steps(draw_order(part, 0, "none", 2), 6)
    batches = [batch for step in Loader(SOUND, 2, 60).load_steps(part, steps) for batch in step]
    keys = sorted(key for batch in batches for key in batch.keys)
    assert keys == sorted(f"{c.name}@{c.start}-{c.end}" for c in part.clips)


def test_shards_are_closed(packed, tmp_path):
    """After what could be read, and what could not."""
    cut = entry("c.wav", WAVE[:50]) + entry("c.json", b'{"label": "a"}')
    for split in ("train", "val"):
        (tmp_path / f"{split}-0.tar").write_bytes(sample("a") + sample("b", "b") + cut + END)
    parts = [opened(folder).split("train", SOUND) for folder in (packed, tmp_path)]
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = [part[number] is not None for part in parts for number in range(len(part))]
    assert read.count(True) >= 30 and (not before or len(os.listdir("/proc/self/fd")) == before)


def test_a_clip_of_a_long_recording_reads_no_more_than_it_needs(tmp_path, monkeypatch):
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 8000, 1) as file:
        file.write(np.zeros(600 * 8000))
    rows = [{"path": "long.wav", "label": "ab"[n % 2], "split": ("train", "val")[n // 2], "start": n, "end": n + 1} for n in range(4)]  # fmt: skip
    assert pack(write_table(tmp_path / "list.csv", rows), tmp_path / "out") == 0
    clip, read, pread = opened(tmp_path / "out").clips[0], [], os.pread
    monkeypatch.setattr(os, "pread", lambda *asked: read.append(len(data := pread(*asked))) or data)
    assert len(clip.read(InputSpec(8000))[0]) == 8000 and sum(read) < 1_000_000 < clip.size


def test_a_disk_that_fails_is_an_error_of_the_clip(packed, monkeypatch):
    part = opened(packed).split("train", SOUND)

    def broken(*asked):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", broken)
    with pytest.warns(UserWarning, match=r"skipped .*: unreadable: the shard cannot be read: Input/output error"):
        assert part[0] is None


def test_training_from_shards(tones, tmp_path):
    """Of a folder per class, and of the shards that a range names."""
    assert pack(tones, tmp_path / "shards", "--clips", 5) == 0
    source = ["dataset=shards", f"dataset.root={tmp_path / 'shards'}", "dataset.index=null", "trainer.epochs=5"]
    which = 'dataset.shards.train="train-{000000..000003}.tar"'
    ran("train.py", *QUICK, *source, which, f"hydra.run.dir={tmp_path / 'run'}")
    test = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    assert test["accuracy"] == 1.0 and test["count"] == 4 and list(test["classes"]) == ["high", "low"]
