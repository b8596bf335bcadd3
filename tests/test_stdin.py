"""Raw samples from a pipe."""

import io
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.core.errors import ConfigError
from pipeline.media.input_spec import InputSpec
from pipeline.sources.stdin import Stdin


def piped(monkeypatch, data, chunk):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(data))))
    return [piece.x[0] for piece in Stdin(rate=8000, chunk=chunk).pieces(InputSpec(8000))]


@pytest.mark.parametrize("chunk", [1e-9, 0.1])
def test_a_tiny_chunk_reads_a_frame_at_a_time(monkeypatch, chunk):
    sound = np.arange(100, dtype="<i2")
    assert np.array_equal(np.concatenate(piped(monkeypatch, sound.tobytes(), chunk)) * 2**15, sound)
    with pytest.raises(ConfigError, match="got a file with a header"):
        piped(monkeypatch, b"RIFF" + bytes(100), chunk)
