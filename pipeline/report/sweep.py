"""A page about a sweep: what the trials reached, and which of their settings mattered."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import pipeline.report.page as page
from pipeline.core.search_space import Choices, Part, Range, round_value
from pipeline.core.text import shorten
from pipeline.report.charts import Plot, Ticks, number_ticks

MAX_AXES = 8  # of parallel coordinates
BEST_SHARE = 0.1  # of the trials that stand out there
MIN_DONE = 4  # trials that must have been trained to their end for pictures of them alone


class TrialResult(NamedTuple):
    """A trial: ``best`` is its best figure on the validation clips (None: it never got so far), reached in ``epoch`` of
    ``epochs`` with that ``loss``; ``settings`` by key; ``curve`` is the figure by epoch.
    """

    number: int
    state: str
    best: float | None
    loss: float
    epoch: int
    epochs: int
    seconds: float
    settings: Mapping[str, Any]
    curve: Sequence[tuple[int, float]] = ()
    error: str = ""

    @property
    def reached(self) -> float:
        return self.best or 0.0

    @property
    def tone(self) -> str:
        return "main" if self.state == "done" else "warn pale"

    def __str__(self) -> str:
        settings = ", ".join(f"{key} {format_value(value)}" for key, value in self.settings.items())
        return f"trial {self.number}, {self.state}: {page.format_share(self.reached)}; {settings}"


def rank_trials(trials: Iterable[TrialResult]) -> list[TrialResult]:
    """Those that were trained to their end, then those that were pruned; of equals, the one with the lower loss."""
    known = [one for one in trials if one.best is not None and one.state in ("done", "pruned")]
    return sorted(known, key=lambda one: (one.state != "done", -one.reached, one.loss))


def format_value(value: Any) -> str:
    return "–" if value is None else str(round_value(value))


def render_sweep(
    trials: Sequence[TrialResult], space: Mapping[str, Part], importances: Mapping[str, float],
    command: Callable[[TrialResult], str], figure: str,
) -> str:  # fmt: skip
    """The page. ``importances`` by key; ``command``: the command line of a trial; ``figure``: what counts, by name."""
    ranked, states = rank_trials(trials), [one.state for one in trials]
    done = [one for one in ranked if one.state == "done"]
    shown = done if len(done) >= MIN_DONE else ranked  # what was pruned would press all others together
    weighed = sorted(importances, key=lambda key: -importances[key])
    order = [*weighed, *(key for key in space if key not in importances)]
    several = len(shown) > 1
    return page.render(
        "sweep.html",
        trials=[*ranked, *(one for one in trials if one not in ranked)],
        states=", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)),
        seconds=sum(one.seconds for one in trials),
        best=ranked[0] if ranked else None,
        command=command(ranked[0]) if ranked else "",
        course=[("Trials", plot_trials(trials, figure)), ("Epochs", plot_epochs(trials, figure))] if ranked else [],
        importances=[(key, importances[key], page.format_share(importances[key]), "") for key in weighed],
        settings=[(key, plot_setting(key, space[key], shown, figure)) for key in order if several],
        parallel=plot_parallel(order[:MAX_AXES], space, shown, figure) if several else None,
        pruned_left_out=shown is done,
        best_share=BEST_SHARE,
        keys=order,
        measure=figure,
        format_value=format_value,
    )


def value_range(values: Iterable[float]) -> tuple[float, float]:
    """From where to where an axis of the figure runs."""
    low, high = min(values := list(values)), max(values)
    return (low, high) if low < high else (max(0.0, low - 0.05), min(1.0, high + 0.05))


def plot_trials(trials: Sequence[TrialResult], figure: str) -> Plot:
    """The figure by trial, and the best so far."""
    known, last = [one for one in trials if one.best is not None], max(1, trials[-1].number)
    limits, ticks = value_range(one.reached for one in known), number_ticks(0, last, step=1)
    plot = Plot(f"Validation {figure} by trial", (0, last), limits, "trial", ticks, page.format_percent)
    best = accumulate((one.reached for one in known), max)
    plot.path(zip((one.number for one in known), best, strict=True), "good")
    for one in known:
        plot.dot(one.number, one.reached, str(one), one.tone, 3.5)
    return plot


def plot_epochs(trials: Sequence[TrialResult], figure: str) -> Plot:
    """The figure by epoch, a line for each trial."""
    lines = [one for one in trials if len(one.curve) > 1]
    points = [point for one in lines for point in one.curve] or [(0, 0.0), (1, 1.0)]
    first, last = min(points)[0], max(points)[0]
    ticks, limits = number_ticks(first, last, step=1), value_range(y for _, y in points)
    plot = Plot(f"Validation {figure} by epoch", (first, last), limits, "epoch", ticks, page.format_percent)
    for one in lines:
        plot.path(one.curve, f"{one.tone} pale", str(one))
    return plot


def setting_axis(part: Part) -> tuple[tuple[float, float], Ticks]:
    """From where to where an axis of a setting runs, as places, and its ticks."""
    if isinstance(part, Choices):
        return (-0.5, len(part.texts) - 0.5), [(place, shorten(text, 12)) for place, text in enumerate(part.texts)]
    low, high = part.place(part.low), part.place(part.high)
    if not part.log:
        return (low, high), number_ticks(low, high, step=float(part.whole))
    if high - low < 1:  # less than a power of ten
        return (low, high), [(part.place(value), text) for value, text in number_ticks(part.low, part.high, 4)]
    powers = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    return (low, high), [(float(power), f"{10.0**power:g}") for power in powers]


def plot_setting(key: str, part: Part, trials: Sequence[TrialResult], figure: str) -> Plot:
    """The figure by one setting, and the median of each choice."""
    limits, ticks = setting_axis(part)
    heights = value_range(one.reached for one in trials)
    plot = Plot(f"Validation {figure} by {key}", limits, heights, "", ticks, page.format_percent)
    for one in reversed(trials):
        plot.dot(part.place(one.settings[key]), one.reached, str(one), one.tone, 3.5)
    for text in part.texts if isinstance(part, Choices) else ():
        if found := [one.reached for one in trials if one.settings[key] == text]:
            place, middle = part.place(text), statistics.median(found)
            plot.line(place - 0.2, middle, place + 0.2, middle, "base")
    return plot


def plot_parallel(keys: Sequence[str], space: Mapping[str, Part], trials: Sequence[TrialResult], figure: str) -> Plot:
    """All settings side by side and the figure at the right end, a line for each trial; the best come first."""
    low, high = value_range(one.reached for one in trials)
    names = [*(shorten(key.rpartition(".")[2], 9) for key in keys), figure]
    label = f"Settings of the trials, from left to right {', '.join(keys)}, and their {figure}"
    axis = f"{figure} from {page.format_share(low)} to {page.format_share(high)}"
    plot = Plot(label, (0, len(keys)), (0, 1), axis, list(enumerate(names)), lambda _: "", 260)
    for place in range(len(keys) + 1):
        plot.line(place, 0, place, 1, "base")
    best = max(1, round(BEST_SHARE * len(trials)))
    for rank, one in reversed(list(enumerate(trials))):
        heights = [relative_place(space[key], one.settings[key]) for key in keys]
        line = enumerate([*heights, (one.reached - low) / (high - low)])
        plot.path(line, "good" if rank < best else "main faint", str(one))
    return plot


def relative_place(part: Part, value: Any) -> float:
    """Where a value is on an axis that runs from 0 to 1."""
    if isinstance(part, Range):
        low, high = part.place(part.low), part.place(part.high)
        return (part.place(value) - low) / (high - low)
    return part.place(value) / (len(part.texts) - 1)
