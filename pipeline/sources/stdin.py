"""Raw PCM from a pipe, or the rows of a series."""

import codecs
import csv
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.core.errors import ConfigError, MediaError
from pipeline.media.audio import Resampler
from pipeline.media.container import HEAD_BYTES
from pipeline.media.formats import HEADED
from pipeline.media.info import SeriesInfo
from pipeline.media.input_spec import InputSpec
from pipeline.media.series import Series, on_clock
from pipeline.media.tables import csv_rows
from pipeline.sources.source import Gap, Piece, Source

FULL_SCALE = {"int16": 1 << 15, "int32": 1 << 31, "float32": 1}


class LiveInfo(SeriesInfo):
    """What is known of a series that may never end: a warning is printed as soon as it is noted."""

    def warn(self, code: str) -> None:
        """Note and print a warning once."""
        if code not in self.warnings:
            print(f"warning: source=stdin: {code}", file=sys.stderr)
        super().warn(code)


class Stdin(Source):
    """Interleaved little-endian samples on standard input, as ``ffmpeg -f s16le`` or ``arecord -t raw`` write them; for
    a model of series, lines of csv, the first of which names the columns.
    """

    name = "standard input"

    def __init__(
        self,
        rate: Annotated[int, Field(ge=1000, le=384_000)] = 16000,
        dtype: Literal["int16", "int32", "float32"] = "int16",
        channels: PositiveInt = 1,
        chunk: PositiveFloat = 0.1,
    ) -> None:
        """``rate`` in Hz. ``chunk``: seconds that are read at a time, at least one frame."""
        self.rate, self.dtype, self.channels = rate, np.dtype(dtype).newbyteorder("<"), channels
        self.scale, self.chunk_frames = FULL_SCALE[dtype], max(1, round(chunk * rate))

    def pieces(self, spec: InputSpec, seen: bool = False) -> Iterator[Piece | Gap]:
        """Mono at the model's rate until the pipe closes; an incomplete last frame is dropped. Of a series, each row as
        soon as its line has ended. ConfigError if the bytes begin like a file, MediaError if nothing comes.
        """
        if spec.series:
            yield from rows(spec.series)
            return
        rate = spec.require_sound("source=stdin")
        convert = Resampler(self.rate, rate)
        frame = self.dtype.itemsize * self.channels
        pipe: Any = sys.stdin.buffer
        if HEADED.match(pipe.peek(HEAD_BYTES)):
            raise ConfigError(
                "source=stdin: got a file with a header; expected raw samples. Decode it before (see --help)"
            )
        rest, heard = b"", False
        while data := pipe.read1(self.chunk_frames * frame):  # what is there, at most so much
            data = rest + data
            whole = len(data) - len(data) % frame
            rest = data[whole:]
            heard = True
            samples = np.frombuffer(data[:whole], self.dtype).reshape(-1, self.channels)
            mono = (samples.astype(np.float32) / self.scale).mean(1)
            yield Piece((convert(mono),))
        if not heard:
            raise MediaError("no_samples", "source=stdin: the pipe has closed and nothing came")
        yield Piece((convert.close(),))


def rows(series: Series) -> Iterator[Piece | Gap]:
    """The rows of standard input. MediaError for what is no such row."""
    info, lines = LiveInfo(rate=series.rate), codecs.iterdecode(sys.stdin.buffer, "utf-8-sig", "surrogateescape")
    found, count = csv_rows(lines, series.columns, blank=True), 0
    try:
        for x in on_clock(found, series, info, "source=stdin", live=True):
            count += 1
            if info.hole:
                yield Gap(info.hole, "no rows came")
                info.hole = 0
            yield Piece((x,))
    except (ValueError, csv.Error) as error:
        hint = " (extractor.columns)" if isinstance(error, ConfigError) else ""
        raise MediaError("unreadable", f"source=stdin: {error}{hint}") from None
    if not count:
        raise MediaError("no_samples", "source=stdin: the pipe has closed and no row came")
