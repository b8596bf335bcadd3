"""Reading audio: any format, rate and length; doubts are noted, what is unusable has a code."""

import os
import wave as wavefile

import librosa
import numpy as np
import pytest
import soundfile
from damage import muxed

from pipeline.core.errors import MediaError
from pipeline.media.audio import Resampler, open_blocks, probe, read


def tone(seconds=1.0, rate=16000, hertz=440.0):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff"])
def test_formats(tmp_path, name):
    soundfile.write(tmp_path / name, tone(), 16000)
    wave, facts = read(tmp_path / name, 16000)
    assert wave.dtype == np.float32 and abs(len(wave) - 16000) <= 1200 and facts.warnings == []
    assert np.corrcoef(wave[4000:8000], librosa.load(tmp_path / name, sr=None)[0][4000:8000])[0, 1] > 0.999


def test_containers_that_soundfile_cannot_read(tmp_path):
    (tmp_path / "a.m4a").write_bytes(muxed("ipod", "m4a", sound="aac")[1])
    wave, facts = read(tmp_path / "a.m4a", 16000)
    assert facts.rate == 16000 and abs(len(wave) - 6400) < 2048 and not facts.warnings
    assert abs(np.abs(wave[2000:-2000]).max() - 0.3) < 0.1


def test_eight_channels_at_192_khz(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.tile(tone(0.5, 192000)[:, None], 8), 192000, subtype="PCM_24")
    wave, facts = read(tmp_path / "a.wav", 16000)
    assert (facts.rate, facts.channels, facts.warnings) == (192000, 8, [])
    assert len(wave) == 8000 and np.abs(wave[1000:-1000] - tone(0.5)[1000:-1000]).max() < 1e-3


def test_blocks_and_whole_are_the_same_bits(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(9.0, 44100), 44100)
    _, blocks = open_blocks(tmp_path / "a.wav", 16000)
    whole, _ = read(tmp_path / "a.wav", 16000)
    assert np.array_equal(np.concatenate(list(blocks)), whole) and len(whole) == 9 * 16000
    stored, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    convert, parts, at = Resampler(44100, 16000), [], 0
    for size in np.random.default_rng(0).integers(1, 5000, 300):
        parts.append(convert(stored[at : at + size]))
        at += size
    assert np.array_equal(np.concatenate([*parts, convert(stored[at:]), convert.close()]), whole)


def test_part_of_a_recording(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.arange(8000, dtype=np.float32) / 8000, 8000, subtype="FLOAT")
    wave, facts = read(tmp_path / "a.wav", 8000, 0.25, 0.5)
    assert len(wave) == 2000 and wave[0] == 0.25 and facts.warnings == ["dc_offset"]
    with pytest.raises(MediaError, match="no samples from 5"):
        read(tmp_path / "a.wav", 8000, 5.0, 6.0)


def broken(folder):
    good = folder / "good.wav"
    soundfile.write(good, tone(2.0), 16000)
    data = good.read_bytes()
    cases = {
        "empty_file": b"",
        "no_samples": data[:40] + b"\0\0\0\0",
        "unreadable": b"this is no sound, it is a text that somebody renamed\n" * 20,
        "playlist": b"#EXTM3U\n#EXTINF:1,\ngood.wav\n",
        "limit_rate": data[:24] + (4_000_000_000).to_bytes(4, "little") + data[28:],
    }
    for code, content in cases.items():
        (folder / f"{code}.wav").write_bytes(content)
    os.mkfifo(folder / "not_a_file.wav")
    return [*cases, "not_a_file"]


def test_unusable_files_have_codes(tmp_path):
    for code in broken(tmp_path):
        with pytest.raises(MediaError) as error:
            read(tmp_path / f"{code}.wav", 16000)
        assert error.value.code == code, str(error.value)
    with pytest.raises(MediaError) as error:
        probe(tmp_path / "nowhere.wav")
    assert error.value.code == "not_found"


def test_doubts_are_noted(tmp_path):
    good = tone(2.0)
    bad = good.copy()
    bad[8000:8010] = [np.nan, np.inf] * 5
    cases = {"nonfinite": bad, "silent": good * 0, "too_short": good[:48], "clipped": np.where(good > 0.29, 1e30, good)}
    for code, samples in cases.items():
        soundfile.write(tmp_path / f"{code}.wav", samples, 16000, subtype="FLOAT")
        wave, facts = read(tmp_path / f"{code}.wav", 16000)
        assert facts.warnings == [code] and np.isfinite(wave).all() and np.abs(wave).max() <= 1
    soundfile.write(tmp_path / "anti.wav", np.stack([good, -good], 1), 16000)
    assert read(tmp_path / "anti.wav", 16000)[1].warnings == ["downmix_cancels"]


def test_declared_and_decoded_length_are_compared(tmp_path):
    with wavefile.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((tone(2.0) * 32767).astype("<i2").tobytes())
    data = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "half.wav").write_bytes(data[: len(data) // 2])
    wave, facts = read(tmp_path / "half.wav", 16000)
    assert facts.warnings == ["truncated"] and len(wave) == 15989


def test_real_recordings_of_every_set(real):
    for name, rate in (("fsdd/0/0_george_0.wav", 8000), ("esc10/dog/fold1_100032-A.ogg", 22050)):
        wave, facts = read(real / name, 16000)
        theirs, own = librosa.load(real / name, sr=16000, res_type="soxr_hq")
        assert facts.rate == rate and own == 16000 and abs(len(wave) - len(theirs)) <= 1
        size = min(len(wave), len(theirs))
        assert np.abs(wave[:size] - theirs[:size]).max() < 1e-4
