"""Where training videos come from: named corpora, folders and tables of videos, and motions made on the fly."""

import re
import shutil
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torchvision
from conftest import configured, tone_clip, write_table
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import cross_val_score
from test_datasets import places

from datasets import moving_digits
from datasets.folder import Folder
from datasets.hmdb51 import HMDB51
from datasets.kinetics import Kinetics
from datasets.manifest import Manifest
from datasets.moving_digits import MovingDigits
from datasets.moving_shapes import MovingShapes
from datasets.ucf101 import UCF101
from pipeline.core.build import build
from pipeline.core.errors import ConfigError
from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Picture
from pipeline.media.video_writer import write_video

SEEN = InputSpec(None, Picture(10, 16, 16))
BOTH = InputSpec(8000, Picture(10, 16, 16))
MADE = [(MovingShapes, {}), (MovingDigits, {"classes": "digit"}), (MovingDigits, {"classes": "motion"})]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A video of half a second that gets brighter, without sound."""
    path = tmp_path_factory.mktemp("video") / "brighter.mp4"
    levels = np.linspace(40, 200, 5).astype(np.uint8)
    write_video(path, np.broadcast_to(levels[:, None, None, None], (5, 16, 16, 3)), 10)
    return path


@pytest.fixture
def put(video):
    """Copy the video to a place."""

    def copy(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, path)
        return path

    return copy


def with_sound(path, rate=8000):
    """A second of grey pictures, 10 a second, and a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = [av.VideoFrame.from_ndarray(np.full((16, 16, 3), 120, np.uint8), format="rgb24") for _ in range(10)]
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    heard = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
    heard.rate, heard.pts = rate, 0
    with av.open(str(path), "w") as file:
        pictures, sound = file.add_stream("libx264", rate=10), file.add_stream("aac", rate=rate, layout="mono")
        pictures.width = pictures.height = 16
        for track, frames in ((pictures, grey), (sound, [heard])):
            for frame in [*frames, None]:
                file.mux(track.encode(frame))
    return path


def by_split(data):
    """The clips' paths of each split."""
    return {split: {clip.path for clip in data.clips if clip.split == split} for split in ("train", "val", "test")}


def together(data, unit):
    """How many units there are, none of which stands in two splits."""
    found = places(data, unit)
    assert all(len(splits) == 1 for splits in found.values())
    return len(found)


# --- named corpora -------------------------------------------------------------------------------------------------


@pytest.fixture
def ucf101(tmp_path, put):
    """Two classes of six recordings with two cuts each; in fold N recordings N and N + 3 are for the test."""
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    for fold in (1, 2, 3):
        lines = {"train": [], "test": []}
        for number, label in enumerate(("Archery", "HandstandPushups"), 1):
            for recording in range(1, 7):
                for cut in (1, 2):  # as in the corpus: one class spells its folder and its files differently
                    name = f"v_{label.replace('dst', 'dSt')}_g{recording:02}_c{cut:02}.avi"
                    if fold == 1:
                        put(tmp_path / "UCF-101" / label / name)
                    part = "test" if recording % 3 == fold % 3 else "train"
                    lines[part].append(f"{label}/{name}" + (f" {number}" if part == "train" else ""))
        for part, found in lines.items():
            (lists / f"{part}list{fold:02}.txt").write_bytes("\r\n".join([*found, ""]).encode())
    return tmp_path


@pytest.fixture
def hmdb51(tmp_path, put):
    """Two classes of five films with two cuts each; the last film is for the test, and one cut is in no split."""
    for label in ("brush_hair", "clap"):
        films = ("April_09", "#20_Rhythm", "clap_it", "Blonde", "Zen")
        files = [f"{film}_{label}_u_nm_np1_ba_goo_{cut}.avi" for film in films for cut in (0, 1)]
        for name in files:
            put(tmp_path / label / name)
        for fold in (1, 2, 3):
            marks = [1] * 7 + [0] + [2] * 2 if fold == 1 else [2] * 2 + [1] * 8
            table = tmp_path / "testTrainMulti_7030_splits" / f"{label}_test_split{fold}.txt"
            table.parent.mkdir(exist_ok=True)
            table.write_text("".join(f"{name} {mark} \n" for name, mark in zip(files, marks)))
    return tmp_path


UNITS = {  # what must not be parted
    UCF101: ("ucfTrainTestlist", lambda clip: re.search(r"v_(.*)_c\d", clip.path.name)[1], 12),
    HMDB51: ("testTrainMulti_7030_splits", lambda clip: (clip.label, clip.path.name.rpartition(f"_{clip.label}_u")[0]), 10),
}  # fmt: skip


@pytest.mark.parametrize("fold", [1, 2, 3])
@pytest.mark.parametrize("kind", UNITS)
def test_folds_are_those_of_torchvision(kind, fold, request):
    (lists, unit, count), root = UNITS[kind], request.getfixturevalue(kind.__name__.lower())
    data, videos = kind(str(root), fold=fold, cache=None), sorted(map(str, root.rglob("*.avi")))
    found = by_split(data)
    theirs = getattr(torchvision.datasets, kind.__name__)._select_fold
    for train, ours in ((True, found["train"] | found["val"]), (False, found["test"])):
        place = SimpleNamespace(root=str(root / "UCF-101"), TRAIN_TAG=1, TEST_TAG=2)
        rows = theirs(place, videos, str(root / lists), fold, train)
        assert {videos[row] for row in rows} == set(map(str, ours)) and len(ours) > 3
    assert found["val"] and together(data, unit) == count
    assert len(data.split("test", SEEN)) == len(found["test"])


def test_hmdb51_tells_classes_apart_that_share_a_name(hmdb51, put):
    """The same file name may be for training in one class and for testing in another."""
    lists = hmdb51 / "testTrainMulti_7030_splits"
    for label, mark in (("brush_hair", 1), ("clap", 2)):
        put(hmdb51 / label / "same.avi")
        with open(lists / f"{label}_test_split1.txt", "a") as file:
            file.write(f"same.avi {mark}\n")
    found = by_split(HMDB51(str(hmdb51), cache=None))
    assert hmdb51 / "clap" / "same.avi" in found["test"]
    assert hmdb51 / "brush_hair" / "same.avi" in found["train"] | found["val"]


LABELS = ("air drumming", "tai chi", "massaging person's head", "tossing coin (up)")


def kinetics_table(root, split, count, labelled=True):
    """``annotations/<split>.csv`` as it is published; the file names it stands for."""
    rows = [
        {"label": label, "youtube_id": f"{split[:2]}-{kind}_{number:06}", "time_start": 7 * number, "time_end": 7 * number + 10}
        for kind, label in enumerate(LABELS)
        for number in range(count)
    ]  # fmt: skip
    given = [row | {"split": split} if labelled else {k: v for k, v in row.items() if k != "label"} for row in rows]
    write_table(root / "annotations" / f"{split}.csv", given)
    return [f"{row['youtube_id']}_{row['time_start']:06}_{row['time_end']:06}.mp4" for row in rows]


@pytest.fixture
def kinetics(tmp_path, put):
    """The videos unsorted, with tables beside them."""
    for split, count in (("train", 4), ("val", 1), ("test", 2)):
        for name in kinetics_table(tmp_path, split, count):
            put(tmp_path / split / name)
    return tmp_path


def test_kinetics_reads_tables_as_torchvision_sorts_them_into_folders(kinetics):
    def listed():
        return sorted((clip.split, clip.label, clip.path.name) for clip in Kinetics(str(kinetics)).clips)

    before = listed()
    assert len(before) == 4 * (4 + 1 + 2)
    for split in ("train", "val", "test"):
        place = SimpleNamespace(root=str(kinetics), split=split, split_folder=str(kinetics / split))
        torchvision.datasets.Kinetics._make_ds_structure(place)
        assert not list((kinetics / split).glob("*.mp4"))
    shutil.rmtree(kinetics / "annotations")
    assert listed() == before


@pytest.mark.parametrize("labelled", [True, False])
def test_kinetics_without_a_labelled_test_split_tests_on_val(kinetics, labelled):
    official = by_split(Kinetics(str(kinetics)))
    if labelled:
        (kinetics / "annotations" / "test.csv").unlink()
    else:
        kinetics_table(kinetics, "test", 2, labelled=False)
    found = by_split(Kinetics(str(kinetics), val=0.25))
    assert found["test"] == official["val"] and found["train"] | found["val"] == official["train"]
    assert len(found["val"]) == 4 and not found["train"] & found["val"]


def test_kinetics_keeps_cuts_of_one_video_together(tmp_path, put):
    for label in "ab":
        for number in range(12):
            put(tmp_path / "train" / label / f"{label}video-{number // 3:05}_{number:06}_{number + 10:06}.mp4")
        put(tmp_path / "val" / label / "bvideo-00000_000003_000013.mp4")  # of val as published: no fault of ours
    data = Kinetics(str(tmp_path), val=0.25)
    data.clips = [clip for clip in data.clips if clip.split != "test"]
    assert together(data, lambda clip: clip.path.name[:12]) == 8


def test_kinetics_names_missing_files_with_and_without_a_cache(kinetics, tmp_path):
    gone = sorted((kinetics / "val").glob("*.mp4"))[0]
    gone.unlink()
    for cache in (None, str(tmp_path / "cache")):
        with pytest.warns(UserWarning, match=rf"skipped .*{gone.name}: not_found"):
            val = Kinetics(str(kinetics), cache=cache).split("val", SEEN)
        assert len(val) == 3 and val[0].x[0].shape == (5, 16, 16, 3)
    for path in (kinetics / "val").glob("*.mp4"):
        path.unlink()
    with pytest.warns(UserWarning), pytest.raises(ConfigError, match="none of the 4 val files can be read"):
        Kinetics(str(kinetics)).split("val", SEEN)


@pytest.mark.parametrize(("text", "message"), [
    ("label,youtube_id,time_start\na,x,1\n", "'time_end' is missing"),
    ("label,youtube_id,time_start,time_end\n,x,1,2\n", "'label' is missing"),
    ("label,youtube_id,time_start,time_end\na,x,soon,2\n", "must be whole seconds"),
])  # fmt: skip
def test_kinetics_tables_that_make_no_sense(tmp_path, text, message):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "train.csv").write_text(text)
    with pytest.raises(ConfigError, match=rf"dataset\.root: .*train\.csv: .*{message}"):
        Kinetics(str(tmp_path))


@pytest.mark.parametrize(("kind", "there", "missing"), [
    (UCF101, [], "UCF-101"),
    (UCF101, ["UCF-101"], "trainlist01.txt"),
    (HMDB51, ["clap"], "<class>_test_split1.txt"),
    (Kinetics, ["val"], "train.csv"),
])  # fmt: skip
def test_a_missing_part_is_named(tmp_path, kind, there, missing):
    for name in there:
        (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=rf"dataset\.root: .*{re.escape(missing)}.* missing.*expected a folder with"):
        kind(str(tmp_path))


def test_hmdb51_tables_without_videos(hmdb51):
    for label in ("clap", "brush_hair"):
        shutil.rmtree(hmdb51 / label)
    with pytest.raises(ConfigError, match=r"dataset\.root: .*brush_hair is missing"):
        HMDB51(str(hmdb51))


# --- folders and tables of videos ----------------------------------------------------------------------------------


def test_a_folder_of_videos(tmp_path, put):
    for label in "ab":
        for split in ("train", "val"):
            put(tmp_path / split / label / "silent.mp4")
    (tmp_path / "train" / "a" / "bad.mp4").write_text("not a video")
    tone_clip(tmp_path / "train" / "b" / "sound.wav", 440, 1.0)
    data = Folder(str(tmp_path), cache=None)
    with pytest.warns(UserWarning) as caught:
        train = data.split("train", SEEN)
    told = sorted(str(warning.message) for warning in caught)
    assert re.search(r"skipped .*a/bad\.mp4: unreadable", told[0])
    assert re.search(r"skipped .*b/sound\.wav: no_video", told[1]) and len(told) == 2
    assert [clip.path.name for clip in train.clips] == ["silent.mp4"] * 2
    assert train[0].x[0].shape == (5, 16, 16, 3) and len(train[0].x) == 1


def test_absent_tracks_are_marked_and_no_clip_is_dropped(tmp_path, put):
    for split in ("train", "val"):
        for label in "ab":
            put(tmp_path / split / label / "silent.mp4")
            with_sound(tmp_path / split / label / "both.mp4")
            tone_clip(tmp_path / split / label / "unseen.wav", 440, 1.0)
    train = Folder(str(tmp_path), cache=None).split("train", BOTH)
    assert len(train) == 6
    for index in range(len(train)):
        samples, images, present = train[index].x
        steps = len(images)
        assert len(samples) == steps * 800 and present.shape == (steps, 2)
        name, heard, seen = train.clips[index].path.name, present[:, 0], present[:, 1]
        if name == "silent.mp4":
            assert steps == 5 and not heard.any() and seen.all() and not samples.any()
        elif name == "unseen.wav":
            assert steps == 10 and heard.all() and not (seen.any() or images.any()) and samples.std() > 0.1
        else:
            assert steps >= 10 and present[:10].all() and samples[:8000].std() > 0.15
            assert np.allclose(images[:10], 120, atol=4)


def test_a_table_of_parts_of_videos(tmp_path, put):
    put(tmp_path / "a.mp4")
    with_sound(tmp_path / "b.mp4")
    rows = [("a.mp4", "x", 0.0, 0.2), ("a.mp4", "y", 0.2, 0.5), ("b.mp4", "x", 0.0, 0.3), ("b.mp4", "y", 0.3, 0.9)]
    keys = ("path", "label", "start", "end", "split")
    table = [dict(zip(keys, (*row, split))) for split in ("train", "val") for row in rows]
    write_table(tmp_path / "manifest.csv", table)
    data = Manifest(str(tmp_path), cache=None)
    seen, both = data.split("train", SEEN), data.split("train", BOTH)
    assert [len(seen[index].x[0]) for index in range(4)] == [2, 3, 3, 6]
    levels = np.concatenate([seen[index].x[0].mean((1, 2, 3)) for index in range(2)])
    assert np.allclose(levels, np.linspace(40, 200, 5), atol=6)
    assert [both[index].x[2].tolist() for index in range(2)] == [[[0, 1]] * 2, [[0, 1]] * 3]
    assert [both[index].x[2].tolist() for index in range(2, 4)] == [[[1, 1]] * 3, [[1, 1]] * 6]


# --- motions made on the fly ---------------------------------------------------------------------------------------


def same(one, two):
    facts = [(sample.labels, sample.spans, sample.key) for sample in (one, two)]
    return all(map(np.array_equal, one.x, two.x)) and facts[0] == facts[1]


@pytest.mark.parametrize(("kind", "options"), MADE)
def test_motions_repeat_by_seed_and_change_by_epoch(kind, options):
    data, twin, other = (kind(clips=13, held_out=13, seed=seed, **options) for seed in (3, 3, 4))
    train, again, different = (d.split("train", SEEN) for d in (data, twin, other))
    assert same(train[5], again[5]) and not np.array_equal(train[5].x[0], different[5].x[0])
    before = train[5]
    train.epoch = 1
    assert not same(before, train[5]) and train[5].labels == before.labels and before.key == ""
    held = {name: data.split(name, SEEN) for name in ("val", "test")}
    for name, part in held.items():
        fixed = [part[index] for index in range(13)]
        part.epoch = 7
        rest = twin.split(name, SEEN)
        assert all(same(one, part[index]) and same(one, rest[index]) for index, one in enumerate(fixed))
        assert len({sample.key for sample in fixed}) == 13
    assert not {held["val"][index].key for index in range(13)} & {held["test"][index].key for index in range(13)}
    assert not any(np.array_equal(held["val"][n].x[0], held["test"][n].x[0]) for n in range(13))


@pytest.mark.parametrize(("kind", "options"), MADE)
def test_motions_are_balanced_and_their_spans_fit(kind, options):
    data = kind(clips=117, held_out=13, **options)
    train = data.split("train", SEEN)
    samples = [train[index] for index in range(len(train))]
    counts = np.bincount([sample.labels[0] for sample in samples], minlength=len(data.labels))
    assert counts.max() - counts.min() <= 1 and counts.sum() == 117
    for sample in samples:
        (images,) = sample.x
        assert images.dtype == np.uint8 and images.shape[1:] == (16, 16, 3) and 17 <= len(images) <= 21
        if data.labels[sample.labels[0]] == data.background:
            assert sample.spans == []
            continue
        starts, ends, found = zip(*sample.spans)
        assert ends[-1] == len(images) and ends[-1] - starts[0] == 16  # it moves for 1.6 s, up to the end
        assert starts[1:] == ends[:-1] and all(start < end for start, end in zip(starts, ends))
        assert found[-1] == sample.labels[0] and data.labels.index(data.background) not in found
        assert (len(found) == 1) or options == {"classes": "motion"}


@pytest.mark.parametrize(("kind", "options"), MADE)
def test_motions_for_models_of_other_tracks(kind, options):
    data = kind(clips=4, held_out=1, **options)
    seen, both = data.split("train", SEEN)[1], data.split("train", BOTH)[1]
    assert np.array_equal(both.x[1], seen.x[0]) and not both.x[0].any()
    assert both.x[2].tolist() == [[0, 1]] * len(seen.x[0])
    assert [(start / 800, end / 800, label) for start, end, label in both.spans] == seen.spans
    with pytest.raises(ConfigError, match=rf"dataset={data.title} gives pictures.*extractor=frames"):
        data.split("train", InputSpec(8000))


def shifts(images):
    """How far a clip's content moves in each step, by phase correlation: ``(T - 1, 2)`` pixels across and down."""
    grey = images.mean(3)
    spectra = np.fft.fft2(grey - np.median(grey, axis=0))
    peaks = np.fft.ifft2(spectra[1:] * spectra[:-1].conj()).real.reshape(len(grey) - 1, -1).argmax(1)
    size = grey.shape[1]
    down, across = np.divmod(peaks, size)
    return (np.stack([across, down], 1) + size // 2) % size - size // 2


def test_a_single_picture_of_moving_shapes_tells_nothing():
    data = MovingShapes(clips=390, held_out=1, seed=7)
    train = data.split("train", InputSpec(None, Picture(10, 32, 32)))
    samples = [train[index] for index in range(390)]
    truth = [sample.labels[0] for sample in samples]
    last = [sample.x[0][-16:] for sample in samples]
    single = {f"picture {step}": [clip[step].mean(2).ravel() for clip in last] for step in (4, 15)}
    moved = [np.concatenate([np.median(found[:3], 0), np.median(found[-5:], 0)]) for found in map(shifts, last)]

    def score(features):
        judge = ExtraTreesClassifier(50, random_state=0)
        return cross_val_score(judge, np.stack(features), truth, cv=3).mean()

    chance = 1 / len(data.labels)
    for name, pictures in single.items():
        assert score(pictures) < chance + 4 * np.sqrt(chance * (1 - chance) / 390), name
    assert score(moved) > 0.75


def test_digits_of_the_splits_are_disjoint():
    data = load_digits()
    found = [moving_digits.load_digit_images(split) for split in ("train", "val", "test")]
    for digit in range(10):
        parts = [{image.tobytes() for image in images[digit]} for images in found]
        whole = {(image / 16).tobytes() for image in data.images[data.target == digit]}
        assert sum(map(len, parts)) == len(whole) and set().union(*parts) == whole
        assert len(parts[0]) > 100 and len(parts[1]) > 20 and len(parts[2]) > 20


def test_digits_bounce_as_billiard_balls_do():
    """Against a simulation in small steps that turns the velocity round at each wall."""
    rng, fine = np.random.default_rng(0), 100
    for name, way in moving_digits.WAYS.items():
        velocity, room = rng.uniform(0.3, 0.7) * np.array(way), np.array([0.5, 0.45])
        place = moving_digits.route(rng, velocity, room, np.arange(-24, 1) / 10)
        names = moving_digits.step_directions(place, velocity)
        assert names[-3:] == [name] * 3 and {sign for n in names for sign in n.split("_")} >= {*name.split("_")}
        now, speed = place[-1].copy(), -velocity  # backwards in time
        for step in range(24):
            for _ in range(fine):
                now += speed / 10 / fine
                speed = np.where((now < 0) & (speed < 0) | (now > room) & (speed > 0), -speed, speed)
            assert np.allclose(now, place[-2 - step], atol=0.01)


def test_the_yaml_chooses_the_classes():
    for classes, label in (("digit", "7"), ("motion", "left_up")):
        config = configured("train", "experiment=moving_digits", f"dataset.classes={classes}")["dataset"]
        assert label in build(config, at="dataset").labels
    with pytest.raises(ConfigError, match=r"dataset\.classes: got 'colour'"):
        build(config | {"classes": "colour"}, at="dataset")
