"""What extractors of motion see: the region that moves, near or far; what is held still; how disordered it is."""

import cv2
import numpy as np
import pytest
import torch
from conftest import configured
from scipy.stats import entropy

from pipeline.augmentations.pictures import AugmentPictures
from pipeline.core.build import build
from pipeline.core.errors import ConfigError
from pipeline.extractors.extractor import Extractor
from pipeline.extractors.motion_statistics import MotionStatistics, figures
from pipeline.extractors.moving_region import MovingRegion, region


def scene(height, width, top, left, size, pictures=24, until=14):
    """A still, smooth ground; a textured arm of ``size`` pixels goes up from (top, left) and is held from ``until`` on."""
    rng = np.random.default_rng(3)
    ground = cv2.resize(rng.integers(60, 120, (6, 8)).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    arm = cv2.resize(rng.integers(150, 255, (4, 4)).astype(np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
    images = np.repeat(ground[None], pictures, 0)
    for t in range(pictures):
        up = round(size * 0.1 * min(max(t - 4, 0), until - 4))
        images[t, top - up : top - up + size, left : left + size] = arm
    return torch.from_numpy(np.repeat(images[None, :, None], 3, 2))


def seen(extractor, x):
    y, _ = extractor(x, extractor.initial(1))
    return y[0]


def test_the_region_is_where_the_moments_of_change_say():
    weights = torch.rand(5, 30, 40, generator=torch.Generator().manual_seed(0)).pow(4)
    weights[:, :10] = 0
    across, down, half = region(weights, 2.0)
    for n in range(5):
        found = cv2.moments(weights[n].double().numpy() + 1 / 1200)  # of pixels, as OpenCV counts them
        x, y = found["m10"] / found["m00"], found["m01"] / found["m00"]
        deviation = np.sqrt((found["mu20"] + found["mu02"]) / found["m00"] / 2)
        assert across[n] == pytest.approx((x + 0.5) / 20 - 1, abs=1e-5)
        assert down[n] == pytest.approx((y + 0.5) / 15 - 1, abs=1e-5)
        assert half[n] == pytest.approx(2.0 * deviation / 15, rel=1e-5)


def test_near_or_far_an_arm_looks_alike():
    """Half the size at another place: the same picture of the region, where a fixed grid sees another one."""
    extractor = MovingRegion(10, 120, 160)
    near, far = seen(extractor, scene(120, 160, 70, 40, 40)), seen(extractor, scene(120, 160, 80, 110, 20))
    held = [y[-1, 4] / y[-1, 4].norm() for y in (near, far)]
    assert (held[0] * held[1]).sum() > 0.8
    up = [y[6:14, 3].mean(0) for y in (near, far)]
    assert (up[0] * up[1]).sum() / (up[0].norm() * up[1].norm()) > 0.8


def test_what_is_held_stays_to_be_seen_when_motion_is_over():
    y = seen(MovingRegion(10, 120, 160), scene(120, 160, 70, 60, 30))
    motion, held, quick = y[:, :4].square().sum((1, 2, 3)), y[:, 4].square().sum((1, 2)), y[:, 5].square().sum((1, 2))
    assert motion[:4].max() < 1e-4 * motion[10] and held[:4].max() == 0
    assert motion[10] > 20 * motion[-1] and quick[10] > 5 * quick[-1] and held[-1] > 0.5 * held[10]
    assert y[8:12, 3].sum() > 5 * y[8:12, 2].sum(), "it goes upwards"


def test_figures_of_motion():
    rng = np.random.default_rng(1)
    motion, last = rng.normal(size=(2, 6, 8, 3)).astype(np.float32)
    motion[..., 2], last[..., 2] = np.abs(motion[..., 2]), np.abs(last[..., 2])
    y = figures(motion, last, np.zeros((6, 8), np.float32))
    assert y.shape == (40,) and y[31] == pytest.approx(entropy(motion[..., 2].ravel() + 1e-4), rel=1e-5)
    assert y[0] == pytest.approx(np.sqrt(motion[..., 2]).mean(), rel=1e-5)
    assert y[12] == pytest.approx(np.median(np.sqrt(np.abs(motion[..., 2] - last[..., 2]))), rel=1e-5)
    assert (np.diff(y[32:]) >= 0).all() and (y[25:30] == 0).all()
    one_way = np.zeros((6, 8, 3), np.float32)
    one_way[..., 0] = one_way[..., 2] = 0.5  # everything to the right
    y = figures(one_way, one_way, np.zeros((6, 8), np.float32))
    assert y[30] == pytest.approx(1, abs=1e-3) and y[39] == pytest.approx(1, abs=1e-3) and y[5] == y[15] == y[20] == 0


def test_turmoil_differs_from_a_walk_and_not_by_place():
    """The order of pictures at random: more sudden. The same elsewhere: alike."""
    extractor = MotionStatistics(10, 120, 160)
    calm = scene(120, 160, 80, 40, 30)
    wild = calm[:, torch.randperm(24, generator=torch.Generator().manual_seed(0))]
    elsewhere = seen(extractor, scene(120, 160, 80, 100, 30))[6:13].mean(0)
    walk, turmoil = seen(extractor, calm)[6:13].mean(0), seen(extractor, wild)[6:13].mean(0)
    assert turmoil[5] > 2 * walk[5] and turmoil[10] > 2 * walk[10]
    assert (walk - elsewhere)[:30].abs().max() < 0.25 * (walk - turmoil)[:30].abs().max()


@pytest.mark.parametrize("option", ["moving_region", "motion_statistics"])
@pytest.mark.parametrize(("settings", "message"), [
    ({"height": 122}, "multiples of 4"), ({"width": 12}, "at least 16x16"),
    ({"fast": 0.05}, r"extractor\.fast: 0\.05 s"),
])  # fmt: skip
def test_settings_that_make_no_sense(option, settings, message):
    config = configured("train", f"extractor={option}")["extractor"] | settings
    with pytest.raises(ConfigError, match=message):
        build(config, Extractor, at="extractor")


def test_vectors_are_moved_as_a_whole_and_made_uneven():
    torch.manual_seed(0)
    x = torch.zeros(200, 10, 30)
    moved = AugmentPictures(where="features", offset=0.5).features(x, 0.1)
    assert torch.equal(moved[:, :1].expand_as(moved), moved) and moved[:, 0].std() == pytest.approx(0.5, rel=0.05)
    uneven = AugmentPictures(where="features", noise=0.2).features(x, 0.1)
    assert uneven.std() == pytest.approx(0.2, rel=0.05) and uneven.mean(1).std() < 0.1
    images = torch.zeros(2, 3, 3, 8, 8)
    assert torch.equal(AugmentPictures(where="features", noise=0.2, offset=0.5).features(images, 0.1), images)
