"""Raw samples from a pipe."""

import io
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.media.input_spec import InputSpec
from pipeline.sources.stdin import Stdin


@pytest.mark.parametrize("chunk", [1e-9, 0.1])
def test_a_tiny_chunk_reads_a_frame_at_a_time(monkeypatch, chunk):
    sound = np.arange(100, dtype="<i2")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(sound.tobytes())))
    found = np.concatenate([piece.x[0] for piece in Stdin(rate=8000, chunk=chunk).pieces(InputSpec(8000))])
    assert np.array_equal(found * 2**15, sound)
