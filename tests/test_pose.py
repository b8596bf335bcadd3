"""Points of persons: what is between the networks anywhere, and with the package the networks on real pictures."""

import copy
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import torch
from conftest import DATA, configured, listen, run

from pipeline.core.build import build
from pipeline.core.errors import ConfigError
from pipeline.extractors.blaze_pose import CELLS, LANDMARKS, LOOKS, anchors, axes, cut, region_of, to_picture
from pipeline.extractors.extractor import Extractor
from pipeline.extractors.pose import POINTS, Pose, about_shoulders
from pipeline.layers.laws import check
from pipeline.media.chunks import read_chunk
from pipeline.model.classifier import Classifier, load
from pipeline.streaming.stream import Stream

JOINED = (
    "extractor=joined",
    "extractor.parts=[moving_region,pose]",
    "encoder=recurrent",
    "encoder.hidden=8",
    "head=mean",
)


def installed():
    try:
        return bool(distribution(LANDMARKS.package)) and find_spec("ai_edge_litert") is not None
    except PackageNotFoundError:
        return False


needs_package = pytest.mark.skipif(not installed(), reason="needs make setup EXTRAS=pose")


@pytest.fixture(scope="module")
def person():
    """19 pictures (T, 3, H, W) of a person who raises an arm."""
    path = DATA / "gestures" / "turnback" / "S4_1_1m_upper.mp4"
    if not path.exists():
        pytest.skip(f"no real pictures at {DATA}; set RIVULET_DATA")
    images = read_chunk(path, Pose(how="stretch").spec, 0, 1.9)[0][0]
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def seen(x, state=None, extractor=None):
    extractor = extractor or Pose()
    y, state = extractor(x[None], state or extractor.initial(1))
    return y[0], state


def test_a_region_is_cut_and_its_points_go_back_to_where_they_were():
    """A dot in a picture, in a turned region of it."""
    for angle in (0.0, 0.4, -2.0):
        picture = np.zeros((120, 160, 3), np.uint8)
        cv2.circle(picture, (90, 50), 3, (255, 255, 255), -1)
        region = np.array([85, 60, 80, angle], np.float32)
        part = cut(picture, region, 256)
        moments = cv2.moments(part[:, :, 0])
        there = np.array([[moments["m10"], moments["m01"]]], np.float32) / moments["m00"] + 0.5
        assert to_picture(there, region, 256)[0] == pytest.approx([90.5, 50.5], abs=0.1)
    turned = cv2.getRotationMatrix2D((128, 128), np.degrees(0.4), 256 / 80)  # OpenCV's own, from picture to region
    back = cv2.invertAffineTransform(axes(np.array([128, 128, 80, 0.4], np.float32), 256))
    assert back == pytest.approx(turned, abs=1e-4)


def test_a_region_stands_upright_where_a_person_lies():
    region = region_of(np.float32([50, 60]), np.float32([50, 40]))
    assert region == pytest.approx([50, 60, 50, 0], abs=1e-5)
    lying = region_of(np.float32([50, 60]), np.float32([70, 60]))  # the head is to the right
    assert to_picture(np.float32([[128, 128 - 256 / 2.5]]), lying, 256)[0] == pytest.approx([70, 60], abs=1e-3)


def test_each_guess_of_the_detector_has_a_cell():
    found = anchors()
    assert found.shape == (2254, 2) and sum(side * side * guesses for side, guesses in CELLS) == 2254
    assert found[:3].tolist() == pytest.approx(np.array([[0.5, 0.5], [0.5, 0.5], [1.5, 0.5]]) / 28)
    assert found[-1] == pytest.approx([6.5 / 7, 6.5 / 7]) and found[1568 + 28] == pytest.approx([0.5 / 14, 1.5 / 14])


def test_points_are_counted_from_the_shoulders_whatever_the_distance():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 20, (len(POINTS), 2)).astype(np.float32)
    near, far = about_shoulders(points, 100.0), about_shoulders(points * 0.3 + [40, 7], 30.0)
    assert near == pytest.approx(far, abs=1e-4)
    left, right = near[[POINTS.index(11), POINTS.index(12)]]
    assert np.hypot(*(left - right)) == pytest.approx(1) and left == pytest.approx(-right, abs=1e-5)
    aside = points.copy()
    aside[[3, 4]] = 0  # one shoulder behind the other
    assert np.isfinite(about_shoulders(aside, 100.0)).all() and np.isfinite(about_shoulders(points * 0, 0.0)).all()


@needs_package
def test_points_are_those_of_mediapipe(person):
    """In the pictures 0 and 10, nose, shoulders, elbows and wrists by ``mediapipe.solutions.pose`` 0.10.21."""
    theirs = {
        0: [[91.7, 37.7], [107.1, 57.3], [77.9, 56.1], [110.8, 81.1], [72.8, 79.9], [110.4, 102.6], [70.9, 102.8]],
        10: [[92.1, 36.9], [107.0, 56.9], [77.8, 55.4], [110.9, 81.0], [71.3, 76.6], [111.0, 103.1], [72.3, 95.4]],
    }
    y, _ = seen(person)
    for number, points in theirs.items():
        points = np.array(points)
        middle, width = points[1:3].mean(0), np.hypot(*(points[1] - points[2]))
        own = y[number, 1:35].view(-1, 2)[[0, 3, 4, 5, 6, 7, 8]].numpy()
        assert np.hypot(*(own - (points - middle) / width).T).max() < 0.2
    assert y[:, 0].all() and y[1:, 35:] == pytest.approx(10 * np.diff(y[:, 1:35], axis=0), abs=1e-3)
    assert not y[0, 35:].any()


@needs_package
def test_however_pictures_are_cut_and_whoever_shares_the_batch(person):
    y, _ = seen(person)
    found, state = [], None
    for piece in person.split([3, 1, 9, 6]):
        part, state = seen(piece, state)
        found.append(part)
    assert torch.equal(torch.cat(found), y)
    extractor = Pose()
    both, _ = extractor(torch.stack([torch.zeros_like(person), person]), extractor.initial(2))
    assert torch.equal(both[1], y) and not both[0].any()
    check(build(configured("train", "extractor=pose")["extractor"], Extractor, at="extractor"), examples=1)


@needs_package
def test_a_person_who_leaves_and_comes_back(person):
    nobody = torch.full_like(person[:6], 90)
    y, _ = seen(torch.cat([person[:5], nobody, person[5:12]]))
    assert y[:5, 0].all() and not y[5:11].any()
    first = int(y[11:, 0].argmax())
    assert first < len(LOOKS) and y[11 + first :, 0].all() and not y[11 + first, 35:].any()
    noise = torch.randint(0, 256, (4, *person.shape[1:]), dtype=torch.uint8)
    assert not seen(noise)[0].any() and not seen(nobody)[0].any()


@needs_package
def test_of_two_persons_the_one_who_was_there_first_is_followed(person):
    left, right = person[..., 40:140], person[..., 40:140].flip(-1)
    alone = torch.cat([left, torch.full_like(right, 90)], -1)
    both = torch.cat([left, right], -1)
    extractor = Pose(width=200)
    one, _ = seen(alone, extractor=extractor)
    two, _ = seen(torch.cat([alone[:3], both[3:]]), extractor=extractor)
    assert one[:, 0].all() and two[:, 0].all() and (one - two)[:, 1:35].abs().mean() < 0.1
    assert seen(both, extractor=extractor)[0][:, 0].all()


@needs_package
def test_a_mirrored_person_has_mirrored_points(person):
    y, z = seen(person)[0], seen(person.flip(-1))[0]
    assert (Pose().mirror(y) - z)[:, :35].abs().mean() < 0.1 < (y - z)[:, :35].abs().mean()


@needs_package
def test_a_model_with_the_region_that_moves_streams_as_it_answers_offline(person, tmp_path):
    torch.manual_seed(0)
    model = Classifier(configured("train", *JOINED), ["a", "b"]).eval()
    model.save(tmp_path / "model.safetensors")
    images = person.permute(0, 2, 3, 1).numpy()
    again, x = load(tmp_path / "model.safetensors"), person[None]
    offline = again(x, again.initial(1))[0][0].detach().numpy()
    streamed = listen(Stream(copy.deepcopy(again), 1), np.array_split(images, 7))[0]
    assert np.array_equal(streamed, listen(Stream(again, 1), [images])[0])
    assert np.abs(streamed - offline).max() < 1e-6


def test_without_the_package_the_one_command_is_said(tmp_path, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("pipeline.core.package.distribution", missing)
    with pytest.raises(ConfigError, match=r"mediapipe is not installed.*`make setup EXTRAS=pose`.*extractor\.path"):
        Pose().fetch()
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
    done = run("train.py", *JOINED, "dataset=folder", f"dataset.root={tmp_path}/data", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 2 and b"Traceback" not in done.stderr


def test_a_folder_that_has_other_files(tmp_path):
    with pytest.raises(ConfigError, match=r"extractor\.path: there is no file .*pose_detection\.tflite"):
        Pose(path=str(tmp_path)).fetch()
