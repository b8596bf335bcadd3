"""Folders as people keep them: links, other files, empty classes, and splits under any name."""

import shutil
import warnings
from collections import Counter

import pytest
from conftest import tone_clip, tone_clips

from datasets import shards
from datasets.folder import Folder
from datasets.manifest import Manifest
from datasets.shards import Shards
from datasets.splits import name_splits
from pipeline.batch.files import Files
from pipeline.core.errors import ConfigError
from pipeline.decoders.decoder import Decoder
from pipeline.media.input_spec import InputSpec

SOUND = InputSpec(16000)


@pytest.fixture
def tree(tmp_path):
    """Two classes, one of which holds a link to a folder elsewhere, with files of other kinds, and an empty class."""
    root = tone_clips(tmp_path / "data", ("cat", "dog"), 3, 0.1)
    tone_clips(tmp_path / "elsewhere", ("more",), 3, 0.1)
    (root / "dog" / "linked").symlink_to(tmp_path / "elsewhere" / "more")
    (root / "dog" / "again").symlink_to(root / "dog")
    (root / "bird").symlink_to(shutil.copytree(root / "cat", tmp_path / "elsewhere" / "bird"))
    (root / "empty").mkdir()
    for number in range(10):
        (root / "cat" / f"{number}.txt").touch()
    for name in ("dog/a.xyz", "dog/b.XYZ", "README", "dog/.hidden.txt"):
        (root / name).touch()
    return root


def test_the_same_tree_is_the_same_files_for_all(tree, tmp_path, capsys):
    listed = Folder(str(tree)).clips
    told = capsys.readouterr().err
    assert "13 files of other kinds are passed over" in told and ": .txt 10, .xyz 2, without an ending 1\n" in told
    assert "folders without any audio or video file are no classes: 1 (empty)" in told and "not followed: 1" in told
    assert Counter(clip.label for clip in listed) == {"bird": 3, "cat": 3, "dog": 6}
    names = sorted(str(clip.path) for clip in listed)
    assert sorted(entry.path for entry in Files(str(tree)).entries()) == names
    assert ".txt 10, .xyz 2" in capsys.readouterr().err
    assert shards.main([str(tree), str(tmp_path / "out"), "--test", "0"]) == 0
    packed = Shards(str(tmp_path / "out"), shards={"train": "train-*.tar", "val": "val-*.tar"}, index=None).clips
    assert sorted(clip.label for clip in packed) == sorted(clip.label for clip in listed)
    lines = [f"{clip.path.relative_to(tree)},{clip.label}" for clip in listed if "linked" not in clip.name]
    (tree / "list.csv").write_text("\n".join(["path,label", *(line for line in lines if not line.startswith("bird"))]))
    assert {str(clip.path) for clip in Manifest(str(tree), file="list.csv").clips} < set(names)


def test_a_class_that_cannot_be_read_at_all_is_told(tmp_path, capsys):
    for split in ("train", "val"):
        tone_clips(tmp_path / split, "abc", 2, 0.1)
    for number in range(2):
        (tmp_path / "val" / "b" / f"{number}.wav").write_text("no sound")
    data = Folder(str(tmp_path), cache=None)
    with pytest.warns(UserWarning, match="skipped"):
        assert len(data.split("val", SOUND)) == 4
    assert "none of the val files of the labels 'b' can be read: nothing" in capsys.readouterr().err
    for label in "bc":
        for number in range(2):
            (tmp_path / "train" / label / f"{number}.wav").write_text("no sound")
    told = "none of the train files of the labels 'b', 'c' can"
    with pytest.warns(UserWarning), pytest.raises(ConfigError, match=told):
        data.split("train", SOUND)


@pytest.mark.parametrize("names", [
    ("train", "val", "test"), ("train", "valid", "test"), ("Train", "Val", "Test"), ("training", "validation", "testing"),
    ("TRAIN", "dev", "eval"), ("train_set", "val-set", "testset"), ("Training", "validation_data", "test data"),
    ("train", "dev", "test"), ("train", "eval", "test"),
])  # fmt: skip
def test_splits_under_any_name(tmp_path, names, capsys):
    for name, count in zip(names, (4, 2, 3)):
        tone_clips(tmp_path / name, "ab", count, 0.1)
    found = Folder(str(tmp_path))
    assert found.labels == ["a", "b"]
    assert [clip.split for clip in found.clips] == ["train"] * 8 + ["val"] * 4 + ["test"] * 6
    assert ("'eval' is taken for the split" in capsys.readouterr().err) == ("eval" in names)
    rows = [f"{clip.path.relative_to(tmp_path)},{clip.label},{clip.path.parts[-3]}" for clip in found.clips]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,label,Split", *rows]))
    assert [clip.split for clip in Manifest(str(tmp_path)).clips] == [clip.split for clip in found.clips]


def test_names_of_splits():
    assert name_splits(["train", "eval"]) == {"train": "train", "eval": "val"}
    assert name_splits(["train", "trains", "testament", "valley", "fold1", "", "device"]) == {"train": "train"}


def test_a_class_may_be_named_train(tmp_path, capsys):
    tone_clips(tmp_path / "a", ("car", "train", "plane", "eval"), 6, 0.1)
    assert Folder(str(tmp_path / "a")).labels == ["car", "eval", "plane", "train"]
    tone_clips(tmp_path / "a" / "train", ("steam",), 1, 0.1)
    assert len(Folder(str(tmp_path / "a")).clips) == 25
    for split in ("train", "val"):
        tone_clips(tmp_path / "b" / split, ("car", "train", "val"), 2, 0.1)
    assert Folder(str(tmp_path / "b")).labels == ["car", "train", "val"]
    tone_clip(tmp_path / "b" / "train" / "loose.wav", 440, 0.1)
    assert len(Folder(str(tmp_path / "b")).clips) == 12
    told = capsys.readouterr().err
    assert "recordings in no class's folder are left out: 1 (train 1)" in told and "taken for" not in told


def test_a_label_may_be_spelt_in_two_ways(tmp_path, capsys):
    """One class on two systems, and the label of nothing as another system would type it."""
    tone_clips(tmp_path, ("caf\u00e9", "cafe\u0301", "dog", "dog ", "Dog"), 4, 0.1)
    data = Folder(str(tmp_path), background="cafe\u0301")
    assert data.labels == ["Dog", "caf\u00e9", "dog"] and data.background == "caf\u00e9"
    assert [sum(clip.label == label for clip in data.clips) for label in data.labels] == [4, 8, 8]
    told = capsys.readouterr().err
    assert "'dog', 'dog ' are taken for one label" in told and "'Dog' and 'dog' look alike" in told
    decoder = {"threshold": {"cafe\u0301": 0.9}, "release": 0.3}
    assert Decoder(data.labels, 160, 16000, background=[], **decoder).high.tolist() == pytest.approx([0.6, 0.9, 0.6])
    quiet = Decoder(data.labels, 160, 16000, background=["cafe\u0301"])
    assert [data.labels[index] for index in quiet.audible] == ["Dog", "dog"]


def test_what_is_in_no_class_is_told(tmp_path, capsys):
    for split in ("train", "test"):
        tone_clips(tmp_path / split, "ab", 8, 0.1)
    tone_clips(tmp_path / "extras", "ab", 3, 0.1)
    tone_clip(tmp_path / "loose.wav", 300, 0.1)
    tone_clip(tmp_path / "test" / "loose.wav", 300, 0.1)
    (tmp_path / "train" / "c").mkdir()
    assert len(Folder(str(tmp_path)).clips) == 32
    told = capsys.readouterr().err
    assert "in no class's folder are left out: 8 (extras/a 3, extras/b 3, . 1, test 1)" in told
    assert "are no classes: 1 (train/c)" in told


@pytest.mark.parametrize(
    "folders", [("train", "test"), ("dev/a", "dev/b", "eval/a", "eval/b"), ("Training", "Validation")]
)
def test_splits_without_classes_or_without_train_are_refused(tmp_path, folders):
    tone_clips(tmp_path, folders, 6, 0.1)
    with pytest.raises(ConfigError, match="have names of splits, but there is no train with a folder for each class"):
        Folder(str(tmp_path))


def test_parts_that_end_behind_their_recording_are_told(tmp_path, capsys):
    for number in range(8):
        tone_clip(tmp_path / f"{number}.wav", 300, 1.0)
    rows = [f"{n}.wav,{'ab'[n % 2]},0.5,{3.0 if n == 0 else 1.0},{'train' if n < 4 else 'val'}" for n in range(8)]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,label,start,end,split", *rows]))
    for cache in (None, str(tmp_path / "cache"), str(tmp_path / "cache")):  # also when it is decoded already
        data = Manifest(str(tmp_path), cache=cache)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(data.split("train", SOUND)) == 4 and len(data.split("val", SOUND)) == 4
        told = capsys.readouterr().err
        assert told.count("behind the end") == 1
        assert ": 1 of train, such as" in told and "0.wav (to 3 of 1.00 s)" in told
