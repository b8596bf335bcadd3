"""Augmentation of sound, held to numbers that others compute: NumPy, SciPy, librosa, and the papers' formulas."""

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from conftest import configured, ran, tone_clip
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.augmentations.acoustics import (
    align_rooms,
    convolve,
    cut_excerpts,
    draw_noise,
    draw_rooms,
    filter_microphone,
    measure_level,
    mix,
)
from pipeline.augmentations.augmentation import Augmentation
from pipeline.augmentations.both import AugmentBoth
from pipeline.augmentations.recordings import read_recordings
from pipeline.augmentations.sound import Augment
from pipeline.augmentations.warp import change_tempo, place_clips, warp_frequencies
from pipeline.core.build import build
from pipeline.core.errors import ConfigError
from pipeline.extractors.logmel import LogMel
from pipeline.extractors.mfcc import MFCC
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Sample, collate
from pipeline.model.classifier import Classifier
from pipeline.model.features import Features

RATE = 8000
SOUND = InputSpec(RATE)
OFF = {"gain": 0, "shift": 0, "speed": 0, "noise": 0, "masks": 0}
CHOICES = ["light", "speaker", "far", "strong"]


def batch(*waves, spans=None):
    rows = [np.asarray(wave, np.float32) for wave in waves]
    return collate([Sample((wave,), (n % 2,), None if spans is None else spans[n], key=str(n))
                    for n, wave in enumerate(rows)], SOUND)  # fmt: skip


def burst(length=RATE, start=2000, end=5000, hertz=700, loud=0.2):
    wave = np.zeros(length)
    wave[start:end] = loud * np.sin(2 * np.pi * hertz * np.arange(end - start) / RATE)
    return wave


def test_nothing_is_changed_where_everything_is_off():
    before = batch(burst(), burst(3000, 100, 2000), spans=[[(2000, 5000, 0)], []])
    augment = Augment(**OFF)
    augment.setup(["a", "b"], LogMel(RATE))
    after = augment.clips(before, SOUND)
    features = [torch.randn(2, 50, 64)]
    same, again = augment.tracks(features, after, torch.flip)
    assert torch.equal(after.x[0], before.x[0]) and torch.equal(again.lengths, before.lengths)
    assert again.spans == before.spans and torch.equal(augment.features(same[0], 0.01), features[0])


def test_a_room_is_a_convolution_and_begins_with_the_sound():
    torch.manual_seed(0)
    x = torch.randn(3, 5000)
    times, direct = torch.tensor([[0.1], [0.3], [0.6]]), torch.tensor([[0.0], [6.0], [15.0]])
    responses = draw_rooms(times, direct, RATE)
    expected = scipy.signal.fftconvolve(x.numpy(), responses.numpy(), axes=1)[:, :5000]
    assert np.abs(convolve(x, responses).numpy() - expected).max() < 1e-4
    assert torch.allclose(responses.square().sum(1), torch.ones(3))
    assert (responses.abs().argmax(1) == 0).all()
    for h, decay, above in zip(responses.double().numpy(), times[:, 0], direct[:, 0]):
        assert abs(10 * np.log10(h[0] ** 2 / (h[1:] ** 2).sum()) - above) < 0.01
        left = 10 * np.log10(np.cumsum(h[:0:-1] ** 2)[::-1] + 1e-20)  # Schroeder's backward integration
        part = (left < left[0] - 5) & (left > left[0] - 25)
        slope = np.polyfit(np.flatnonzero(part) / RATE, left[part], 1)[0]
        assert abs(-60 / slope / decay - 1) < 0.15


def test_measured_rooms_begin_at_their_peak():
    late = np.r_[np.zeros(30), -0.5, 0.2, 0.1].astype(np.float32)
    early = np.r_[0.9, 0.3].astype(np.float32)
    found = align_rooms([torch.from_numpy(late), torch.from_numpy(early)])
    assert found.shape == (2, 3) and torch.allclose(found.norm(dim=1), torch.ones(2))
    assert np.allclose(found[0] / found[0, 0], [1, -0.4, -0.2])
    assert np.allclose(found[1] / 0.9, [1, 1 / 3, 0] / np.sqrt(10) * 3 / 0.9)


def test_noise_lies_below_the_loud_part_of_each_clip():
    torch.manual_seed(0)
    waves = [burst(loud=loud, start=160 * n, end=4960) for loud, n in [(0.5, 1), (0.01, 12), (0.1, 28)]]  # whole frames
    x = torch.tensor(np.stack([*waves, np.zeros(RATE)]), dtype=torch.float32)
    assert torch.allclose(measure_level(x, RATE)[:, 0], torch.tensor([0.5, 0.01, 0.1, 0]) / 2**0.5, rtol=0.03)
    assert torch.allclose(measure_level(x[:, 2000:2005], RATE), x[:, 2000:2005].square().mean(1, keepdim=True).sqrt())
    decibel = torch.tensor([[5.0], [20.0], [40.0], [0.0]])
    for noise in (draw_noise(4, RATE), cut_excerpts(torch.randn(99999) * 0.003, 4, RATE), x.roll(1, 0)[:, :]):
        added = (mix(x, noise, decibel, RATE) - x).double().square().mean(1).sqrt()
        for row, loud in enumerate([0.5, 0.01, 0.1]):
            ratio = 20 * np.log10(loud / 2**0.5 / max(1e-12, added[row].item()))
            assert abs(ratio - decibel[row].item()) < 0.3 or not noise[row].any()
        assert not added[3]
    others = x.roll(1, 0)  # sparse ones
    added = measure_level(mix(x, others, decibel, RATE, clips=True) - x, RATE)[:, 0]
    for row, loud in ((1, 0.01), (2, 0.1)):
        assert 20 * np.log10(loud / 2**0.5 / added[row].item()) == pytest.approx(decibel[row].item(), abs=0.3)


@pytest.mark.parametrize("kind", ["noise", "babble", "recorded"])
def test_the_ratio_is_drawn_from_its_range_for_the_share_of_clips_that_is_asked_for(kind, tmp_path):
    torch.manual_seed(0)
    tone_clip(tmp_path / "hum.wav", 120, seconds=3)
    before = batch(*[burst(2000, 0, 2000, hertz=300 + n) for n in range(400)])
    files = {"noises": str(tmp_path)} if kind == "recorded" else {}
    augment = Augment(**OFF | {kind: 0.25, "snr": (5, 15)} | files)
    augment.setup(["a", "b"], LogMel(RATE))
    added = (augment.clips(before, SOUND).x[0] - before.x[0]).square().mean(1)
    hit = added > 0
    ratio = 10 * torch.log10(0.02 / added[hit])
    assert 70 < hit.sum() < 130 and ratio.min() > 4.8 and ratio.max() < 15.2 and 9 < ratio.mean() < 11


def test_the_colour_of_noise_goes_from_white_to_brown():
    torch.manual_seed(0)
    noise = draw_noise(40, 1 << 15).numpy()
    hertz, power = scipy.signal.welch(noise, nperseg=1024)
    slopes = np.polyfit(np.log(hertz[8:400]), np.log(power[:, 8:400].T), 1)[0]
    assert slopes.min() > -2.15 and slopes.max() < 0.15 and slopes.min() < -1.6 and slopes.max() > -0.4


def test_a_microphone_has_the_response_that_was_drawn():
    n = 1 << 14
    click = torch.zeros(4, n)
    click[:, n // 2] = 1
    zero, never = torch.zeros(4, 1), torch.full((4, 1), torch.inf)
    hertz = np.fft.rfftfreq(n, 1 / RATE)
    heard = 20 * np.log10(np.abs(np.fft.rfft(filter_microphone(click, zero, torch.zeros(4, 9), torch.tensor([[0.0], [100], [300], [0]]),
                                                      torch.tensor([[torch.inf], [3000], [1000], [2000]]), RATE).numpy())) + 1e-9)  # fmt: skip
    assert np.abs(heard[0]).max() < 0.01
    seen = (hertz > 80) & (hertz < 3900)
    for row, low, high in [(1, 100, 3000), (2, 300, 1000)]:
        expected = sum(20 * np.log10(np.abs(scipy.signal.freqs(*scipy.signal.butter(4, edge, kind, analog=True), hertz[seen])[1]))
                       for edge, kind in [(low, "high"), (high, "low")])  # fmt: skip
        assert np.abs(heard[row][seen] - expected)[expected > -60].max() < 0.2
    tilt = torch.tensor([[2.0], [-3.0], [0], [0]])
    gains = torch.zeros(4, 9)
    gains[2] = torch.tensor([3.0, -3, 0, 6, -6, 1, 2, 0, 0])
    heard = 20 * np.log10(np.abs(np.fft.rfft(filter_microphone(click, tilt, gains, zero, never, RATE).numpy())))
    at = {f: np.abs(hertz - f).argmin() for f in (125, 250, 500, 1000, 2000)}
    for row, slope in enumerate([2, -3]):
        assert np.allclose([heard[row, i] for i in at.values()], slope * np.arange(-3, 2), atol=0.05)
    assert np.allclose([heard[2, i] for i in at.values()], [-3, 0, 6, -6, 1], atol=0.05)


def test_what_rings_before_the_start_does_not_come_in_at_the_end():
    x = torch.zeros(1, 3000)
    x[0, :400] = torch.sin(torch.arange(400) * 0.4)
    low, high = torch.full((1, 1), 300.0), torch.full((1, 1), 1000.0)
    y = filter_microphone(x, torch.zeros(1, 1), torch.zeros(1, 9), low, high, RATE)
    assert y[0, -300:].abs().max() < 1e-3 and y[0, :400].abs().max() > 0.5


def test_samples_are_stretched_and_moved_as_numpy_interpolates():
    rng = np.random.default_rng(0)
    lengths = [4000, 3000, 17, 1]
    x = batch(*[rng.standard_normal(n) for n in lengths])
    factors, shifts = [1.1, 0.9, 1.0, 0.6], [-300, 500, 5, 0]
    y, ends = place_clips(x.x[0], x.lengths, factors, shifts)
    assert y.shape == (4, 4400) and ends.tolist() == [4400, 3200, 22, 1]
    for row, (n, factor, shift) in enumerate(zip(lengths, factors, shifts)):
        size = max(1, round(n * factor))
        played = np.interp((np.arange(size) + 0.5) * n / size - 0.5, np.arange(n), x.x[0][row, :n])
        expected = np.zeros(4400)
        for t in range(size):
            if 0 <= t + shift < 4400:
                expected[t + shift] = played[t]
        assert np.abs(y[row].numpy() - expected).max() < 2e-3  # torch counts in float32


def test_each_clip_has_its_own_speed_and_its_times_go_with_it():
    torch.manual_seed(0)
    before = batch(*[burst(6000) for _ in range(40)], spans=[[(2000, 5000, 1)]] * 40)
    after = Augment(**OFF | {"speed": 0.2}).clips(before, SOUND)
    assert len(set(after.lengths.tolist())) > 30 and after.lengths.min() < 5200 and after.lengths.max() > 6800
    for row, spans, length in zip(after.x[0], after.spans, after.lengths.tolist()):
        sounding = (row.abs() > 0.02).nonzero()[:, 0]
        assert abs(sounding[0] - spans[0][0]) <= 4 and abs(sounding[-1] + 1 - spans[0][1]) <= 4
        assert not row[length:].any()


def test_steps_are_paced_and_what_follows_a_clip_follows_it_still():
    x = torch.arange(10.0)[None, :, None].repeat(3, 1, 2)
    x[:, :, 1] = torch.tensor([0, 1, 2])[:, None]
    y = change_tempo(x, torch.tensor([6, 6, 10]), torch.tensor([3, 9, 10]))
    assert y.shape == (3, 10, 2) and (y[:, :, 1] == x[:, :, 1]).all()
    assert y[0, :, 0].tolist() == [0, 2, 4, 6, 7, 8, 9, 9, 9, 9]
    assert y[1, :, 0].tolist() == [0, 0, 1, 2, 2, 3, 4, 4, 5, 6]
    assert y[2, :, 0].tolist() == list(range(10))
    assert change_tempo(x, torch.tensor([10, 6, 1]), torch.tensor([12, 6, 1])).shape[1] == 12


def test_tempo_changes_times_but_not_pitch():
    torch.manual_seed(0)
    extractor = LogMel(RATE)
    augment = Augment(**OFF | {"tempo": 0.3})
    augment.setup(["a", "b"], extractor)
    before = batch(*[burst()] * 30, spans=[[(2000, 5000, 1)]] * 30)
    plain, _ = extractor(before.x[0], extractor.initial(30))
    (y,), after = augment.tracks([plain], before, torch.flip)
    assert after.lengths.min() < 6500 and after.lengths.max() > 9500
    assert (y.mean(1).argmax(1) == plain.mean(1).argmax(1)).all()
    for row, spans in zip(y, after.spans):
        loud = (row.amax(1) > -4).nonzero()[:, 0] * extractor.hop
        assert abs(loud[0] - spans[0][0]) < 300 and abs(loud[-1] - spans[0][1]) < 400


@pytest.mark.parametrize("rate", [8000, 16000])
def test_channels_are_warped_as_the_paper_says(rate):
    extractor = LogMel(rate)
    bands = extractor.bands()
    fft = np.fft.rfftfreq(extractor.fft, 1 / rate)
    wide = bands.numpy() > 1500  # where filters are wider than a bin
    assert np.abs(fft[extractor.filters.argmax(0)] - bands.numpy())[wide].max() <= rate / extractor.fft
    x, factors = torch.randn(5, 20, 64), torch.tensor([[0.8], [0.9], [1.0], [1.1], [1.25]])
    y = warp_frequencies(x, bands, factors, rate / 2)
    for row, a in enumerate(factors[:, 0].tolist()):
        f, half, high = np.linspace(0, rate / 2, 200_001), rate / 2, 0.6 * rate / 2
        edge = high * min(a, 1) / a
        to = np.where(f <= edge, f * a, half - (half - high * min(a, 1)) / (half - edge) * (half - f))
        source = np.interp(bands.numpy(), to, f)  # the inverse of the paper's map
        expected = np.stack([np.interp(source, bands.numpy(), step) for step in x[row].numpy()])
        assert np.abs(y[row].numpy() - expected).max() < 2e-3
    assert torch.allclose(y[2], x[2], atol=1e-5)


def test_a_warp_needs_an_axis_of_frequency():
    with pytest.raises(ConfigError, match=r"augment\.warp: .* features of MFCC have no axis .* extractor=logmel"):
        Augment(warp=0.1).setup(["a", "b"], MFCC(RATE))
    Augment().setup(["a", "b"], MFCC(RATE))
    config = configured("train", "extractor=audiovisual", "augment=both", "augment.sound.warp=0.1")
    model = Classifier(config, ["a", "b"])
    both = build(config["augment"], Augmentation, at="augment")
    Features(model, both)
    assert isinstance(both, AugmentBoth) and torch.equal(both.sound.bands, model.extractor.sound.bands())
    changed, _ = both.tracks([torch.randn(2, 9, 64), torch.zeros(2, 3, 7)], batch([0.0], [0.0]), torch.flip)
    assert len(changed) == 2


@pytest.mark.parametrize(("wrong", "message"), [
    ({"snr": (20, 10)}, r"augment\.snr: got \[20, 10\]"), ({"low": (0, 50)}, r"augment\.low"),
    ({"rooms": "x"}, r"augment\.rooms would not be heard: set augment\.room"),
    ({"noises": "x", "recorded": 0}, r"augment\.noises would not be heard: set augment\.recorded"),
])  # fmt: skip
def test_settings_that_make_no_sense(wrong, message):
    with pytest.raises(ValueError, match=message):
        Augment(**wrong)


def test_recordings_are_read_once_within_limits(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(6):
        soundfile.write(tmp_path / f"{number}.flac", 0.1 * rng.standard_normal(32000), 16000)
    assert [len(r) for r in read_recordings(str(tmp_path), RATE, "here", 60, 100)] == [16000] * 6
    assert [len(r) for r in read_recordings([str(tmp_path / "2.flac")], RATE, "here", 0.5, 100)] == [4000]
    with pytest.warns(UserWarning, match="took 2 of 6 files"):
        first = read_recordings(str(tmp_path), RATE, "here", 60, 3)
    with pytest.warns(UserWarning, match="took 2 of 6 files"):
        again = read_recordings(str(tmp_path), RATE, "here", 60, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000), 8000)
    with pytest.warns(UserWarning, match=r"here: skipped .*broken\.wav"):
        assert len(read_recordings(str(tmp_path), RATE, "here", 60, 100)) == 6
    with pytest.raises(ConfigError, match=r"augment\.noises: there is no"):
        Augment(noises=str(tmp_path / "none")).setup(["a"], LogMel(RATE))
    with pytest.raises(ConfigError, match=r"augment\.rooms: found no sound"):
        Augment(room=1.0, rooms=[str(tmp_path / "silent.wav")]).setup(["a"], LogMel(RATE))


@st.composite
def changes(draw):
    share, stretch = st.sampled_from([0, 0.5, 1]), st.sampled_from([0, 0.1, 0.49])
    return {
        "gain": draw(st.sampled_from([0, 20])), "polarity": draw(st.booleans()), "shift": draw(st.sampled_from([0, 0.1, 3])),
        "speed": draw(stretch), "tempo": draw(stretch), "warp": draw(stretch), "room": draw(share), "noise": draw(share),
        "babble": draw(share), "tilt": draw(st.sampled_from([0, 6])), "equalizer": draw(st.sampled_from([0, 12])),
        "band": draw(share), "masks": draw(st.sampled_from([0, 2])), "snr": (-10, 60),
    }  # fmt: skip


@given(changes(), st.lists(st.integers(1, 3000), min_size=1, max_size=5), st.integers(0, 99), st.booleans())
@settings(max_examples=30)
def test_whatever_is_drawn_is_finite_and_in_its_place(given, lengths, seed, silent):
    rng = np.random.default_rng(seed)
    waves = [rng.standard_normal(n) * (not silent or row > 0) for row, n in enumerate(lengths)]
    spans = [[(n // 3, n // 3 + max(1, n // 2), 1)] if row % 3 == 0 else [] if row % 3 == 1 else None
             for row, n in enumerate(lengths)]  # fmt: skip
    before, extractor = batch(*waves, spans=spans), LogMel(RATE, mels=20)
    kept = before.x[0].clone()
    augment = Augment(**given)
    augment.setup(["a", "b"], extractor)

    def changed():
        torch.manual_seed(seed)
        after = augment.clips(before, SOUND)
        x = torch.nn.functional.pad(after.x[0], (0, -after.x[0].shape[1] % extractor.hop))
        (y,), last = augment.tracks([extractor(x, extractor.initial(len(lengths)))[0]], after, torch.flip)
        return after, augment.features(y, 0.01), last

    after, y, last = changed()
    again, z, _ = changed()
    assert torch.equal(after.x[0], again.x[0]) and torch.equal(y, z) and torch.equal(before.x[0], kept)
    assert after.x[0].dtype == torch.float32 and after.x[0].isfinite().all() and y.isfinite().all()
    assert after.x[0].shape[1] >= after.lengths.max() and -(-last.lengths.max() // extractor.hop) <= y.shape[1]
    assert (last.lengths >= 1).all() and not (silent and after.x[0][0].any())
    for one in (after, last):
        for row, (found, first) in enumerate(zip(one.spans, spans)):
            assert (found is None) == (first is None)
            assert all(0 <= start < end <= one.lengths[row] for start, end, _ in found or [])


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_fills_the_steps_of_the_model(choice):
    config = configured("train", f"augment={choice}", f"extractor.rate={RATE}", "head.delay=0.2", "augment.mixup=0.3")
    model = Classifier(config, ["a", "b"])
    features = Features(model, build(config["augment"], Augmentation, at="augment"))
    assert features.augment.mixup == 0.3
    for trial in range(5):
        torch.manual_seed(trial)
        y, after = features.compute_augmented(batch(burst(), burst(900, 100, 800), spans=[[(2000, 5000, 0)], []]))
        logits, _, _ = model.logits(y)
        assert y.isfinite().all() and logits.shape[1] > int(model.last_step(after.lengths).max())


def test_training_with_everything_at_once(tones, tmp_path):
    quick = ["encoder.hidden=16", "extractor.mels=20", "trainer.epochs=1", "trainer.workers=0", "trainer.batch=8"]
    places = [f"augment.noises={tones / 'low'}", f"augment.rooms={tones / 'high'}"]
    source = ["dataset=folder", f"dataset.root={tones}", "dataset.cache=null", f"hydra.run.dir={tmp_path}"]
    ran("train.py", *source, *quick, "augment=strong", "augment.mixup=0.2", *places)
    assert (tmp_path / "model.safetensors").is_file()
