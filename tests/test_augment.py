"""Augmentation of pictures, and of sound with pictures: the label stays true, and the times go with it."""

import numpy as np
import pytest
import torch
from conftest import configured

from pipeline.augmentations.augmentation import Augmentation
from pipeline.augmentations.both import AugmentBoth
from pipeline.augmentations.pictures import AugmentPictures
from pipeline.core.build import build
from pipeline.core.errors import ConfigError
from pipeline.extractors.frame_difference import FrameDifference
from pipeline.extractors.frames import Frames
from pipeline.extractors.motion_statistics import MotionStatistics
from pipeline.extractors.moving_region import MovingRegion
from pipeline.extractors.optical_flow import OpticalFlow
from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Picture
from pipeline.media.sample import Sample, collate
from pipeline.model.classifier import Classifier
from pipeline.model.features import Features, cache_of

SEEING = InputSpec(picture=Picture(10, 24, 32))
STILL = {"shift": 0.0, "scale": 0.0, "brightness": 0.0, "contrast": 0.0, "speed": 0.0, "jitter": 0.0, "drop": 0.0}
LABELS = ["left", "right", "stop"]


def clips(*lengths):
    """A batch whose picture t of each clip is grey t, with a span over its second half."""
    samples = [
        Sample((np.repeat(np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((24, 32, 3), np.uint8), 1, 0),),
               (number % 3,), [(n // 2, n, number % 3)], key=str(number))
        for number, n in enumerate(lengths)
    ]  # fmt: skip
    return collate(samples, SEEING)


def augment(**settings):
    change = AugmentPictures(**STILL | settings)
    change.setup(LABELS, Frames(10, 24, 32))
    return change


def test_nothing_is_changed_where_nothing_is_asked_for():
    batch = clips(8, 5)
    same = augment().clips(batch, SEEING)
    assert torch.equal(same.x[0][0], batch.x[0][0])
    assert torch.equal(same.lengths, batch.lengths) and same.spans == batch.spans


@pytest.mark.parametrize(("extractor", "choice", "better"), [
    ("frames", "light", "pictures"), ("logmel", "pictures", "light"), ("frames", "both", "pictures"),
    ("audiovisual", "light", "both"), ("logmel", "both", "light"),
])  # fmt: skip
def test_an_augmentation_of_another_track_is_refused_before_the_training(extractor, choice, better):
    encoder = "image_recurrent" if extractor == "frames" else "recurrent"
    config = configured("train", f"extractor={extractor}", f"encoder={encoder}", f"augment={choice}")
    model = Classifier(config, LABELS)
    with pytest.raises(ConfigError, match=f"augment: changes .* choose augment={better}"):
        Features(model, build(config["augment"], Augmentation, at="augment"))


@pytest.mark.parametrize("where", ["pixels", "features"])
def test_speed_changes_times_and_lengths_alike(where):
    torch.manual_seed(0)
    batch, change = clips(*[40] * 30), augment(speed=0.5, where=where)
    if where == "pixels":
        after = change.clips(batch, SEEING)
        shown = after.x[0][:, :, 0, 0, 0].float()
    else:
        (y,), after = change.tracks([batch.x[0][:, :, :1, 0, 0].float()], batch, Frames())
        shown = y[:, :, 0]
    factors = 40 / after.lengths
    assert factors.min() < 0.75 and factors.max() > 1.25
    for row, factor in enumerate(factors.tolist()):
        n = int(after.lengths[row])
        away = (shown[row, :n] - factor * torch.arange(n)).abs()  # picture t is what was at t * factor
        assert away.max() <= factor + 1
        ((start, end, _),) = after.spans[row]
        assert abs(start - 20 / factor) <= 1 and abs(end - n) <= 1


def test_lost_and_jittered_pictures_are_seen_as_neighbours():
    torch.manual_seed(0)
    shown = augment(drop=0.3).clips(clips(200), SEEING).x[0][0, :, 0, 0, 0].int()
    steps = shown.diff()
    assert (steps >= 0).all() and 0.2 < (steps == 0).float().mean() < 0.4 and (shown <= torch.arange(200)).all()
    shown = augment(jitter=0.5).clips(clips(200), SEEING).x[0][0, :, 0, 0, 0].int()
    assert ((shown - torch.arange(200)).abs() <= 1).all() and (shown != torch.arange(200)).float().mean() > 0.2


def test_light_and_place():
    torch.manual_seed(0)
    images = np.zeros((1, 24, 32, 3), np.uint8)
    images[0, 6:18, 10:22] = 200
    batch = collate([Sample((images,), (0,))] * 40, SEEING)
    moved = augment(shift=0.2).clips(batch, SEEING).x[0][:, 0, :, :, 0].float()
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    centre = torch.stack([(moved * v).sum((1, 2)) / moved.sum((1, 2)) for v in (y, x)], 1)
    away = (centre - torch.tensor([11.5, 15.5])).abs()
    most = away.max(0).values
    assert (most <= torch.tensor([0.2 * 24 + 0.1, 0.2 * 32 + 0.1])).all() and (most > 3).all()
    scaled = augment(scale=0.5).clips(batch, SEEING).x[0][:, 0, :, :, 0].float()
    area = (scaled.sum((1, 2)) / moved.sum((1, 2)).mean()).log()
    assert area.min() < -0.5 and area.max() > 0.5 and area.abs().max() < 1.1
    bright = augment(brightness=0.2).clips(batch, SEEING).x[0].float().amax((1, 2, 3, 4)) - 200
    assert bright.min() < -30 and bright.max() > 30 and bright.abs().max() <= 52


def moving():
    """A bright square that goes to the right and down over a textured ground, ``(1, T, 3, H, W)``."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 60, (48, 64))
    images = np.repeat(ground[None], 6, 0)
    for t in range(6):
        square = rng.integers(150, 255, (14, 16)) if not t else images[0, 10:24, 8:24]
        images[t, 10 + t : 24 + t, 8 + 3 * t : 24 + 3 * t] = square
    return torch.from_numpy(np.repeat(images[None, :, None], 3, 2).astype(np.float32))


@pytest.mark.parametrize("extractor", [
    OpticalFlow(10, 48, 64, rows=6, columns=8), MovingRegion(10, 48, 64), MotionStatistics(10, 48, 64),
    Frames(10, 48, 64), FrameDifference(10, 48, 64),
], ids=lambda extractor: type(extractor).__name__)  # fmt: skip
def test_mirrored_features_are_those_of_mirrored_pictures(extractor):
    x = moving()
    y, _ = extractor(x, extractor.initial(1))
    z, _ = extractor(x.flip(-1), extractor.initial(1))
    assert y.abs().max() > 0.1
    assert (extractor.mirror(y) - z).abs().mean() <= 0.05 * z.abs().mean()  # the estimator is not quite symmetric


def test_a_flip_turns_labels_and_spans_into_their_partners():
    torch.manual_seed(0)
    batch = clips(*[10] * 60)
    batch.x[0][:, :, :, :16] = 255
    after = augment(flip=True, swap=[("left", "right")]).clips(batch, SEEING)
    turned = after.x[0][:, 0, 0, 0, 0] != 255
    assert 15 < turned.sum() < 45
    before = torch.tensor(batch.labels)[:, 0]
    expected = torch.where(turned, torch.tensor([1, 0, 2])[before], before).tolist()
    assert after.labels == [(label,) for label in expected] and [row[0][2] for row in after.spans] == expected
    with pytest.raises(ConfigError, match=r"augment\.swap: no clip has the label 'lefft'; did you mean 'left'"):
        augment(flip=True, swap=[("lefft", "right")])
    with pytest.raises(ConfigError, match="vectors cannot be turned round"):
        augment(flip=True, where="features").tracks([torch.zeros(2, 5, 7)], clips(5, 5), Frames())


SMALL = "experiment=gestures", "extractor.height=48", "extractor.width=64"


def film():
    """Those pictures as a clip."""
    return moving()[0].permute(0, 2, 3, 1).numpy().astype(np.uint8)


def test_costly_features_are_computed_once_and_changed_each_time():
    config = configured("train", *SMALL, "extractor.cells=6")
    model = Classifier(config, LABELS)
    features = Features(model, build(config["augment"], Augmentation, at="augment"))
    images = film()
    batch = collate([Sample((images,), (0,), key="a"), Sample((images[:4],), (1,), key="b")], model.spec)
    torch.manual_seed(0)
    first, _ = features.compute_augmented(batch)
    kept = {key: [y.clone() for y in tracks] for key, tracks in features.cache.tracks.items()}
    second, _ = features.compute_augmented(batch)
    assert kept.keys() == {"a", "b"} and kept["b"][0].shape == (4, 6, 6, 6)
    assert all(torch.equal(y, features.cache.tracks[key][0]) for key, (y,) in kept.items())
    assert first.shape != second.shape or not torch.equal(first, second)
    assert torch.equal(features.compute(batch), features.compute(batch))
    assert Features(model, None).cache is features.cache, "the next training has them"
    other = Classifier(configured("train", "experiment=gestures", "extractor.height=40"), LABELS)
    assert not Features(other, None).cache.tracks


def test_the_cache_of_features_is_bounded(monkeypatch):
    """Clips beyond the bound are computed each time, to the same bits; what is kept is in main memory."""
    model = Classifier(configured("train", *SMALL), LABELS)
    images = film()
    batch = collate([Sample((images[n:],), (0,), key=f"{n}") for n in range(4)], model.spec)
    expected = Features(model, None).compute(batch)
    limit = Features(model, None).cache.bytes // 2
    monkeypatch.setattr("pipeline.model.features.CACHE_BYTES", limit)
    cache_of.cache_clear()
    features = Features(model, None)
    assert torch.equal(features.compute(batch), expected) and torch.equal(features.compute(batch), expected)
    assert 0 < features.cache.bytes <= limit and 1 <= len(features.cache.tracks) < 4
    assert all(y.device.type == "cpu" for tracks in features.cache.tracks.values() for y in tracks)


@pytest.mark.parametrize("more", [["head.delay=0.3"], ["encoder.convolutions=[{channels: 8, kernel: 5, stride: 4}]"]])
def test_features_that_change_in_time_still_fill_the_steps_of_the_model(more):
    config = configured("train", *SMALL, "extractor.cells=6", "augment.speed=0.5", *more)
    model = Classifier(config, LABELS)
    features = Features(model, build(config["augment"], Augmentation, at="augment"))
    images = film()
    for trial in range(5):
        torch.manual_seed(trial)
        batch = collate([Sample((images,), (0,), key="a"), Sample((images[:5],), (1,), key="b")], model.spec)
        y, after = features.compute_augmented(batch)
        logits, _, _ = model.logits(y)
        assert y.shape[1] % model.hop == 0 and logits.shape[1] > int(model.last_step(after.lengths).max())


def test_pictures_that_begin_late_are_not_taken_for_motion():
    config = configured("train", "experiment=fights_both", "extractor.picture.height=28", "extractor.picture.width=28")
    model = Classifier(config | {"encoder": config["encoder"]}, ["a", "b"])
    extractor = model.extractor
    images = torch.full((1, 8, 3, 28, 28), 200.0)
    present = torch.ones(1, 8, 2)
    present[:, [0, 1, 5], 1] = 0
    x = images * present[:, :, 1].view(1, 8, 1, 1, 1)
    still, _ = extractor.fused(torch.zeros(1, 80, 64), torch.zeros(1, 8, 3, 14, 14), present, extractor.initial(1)[2])
    y, _ = extractor((torch.zeros(1, 8 * model.spec.grain), x, present), extractor.initial(1))
    assert torch.equal(y[:, :, 65:], still[:, :, 65:])


def test_a_track_is_lost_at_random_but_never_both():
    torch.manual_seed(0)
    settings = configured("train", "augment=both")["augment"]["sound"]
    sound = build(settings, Augmentation, at="augment")
    with pytest.raises(ValueError, match=r"augment\.sound\.gain and augment\.sound\.noise must be 0"):
        AugmentBoth(sound, augment(where="features"))
    both = AugmentBoth(sound, augment(), lose_sound=0.3, lose_picture=0.15)
    present = torch.ones(2000, 4, 2)
    present[:500, :, 0] = 0  # these have no sound
    after = both.drop_tracks(present)
    assert torch.equal(after[:500], present[:500])
    lost = 1 - after[500:].amax(1)
    assert lost.sum(1).max() == 1 and abs(lost[:, 0].mean() - 0.3) < 0.04 and abs(lost[:, 1].mean() - 0.15) < 0.03
    with pytest.raises(ValueError, match="sound and pictures would come apart"):
        AugmentBoth(build(configured("train")["augment"], Augmentation, at="augment"), augment())
    for wrong, message in (({"speed": 0.1, "drop": 0.1}, r"picture\.speed and augment\.picture\.drop must be 0"),
                           ({"noise": 0.1}, r"augment\.picture\.noise must be 0")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            AugmentBoth(sound, augment(**wrong))
    with pytest.raises(ValueError, match="not be more than 1 together"):
        AugmentBoth(sound, augment(), lose_sound=0.7, lose_picture=0.6)
    with pytest.raises(ValueError, match=r"set augment\.flip=true"):
        augment(swap=[("left", "right")])
