"""Windows of a long recording: the samples of the whole one, wherever they are read from."""

import multiprocessing
import pickle

import numpy as np
import pytest
import soundfile
from damage import wave
from test_formats import encoded

from pipeline.core.errors import MediaError
from pipeline.media.audio import read
from pipeline.media.recording import Recording

KINDS = {"wav": "PCM_16", "ogg": "VORBIS", "flac": "PCM_16", "w64": "MS_ADPCM", "mkv": "aac", "opus": "OPUS"}


def recorded(folder, kind, rate=16000, seconds=9):
    """A file of this kind."""
    path = folder / f"a.{kind}"
    if kind == "mkv":
        path.write_bytes(encoded("matroska", "aac", wave(16000, seconds)))
    else:
        form = "OGG" if kind == "opus" else kind.upper()
        soundfile.write(path, wave(rate, seconds), rate, format=form, subtype=KINDS[kind])
    return path


def differences(recording, whole):
    """By how much windows anywhere differ from the whole."""
    assert recording.samples == len(whole) and recording.seconds == len(whole) / recording.rate
    rng = np.random.default_rng(0)
    windows = [(0, 1), (0, len(whole)), (len(whole) - 1, 1), (len(whole) - 500, 500)]
    windows += [(int(start), int(rng.integers(1, len(whole) - start))) for start in rng.integers(0, len(whole) - 1, 12)]
    for start, count in windows:
        found = recording.window(start, count)
        assert found.dtype == np.float32 and found.shape == (count,)
        yield np.abs(found - whole[start : start + count]).max()


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_windows_are_those_of_the_whole(tmp_path, kind, keep):
    path = recorded(tmp_path, kind)
    recording = Recording(path, 16000, tmp_path / "kept" if keep else None)
    assert max(differences(pickle.loads(pickle.dumps(recording)), read(path, 16000)[0])) == 0
    assert len([*tmp_path.glob("kept/*/*")]) == keep


@pytest.mark.parametrize(("source", "rate"), [(44100, 16000), (8000, 16000), (11025, 16000), (16000, 44100), (48000, 16000),
                                              (48000, 8000), (192000, 8000), (44101, 16000), (22050, 8000)])  # fmt: skip
def test_windows_at_another_rate(tmp_path, source, rate):
    path = recorded(tmp_path, "wav", source, 4)
    assert max(differences(Recording(path, rate, None), read(path, rate)[0])) < 1e-6
    assert max(differences(Recording(path, rate, tmp_path / "kept"), read(path, rate)[0])) == 0


def test_of_a_recording_of_unknown_length(tmp_path):
    (tmp_path / "a.mka").write_bytes(encoded("matroska", "pcm_s16le", pipe=True))
    recording = Recording(tmp_path / "a.mka", 16000, tmp_path / "kept")
    assert max(differences(recording, read(tmp_path / "a.mka", 16000)[0])) == 0


def test_a_kept_file_is_made_anew_if_it_is_spoilt_or_of_another_recording(tmp_path):
    path, keep = recorded(tmp_path, "flac"), tmp_path / "kept"
    whole = read(path, 16000)[0]
    recording = Recording(path, 16000, keep)
    (file,) = keep.glob("*/*")
    for content in (b"", b"x", file.read_bytes()[:5000]):
        file.write_bytes(content)
        assert np.array_equal(recording.window(100, 2000), whole[100:2100])
    recorded(tmp_path, "flac", seconds=5)
    assert Recording(path, 16000, keep).samples == 5 * 16000 and len([*keep.glob("*/*")]) == 2


def test_where_nothing_can_be_kept(tmp_path):
    path = recorded(tmp_path, "flac")
    (tmp_path / "kept").write_text("a file")
    with pytest.warns(UserWarning, match="not kept"):
        recording = Recording(path, 16000, tmp_path / "kept")
    assert np.array_equal(recording.window(99, 500), read(path, 16000)[0][99:599])


def test_windows_outside_and_files_that_are_none(tmp_path):
    recording = Recording(recorded(tmp_path, "wav"), 16000, None)
    for start, count in ((-1, 5), (9 * 16000 - 1, 2), (5, 0)):
        with pytest.raises(ValueError, match="expected some of 144000"):
            recording.window(start, count)
    (tmp_path / "a.wav").unlink()
    with pytest.raises(MediaError, match="no such file"):
        recording.window(0, 5)
    with pytest.raises(MediaError, match="no such file"):
        Recording(tmp_path / "a.wav", 16000, tmp_path / "kept")
    (tmp_path / "b.wav").write_text("some words that are no sound")
    with pytest.raises(MediaError, match="text"):
        Recording(tmp_path / "b.wav", 16000, tmp_path / "kept")


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_windows_in_other_processes(tmp_path, way):
    path = recorded(tmp_path, "ogg")
    recording = Recording(path, 16000, tmp_path / "kept")
    with multiprocessing.get_context(way).Pool(1) as pool:
        window = pool.apply(recording.window, (70000, 3000))
    assert np.array_equal(window, read(path, 16000)[0][70000:73000])
