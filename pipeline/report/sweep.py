"""A page about a sweep: what the trials reached, and what of their settings mattered."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any, NamedTuple

import pipeline.report.page as page
from pipeline.core.search_space import Choices, Part, Range, used
from pipeline.report.page import Html, Plot, Section, tag

AXES = 8  # of parallel coordinates
BEST = 0.1  # share of the trials that stand out there
FEW = 4  # trials that must have been trained to their end for pictures of them alone
LISTED = 200  # trials in the table


class Tried(NamedTuple):
    """A trial: ``accuracy`` is its best on the validation clips (None: it never got so far), reached in ``epoch`` of
    ``epochs`` with that ``loss``; ``values`` by key; ``curve`` is the accuracy by epoch.
    """

    number: int
    state: str
    accuracy: float | None
    loss: float
    epoch: int
    epochs: int
    seconds: float
    values: Mapping[str, Any]
    curve: Sequence[tuple[int, float]] = ()
    error: str = ""


def best_first(trials: Iterable[Tried]) -> list[Tried]:
    """Those that were trained to their end, then those that were pruned; of equals, the one with the lower loss."""
    known = [one for one in trials if one.accuracy is not None and one.state in ("done", "pruned")]
    return sorted(known, key=lambda one: (one.state != "done", -(one.accuracy or 0.0), one.loss))


def written(
    trials: Sequence[Tried], space: Mapping[str, Part], shares: Mapping[str, float], command: Callable[[Tried], str]
) -> str:
    """The page. ``shares``: importance by key; ``command``: the command line of a trial."""
    ranked, states = best_first(trials), [one.state for one in trials]
    said = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    figures = [(str(len(trials)), "trials", said)]
    opening = []
    if ranked:
        best = ranked[0]
        figures.insert(0, (page.share(best.accuracy or 0.0), "best validation accuracy", f"trial {best.number}"))
        opening = [page.tiles(figures), tag("p", "Train the best one:"), page.command(command(best))]
        opening += [page.facts({key: shown(value) for key, value in best.values.items()})]
    order = [*sorted(shares, key=lambda key: -shares[key]), *(key for key in space if key not in shares)]
    took = page.lasting(sum(one.seconds for one in trials))
    says = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}, {took} of training"
    return page.page("Sweep", says, [*sections(trials, ranked, space, shares, order)], opening)


def sections(
    trials: Sequence[Tried],
    ranked: Sequence[Tried],
    space: Mapping[str, Part],
    shares: Mapping[str, float],
    order: Sequence[str],
) -> Iterable[Section]:
    """What there is to see."""
    if ranked:
        yield Section(
            "Course",
            "Every trial is a dot, pruned ones pale; the line is the best so far. Of many trials the best one is "
            "flattered by having been chosen on these clips: what it is worth, its test figures tell, looked at once.",
            [page.abreast(history(trials), progress(trials))],
        )
    if shares:
        parts = [(key, shares[key], page.share(shares[key]), "") for key in order if key in shares]
        says = "How much of what the trials that were not pruned differ by goes with each setting: Optuna's estimate."
        yield Section("Importance", says, [page.bars(parts)])
    done = [one for one in ranked if one.state == "done"]
    ranked = done if len(done) >= FEW else ranked  # what was pruned would press all others together
    if len(ranked) > 1:
        figures = [page.figure(key, slices(key, space[key], ranked)) for key in order]
        says = "Validation accuracy by each setting alone. Where dots are many, the sweep came back."
        says += " Pruned trials are left out." if ranked is done else ""
        yield Section("Settings", says, [page.abreast(*figures)])
        says = f"A line is a trial; the best {page.share(BEST)} stand out. Axes run upwards from low to high."
        yield Section("Together", says, [parallel(order[:AXES], space, ranked)])
    numbers = "trial", "accuracy", "at epoch", "epochs", "seconds"
    listed = best_first(trials)
    rows = [row(one, order) for one in [*listed, *(one for one in trials if one not in listed)][:LISTED]]
    table = page.table((*numbers, "state", *order), rows, numbers)
    failures = [(f"trial {one.number}", one.error) for one in trials if one.error]
    yield Section("Trials", "The best ones first; each has a folder of its number.", [table, page.examples(failures)])


def row(one: Tried, order: Sequence[str]) -> list[str]:
    """A trial in the table."""
    accuracy = "–" if one.accuracy is None else page.share(one.accuracy)
    values = (shown(one.values.get(key)) for key in order)
    return [str(one.number), accuracy, str(one.epoch or "–"), str(one.epochs), f"{one.seconds:.0f}", one.state, *values]


def shown(value: Any) -> str:
    """A value in words."""
    return "–" if value is None else str(used(value))


def scale(values: Iterable[float]) -> tuple[float, float]:
    """From where to where an axis of accuracies runs."""
    low, high = min(values := list(values)), max(values)
    return (low, high) if low < high else (max(0.0, low - 0.05), min(1.0, high + 0.05))


def history(trials: Sequence[Tried]) -> Html:
    """Accuracy by trial, and the best so far."""
    known = [(one.number, one.accuracy, one) for one in trials if one.accuracy is not None]
    plot = Plot((0, max(1, trials[-1].number)), scale(accuracy for _, accuracy, _ in known))
    line = list(zip((number for number, *_ in known), accumulate((y for _, y, _ in known), max), strict=True))
    drawn = [tag("path", d=page.track(line, plot), class_="track good")]
    drawn += [dot(plot, number, accuracy, one) for number, accuracy, one in known]
    marks = [(value, page.brief(value)) for value in page.ticks(0, max(1, trials[-1].number), least=1)]
    return page.figure("Trials", plot.draw(drawn, marks, "trial", "Accuracy by trial", page.percent))


def progress(trials: Sequence[Tried]) -> Html:
    """Accuracy by epoch, a line for each trial."""
    lines = [one for one in trials if len(one.curve) > 1]
    points = [point for one in lines for point in one.curve] or [(0, 0.0), (1, 1.0)]
    last = max(epoch for epoch, _ in points)
    plot = Plot((min(epoch for epoch, _ in points), last), scale(y for _, y in points))
    drawn = []
    for one in lines:
        told = tag("title", said(one))
        kind = {"class_": f"track {tone(one)}", "style": "opacity: 0.5"}
        drawn.append(tag("path", told, d=page.track(one.curve, plot), **kind))
    marks = [(value, page.brief(value)) for value in page.ticks(*plot.limits[0], least=1)]
    return page.figure("Epochs", plot.draw(drawn, marks, "epoch", "Accuracy by epoch", page.percent))


def said(one: Tried) -> str:
    """A trial in a line, for those who point at it."""
    values = ", ".join(f"{key} {shown(value)}" for key, value in one.values.items())
    return f"trial {one.number}, {one.state}: {page.share(one.accuracy or 0.0)}; {values}"


def tone(one: Tried) -> str:
    """The colour of a trial."""
    return "main" if one.state == "done" else "warn"


def dot(plot: Plot, x: float, y: float, one: Tried) -> Html:
    """A trial as a dot."""
    style = {} if one.state == "done" else {"style": "opacity: 0.5"}
    return tag("circle", tag("title", said(one)), cx=plot.x(x), cy=plot.y(y), r=3.5, class_=tone(one), **style)


def axis(part: Part, ranked: Sequence[Tried], key: str) -> tuple[tuple[float, float], list[tuple[float, str]]]:
    """From where to where an axis of a setting runs, as places, and its marks."""
    if isinstance(part, Choices):
        marks = [(float(place), page.short(text, 12)) for place, text in enumerate(part.texts)]
        return (-0.5, len(marks) - 0.5), marks
    low, high = part.place(part.low), part.place(part.high)
    if not part.log:
        return (low, high), [(value, page.brief(value)) for value in page.ticks(low, high, least=float(part.whole))]
    if high - low < 1:  # less than a power of ten
        return (low, high), [(part.place(value), f"{value:g}") for value in page.ticks(part.low, part.high, 4)]
    powers = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    return (low, high), [(float(power), f"{10.0**power:g}") for power in powers]


def slices(key: str, part: Part, ranked: Sequence[Tried]) -> Html:
    """Accuracy by one setting."""
    limits, marks = axis(part, ranked, key)
    plot = Plot(limits, scale(one.accuracy or 0.0 for one in ranked))
    drawn = [dot(plot, part.place(one.values[key]), one.accuracy or 0.0, one) for one in reversed(ranked)]
    if isinstance(part, Choices):
        for text in part.texts:
            if found := [one.accuracy or 0.0 for one in ranked if one.values[key] == text]:
                place, middle = part.place(text), statistics.median(found)
                drawn.append(plot.line(place - 0.2, middle, place + 0.2, middle, "base"))
    return plot.draw(drawn, marks, "", f"Accuracy by {key}", page.percent)


def parallel(keys: Sequence[str], space: Mapping[str, Part], ranked: Sequence[Tried]) -> Html:
    """All settings side by side and the accuracy at the right end, a line for each trial."""
    low, high = scale(one.accuracy or 0.0 for one in ranked)
    plot = Plot((0, len(keys)), (0, 1), height=260)
    shining = {one.number for one in ranked[: max(1, round(BEST * len(ranked)))]}
    drawn = [plot.line(place, 0, place, 1, "base") for place in range(len(keys) + 1)]
    for one in reversed(ranked):
        heights = [height(space[key], one.values[key]) for key in keys]
        line = enumerate([*heights, ((one.accuracy or 0.0) - low) / (high - low)])
        kind = ("good", 1.0) if one.number in shining else ("main", 0.25)
        style = {"class_": f"track {kind[0]}", "style": f"opacity: {kind[1]}"}
        drawn.append(tag("path", tag("title", said(one)), d=page.track(line, plot), **style))
    names = [page.short(key.rpartition(".")[2], 9) for key in keys]
    marks = [*((float(place), text) for place, text in enumerate(names)), (float(len(keys)), "accuracy")]
    says = f"Settings of the trials, from left to right {', '.join(keys)}, and their accuracy"
    ends = "accuracy from " + " to ".join(page.share(value) for value in (low, high))
    return page.figure("Settings and accuracy", plot.draw(drawn, marks, ends, says, lambda _: ""))


def height(part: Part, value: Any) -> float:
    """Where a value is on an axis that runs from 0 to 1."""
    if isinstance(part, Range):
        low, high = part.place(part.low), part.place(part.high)
        return (part.place(value) - low) / (high - low)
    return part.place(value) / (len(part.texts) - 1)
