"""Features against librosa and torchaudio, given the same left padding."""

import librosa
import numpy as np
import pytest
import torch
import torchaudio
from scipy.signal import periodogram

from pipeline.extractors.logmel import LogMel
from pipeline.extractors.mfcc import MFCC
from pipeline.extractors.texture import Texture
from pipeline.extractors.waveform import Waveform


def signal(seconds, rate, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * 300 * t * (1 + t)) + 0.1 * rng.standard_normal(len(t))).astype(np.float32)


def padded(x, extractor):
    """Zeros before the start, and the silence that librosa wants around a window shorter than the transform."""
    side = extractor.fft - extractor.window
    return np.pad(x, (extractor.window - extractor.hop + side // 2, side - side // 2))


def relative(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def mel_power(x, extractor, mels, low=20.0, high=None):
    """Librosa's, ``(mels, T)``."""
    return librosa.feature.melspectrogram(
        y=padded(x, extractor), sr=extractor.rate, n_fft=extractor.fft, win_length=extractor.window,
        hop_length=extractor.hop, center=False, n_mels=mels, fmin=low, fmax=high,
    )  # fmt: skip


@pytest.mark.parametrize(("rate", "mels", "low", "high"), [(16000, 64, 20.0, None), (8000, 40, 0.0, 3800.0)])
def test_logmel_is_librosas(rate, mels, low, high):
    ours, x = LogMel(rate=rate, mels=mels, low=low, high=high), signal(1.0, rate)
    y, _ = ours(torch.from_numpy(x)[None], ours.initial(1))
    assert y.shape == (1, 100, mels)
    assert relative(y[0].numpy(), np.log(mel_power(x, ours, mels, low, high).T + ours.floor)) < 1e-4


def test_mfcc_is_librosas_and_torchaudios():
    ours = MFCC(mels=48, coefficients=13)
    x = signal(1.0, 16000)
    y, _ = ours(torch.from_numpy(x)[None], ours.initial(1))
    theirs = librosa.feature.mfcc(S=np.log(mel_power(x, ours, 48) + ours.floor), n_mfcc=13)
    assert relative(y[0].numpy(), theirs.T) < 1e-4
    mel = {"n_fft": ours.fft, "win_length": ours.window, "hop_length": ours.hop, "f_min": 20.0, "n_mels": 48,
           "center": False, "norm": "slaney", "mel_scale": "slaney"}  # fmt: skip
    transform = torchaudio.transforms.MFCC(16000, 13, log_mels=True, melkwargs=mel)
    assert relative(y[0].numpy(), transform(torch.from_numpy(padded(x, ours))).T.numpy()) < 1e-4


def test_texture_is_what_librosa_and_scipy_say_of_each_window():
    ours = Texture(rate=8000, mels=20, groups=5, span=0.64, every=0.16)
    x = signal(2.0, 8000)
    x[6000:9000] = 0  # frames that do not sound, others at the edge of it
    x[9000:] *= np.linspace(1e-3, 1, 7000, dtype=np.float32)
    y, _ = ours(torch.from_numpy(x)[None], ours.initial(1))
    power = mel_power(x, ours.spectrum, 20)
    silence = np.full((20, 32), np.log(1e-6))
    frames = np.concatenate([silence, np.log(power.astype(np.float64) + 1e-6)], 1)
    assert y.shape == (1, 12, 3 * 20 + 1 + 5 * 5)
    for step, row in enumerate(y[0].numpy()):
        window = frames[:, (step + 1) * 8 : (step + 1) * 8 + 32]
        decibels = 10 * np.log10(np.e) * window.mean(0)
        weights = np.interp(decibels, [decibels.max() - 40, decibels.max() - 20], [0, 1])
        mean = np.average(window, axis=1, weights=weights)
        deviation = np.sqrt(np.average((window.T - mean).T ** 2, axis=1, weights=weights))
        both = weights[1:] * weights[:-1]
        change = (np.abs(np.diff(window)) * both).sum(1) / max(1, both.sum())
        bands = window.reshape(5, 4, 32).mean(1)
        _, density = periodogram(bands, window="hann", detrend="constant", scaling="density", return_onesided=False)
        density = density[:, :17] * (np.hanning(33)[:-1] ** 2).sum()
        octaves = [density[:, low : 2 * low].mean(1) for low in (1, 2, 4, 8)] + [density[:, 16]]
        expected = [mean - mean.mean(), deviation, change, [weights.mean()], np.log1p(np.stack(octaves, 1)).ravel()]
        assert np.abs(row - np.concatenate(expected)).max() < 2e-3, step
    loud, _ = ours(torch.from_numpy(x)[None] * 3, ours.initial(1))
    assert (loud - y)[0, 3].abs().max() < 1e-2  # the level makes no difference to what was never silent


def test_waveform_frames_are_librosas():
    ours = Waveform(window=0.02, hop=0.01)
    x = signal(0.5, 16000)
    y, _ = ours(torch.from_numpy(x)[None], ours.initial(1))
    theirs = librosa.util.frame(np.pad(x, (160, 0)), frame_length=320, hop_length=160)
    assert np.array_equal(y[0].numpy(), theirs.T)


@pytest.mark.parametrize(("kind", "settings", "message"), [
    (Texture, {"span": 0.1, "every": 0.1}, r"extractor\.span: 0\.1 s are 5 frames, extractor\.every: 0\.1 s are 5"),
    (Texture, {"every": 0.005}, r"extractor\.every: 0\.005 s are 0"),
    (Texture, {"mels": 12, "groups": 13}, r"extractor\.groups: 13 groups of 12 bands"),
    (LogMel, {"rate": 8000, "high": 5000.0}, r"extractor\.high"), (LogMel, {"window": 0.005}, r"extractor\.window"),
    (MFCC, {"mels": 10, "coefficients": 20}, r"extractor\.coefficients"),
    (Waveform, {"hop": 1e-6}, "less than one sample"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)
    assert Texture().hop == 0.24 * 16000 and Texture(hop=0.015, every=0.06).span == 67
