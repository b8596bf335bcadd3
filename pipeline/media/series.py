"""Series: rows of numbers, a column for each sensor, on the clock of a model. What is missing is NaN.

A row stands at the tick nearest to its time, counted from the first row; of several rows in one tick the first stands.
A tick without a row is a row of NaN. As with pictures, a row whose time does not rise is left out, which is a warning
(``time_stamps``), and a long hole is another (``gap``). Rows without times follow each other tick by tick.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import ConfigError, MediaError
from pipeline.media.info import SeriesInfo
from pipeline.media.part import PathLike
from pipeline.media.tables import read_table, to_seconds

Rows = NDArray[np.float32]  # (T, C)
ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")  # of files that are searched for in folders
MISSING = {"", "na", "n/a", "nan", "null", "none", "-"}  # cells that hold nothing
GAP_TICKS = 10  # without a row: a hole of more is told
MAX_GAP_TICKS = 100_000  # of more, the time stamps are nonsense
MAX_HOLE_SECONDS = 30 * 86_400  # of a live series, whose sensor may be off for long
BACK_ROWS = 10  # of a live series, one after another, whose times do not rise: its clock was set back
MAX_FILLED = 900  # ticks without a row, for each row, besides: milliseconds make 999
FAR = 1e300  # ticks, in place of infinitely many
BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Series:
    """``rate`` rows a second, also less than one, of these ``columns``; ``time``: the column with their times, if it is
    there: seconds, or dates of ISO 8601.
    """

    rate: float
    columns: tuple[str, ...]
    time: str = "time"


def open_series(
    path: PathLike, series: Series, start: float = 0.0, end: float | None = None
) -> tuple[SeriesInfo, Iterator[Rows]]:
    """A table's rows from ``start`` to ``end`` seconds, in blocks. MediaError if it cannot be read as such."""
    info, name = SeriesInfo(rate=series.rate), os.fspath(path)
    if not os.path.isfile(name):
        raise MediaError("not_found", f"{name}: no such file")

    def rows() -> Iterator[Mapping[str, Any]]:
        try:
            yield from read_table(name, "extractor.columns", series.columns, [*series.columns, series.time], blank=True)
        except ConfigError as error:
            raise MediaError("unreadable", f"{name}: {error}") from None

    found = rows()
    found = chain([*islice(found, 1)], found)  # so that a table that is none is refused at once
    first, last = round(start * series.rate), None if end is None else round(end * series.rate)
    return info, blocks(on_clock(found, series, info, name), len(series.columns), info, name, first, last)


def blocks(
    found: Iterable[Rows], columns: int, info: SeriesInfo, name: str, first: int = 0, last: int | None = None
) -> Iterator[Rows]:
    """Rows in larger blocks, of ticks ``first`` to ``last`` alone. MediaError if there are none."""
    at, given, held = 0, 0, [np.zeros((0, columns), np.float32)]
    for rows in found:
        part = rows[max(0, first - at) : None if last is None else max(0, last - at)]
        at += len(rows)
        info.decoded += len(part)
        held.append(part)  # often a single row
        if info.decoded - given >= BLOCK_ROWS:
            yield np.concatenate(held)
            given, held = info.decoded, held[:1]
        if last is not None and at >= last:
            break
    if info.left_out > at:
        raise MediaError("unreadable", f"{name}: the times of {info.left_out} rows do not rise; sort the rows by time")
    if not info.decoded:
        raise MediaError("no_samples", f"{name}: no rows" + (f" from tick {first} on" if at else ""))
    yield np.concatenate(held)


def on_clock(
    rows: Iterable[Mapping[str, Any]], series: Series, info: SeriesInfo, name: str, live: bool = False
) -> Iterator[Rows]:
    """Each row ``(1, C)`` as soon as it is there, after those that are missing before it, ``(1 + missing, C)``.
    If ``live``, the clock begins anew at the next tick when a sensor's own was set back (``clock_back``), and a long
    hole before a row is not filled: it is ``info.hole``.
    MediaError for a cell that is neither a number nor empty, or for holes that are too long.
    """
    zero = before = None
    tick, filled, back = -1, 0, 0
    for number, row in enumerate(rows, 1):
        values = [to_number(row.get(column), column, f"{name}: row {number}") for column in series.columns]
        place = tick + 1
        if series.time in row:
            time = to_time(row[series.time], f"{name}: row {number}", series.time)
            zero = time if zero is None else zero
            if before is not None and time <= before:
                back += 1
                if not live or back < BACK_ROWS:
                    info.warn("time_stamps")
                    info.left_out += 1
                    continue
                info.warn("clock_back")
                zero = time - (tick + 1) / series.rate
            back = 0
            before, place = time, round(min((time - zero) * series.rate, FAR))
            if place == tick:
                continue
        missing = place - tick - 1
        if live and MAX_GAP_TICKS < missing <= MAX_HOLE_SECONDS * series.rate:
            info.hole, missing = missing, 0
        filled += missing
        if missing > MAX_GAP_TICKS or filled > MAX_FILLED * number + MAX_GAP_TICKS:
            seconds = f"{filled / series.rate:,.5g} s without a row before row {number}"
            wanted = f"expected {series.time!r} in seconds, or dates; are the times milliseconds?"
            raise MediaError("limit_duration", f"{name}: {seconds}; {wanted} Or lower extractor.rate={series.rate:g}")
        if missing > GAP_TICKS or info.hole:
            info.warn("gap")
        tick = place
        found = np.full((missing + 1, len(values)), np.nan, np.float32)
        with np.errstate(over="ignore"):
            found[-1] = values
        found[np.isinf(found)] = np.nan
        yield found


def to_number(cell: Any, column: str, where: str) -> float:
    """The number in a cell, also with a decimal comma; NaN for one that holds none. MediaError for anything else."""
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in MISSING):
        return float("nan")
    try:
        return to_seconds(cell)
    except (TypeError, ValueError):
        text = f"{where}: column {column!r}: got {cell!r:.40}; expected a number, or nothing where it is missing"
        raise MediaError("unreadable", text) from None


def to_time(cell: Any, where: str, column: str) -> float:
    """Seconds, of a number or a date; dates without a zone are taken as UTC. MediaError if it is neither."""
    try:
        date = cell if isinstance(cell, datetime) else None
        if date is None:
            try:
                seconds = to_seconds(cell)
            except ValueError:
                date = datetime.fromisoformat(cell.strip())
        if date is not None:
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        if not np.isfinite(seconds):
            raise ValueError
        return seconds
    except (TypeError, ValueError, OverflowError):
        text = f"{where}: column {column!r}: got {cell!r:.40}; expected seconds, or a date such as 2026-11-30T14:05:09"
        raise MediaError("unreadable", text) from None
