"""The page about what was classified: its figures against others' formulas, and what hostile names cannot do to it."""

import math
import os
import re
import tracemalloc
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import configured
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from pipeline.core.build import build
from pipeline.core.errors import ConfigError
from pipeline.core.text import clean, shorten
from pipeline.measures.accuracy import Prediction, Smallest
from pipeline.report import charts, page
from pipeline.report.page import MAX_ROWS
from pipeline.sinks.fanout import Fanout
from pipeline.sinks.items import FileResult, Steps, StreamInfo, StreamWarning, TimedEvent, TimedGap
from pipeline.sinks.report import BINS_PER_DECADE, DURATION_BINS, FIRST_POWER, Report, duration_bin
from pipeline.sinks.sink import Sink
from pipeline.tasks.calibration import score_bin
from pipeline.tasks.uncertainty import wilson

TAGS = (
    "html head meta title style body main header section h1 h2 p div b span table thead tbody tr th td figure figcaption "
    "svg rect line circle path text code audio video"
)
ATTRIBUTES = (
    "lang charset name content http-equiv class scope style title role aria-label aria-hidden viewBox d r cx cy "
    "preserveAspectRatio x y x1 y1 x2 y2 width height src controls preload loop muted playsinline"
)
HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'><svg/onload=alert(1)>", "</style><b>", "<!--", "]]>",
    "&amp;&#60;", "http://evil.example/a.js", "javascript:alert(1)", "url(//evil)", "a\nb\tc\0", "\u202egnp.exe", "\x1b[31m",
    os.fsdecode(b"caf\xe9\xff"), "\ud800", "x" * 10_000, "\u2028", "走る", "é" * 400, "شكرا", "", " ", "{0}%s", "\ufffe",
]  # fmt: skip


def strict(text):
    """The tree of a page that has nothing but elements and attributes that it needs, each closed in its turn."""
    assert "/>" not in text and text.startswith("<!DOCTYPE html>")
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True, insert_pis=True))
    tree = ElementTree.fromstring(re.sub(r"(<meta [^>]*)>", r"\1/>", text.removeprefix("<!DOCTYPE html>")), parser)
    for one in tree.iter():
        assert one.tag in TAGS.split() and one.attrib.keys() <= {*ATTRIBUTES.split()}, (one.tag, one.attrib)
        assert re.fullmatch(r"(--share: \d\.\d\d)?", one.get("style", ""))
        assert re.fullmatch(r"(data:(audio/flac|video/mp4);base64,[A-Za-z0-9+/]+=*)?", one.get("src", ""))
        assert one.tag != "style" or not re.search("url|@import|//", one.text)
    return tree


def read(path):
    """A page, strictly: its main element, and by heading its sections."""
    tree = strict(path.read_bytes().decode())  # UTF-8, strictly
    for element in tree.iter():
        for key in ("text", "tail"):
            text = re.sub(r"^ *\n *| *\n *$", "", getattr(element, key) or "")  # lines of the template
            setattr(element, key, re.sub(r" *\n *", " ", text))
    return tree.find("body/main"), {part.findtext("h2"): part for part in tree.iter("section")}


def rows(section, number=0):
    """The rows of a table as lists of text."""
    table = list(section.iter("table"))[number]
    return [["".join(cell.itertext()) for cell in row if cell.find("svg") is None] for row in table.iter("tr")]


def tiles(main):
    return {tile[1].text: (tile[0].text, tile[2].text or "") for tile in main.find("header/div")}


def row(path="a.wav", label="a", score=0.5, labels=("a", "b"), status="ok", code="", seconds=1.0, **more):
    """As pipeline.sinks.sink describes them; ``more`` in its place."""
    answer = {"label": label, "score": score, "seconds": seconds}
    answer = answer if status != "error" else dict.fromkeys(answer, "")
    start = {key: more.pop(key) for key in ("start", "end") if key in more}
    truth = {"truth": more.pop("truth")} if "truth" in more else {}
    said = {"reason": more.pop("reason", ""), "posteriors": dict.fromkeys(labels)}
    return FileResult.of({"path": path} | start | {"status": status, "code": code} | answer | truth | said | more)


def written(path, found, **about):
    with Report(str(path)) as sink:
        sink.about = about
        for one in found:
            sink.write(one)
        sink.finish()
    return read(path)


def answers(count, classes, seed=0):
    """Posteriors ``(N, K)`` that are somewhat right, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=count)
    scores = rng.standard_normal((count, classes))
    scores[np.arange(count), truth] += 2
    posteriors = np.exp(1.7 * scores)
    return posteriors / posteriors.sum(1, keepdims=True), truth


# Figures


@pytest.mark.parametrize("classes", [2, 7, 80])
def test_what_is_counted_is_what_scikit_learn_and_training_count(classes, tmp_path):
    posteriors, truth = answers(3000, classes)
    answer, labels = posteriors.argmax(1), [f"class {index}" for index in range(classes)]
    truth[truth == 1] = 0  # a class without support
    main, parts = written(tmp_path / "r.html", (
        row(f"{number}.wav", labels[a], round(float(p[a]), 4), labels, truth=labels[t])
        for number, (p, a, t) in enumerate(zip(posteriors, answer, truth))
    ))  # fmt: skip
    expected = precision_recall_fscore_support(truth, answer, labels=range(classes), zero_division=0)
    table = {found[0]: found[1:] for found in rows(parts["Accuracy"])[1:]}
    assert len(table) == classes
    for index, label in enumerate(labels):
        assert table[label] == [f"{values[index]:.3f}" for values in expected[:3]] + [f"{expected[3][index]:,}"]
    share = accuracy_score(truth, answer)
    interval = binomtest(int((truth == answer).sum()), 3000).proportion_ci(method="wilson")
    between = f"{100 * interval.low:.1f} – {100 * interval.high:.1f}"
    assert tiles(main)["accuracy"] == (f"{100 * share:.1f}\u00a0%", between)
    mean = f1_score(truth, answer, average="macro", labels=np.unique(truth), zero_division=0)
    assert f"mean F1 of the classes is {mean:.3f}." in parts["Accuracy"].findtext("p")
    square = confusion_matrix(truth, answer, labels=range(classes))
    if classes <= 60:
        shown = [[int(cell.replace(",", "") or 0) for cell in line[1:]] for line in rows(parts["Confusions"])[1:]]
        assert shown == square.tolist()
    else:
        np.fill_diagonal(square, 0)
        shown = rows(parts["Confusions"])[1:]
        assert [int(line[2]) for line in shown] == sorted(square.ravel(), reverse=True)[:MAX_ROWS]
        for one, other, count, _ in shown:
            assert square[labels.index(one), labels.index(other)] == int(count)


def test_calibration_on_the_page(tmp_path):
    found = [row(score=0.9, truth="a" if number < 7 else "b") for number in range(10)]  # claims 0.9, is 0.7
    _, parts = written(tmp_path / "r.html", found)
    assert "20.0 points off" in parts["Calibration"].findtext("p")
    assert len(list(parts["Calibration"].iter("circle"))) == 1


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (1, 1), (0, 10), (10, 10), (3, 7), (8999, 10_000), (1, 1_000_000)])
def test_wilson(hits, count):
    expected = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert wilson(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_least_are_the_first_of_those_that_would_be_sorted():
    rng = np.random.default_rng(0)
    ranks = rng.integers(50, size=500) / 50
    for size in (0, 1, 20, 1000):
        kept = Smallest(size)
        for number, rank in enumerate(ranks):
            kept.add(rank, Prediction(str(number), "", rank))
        assert [int(found.path) for found in kept] == np.argsort(ranks, kind="stable")[:size].tolist()


def test_durations_and_scores_are_in_their_bins():
    seconds = np.random.default_rng(0).lognormal(2, 3, 2000).clip(0.011, 99_000)
    edges = 10 ** (np.arange(DURATION_BINS + 1) / BINS_PER_DECADE + FIRST_POWER)
    counts = np.bincount([duration_bin(value) for value in seconds], minlength=DURATION_BINS)
    assert counts.tolist() == np.histogram(seconds, edges)[0].tolist()
    assert [duration_bin(value) for value in (0.0, -1.0, 1e-9, 1e9)] == [0, 0, 0, DURATION_BINS - 1]
    assert [score_bin(value, 20) for value in (-0.1, 0.0, 0.049, 0.05, 0.999, 1.0, 1.1)] == [0, 0, 0, 1, 19, 19, 19]


# What is said


def test_counts_worst_files_and_codes(tmp_path):
    reason = "its header says 0 Hz"
    found = [
        row("sure.wav", "a", 0.99, truth="a", seconds=3600.0),
        row("wrong.wav", "b", 0.98, truth="a", seconds=1800.0),
        row("unsure.wav", "a", 0.51, truth="b", status="warning", code="clipped truncated"),
        row("part.wav", "a", 0.6, truth="a", start=1.5, end=2.25),
        row("rest.wav", "a", 0.61, truth="a", start=3.0, end=""),
        row("foreign.wav", "b", 0.7, truth="zebra"),
        row("bad.wav", status="error", code="bad_header", reason=reason, truth="a"),
        row("gone.wav", status="error", code="not_found", truth=""),
    ]
    main, parts = written(tmp_path / "r.html", found, model="m.safetensors", batch="32")
    assert tiles(main)["files"] == ("8", "1.5\u00a0h in all") and tiles(main)["errors"] == ("2", "25.0\u00a0%")
    assert tiles(main)["with warnings"][0] == "1" and tiles(main)["without doubts"][0] == "5"
    assert tiles(main)["accuracy"][0] == "60.0\u00a0%"
    assert rows(main.find("header")) == [["model", "m.safetensors"], ["batch", "32"]]
    said = parts["Accuracy"].findtext("p")
    assert "Of 5 files" in said and "1 whose truth is known have no answer" in said and "zebra (1)" in said
    assert rows(parts["Answers"]) == [["a", "4", "66.7\u00a0%"], ["b", "2", "33.3\u00a0%"]]
    least = rows(parts["Least sure"])[1:]
    assert least[:3] == [["a", "0.5100", "unsure.wav"], ["a", "0.6000", "part.wav [1.50 – 2.25 s]"],
                         ["a", "0.6100", "rest.wav [3.00 – end]"]]  # fmt: skip
    assert rows(parts["Surest mistakes"])[1:] == [["b", "a", "0.9800", "wrong.wav"], ["a", "b", "0.5100", "unsure.wav"]]
    assert rows(parts["Warnings"])[1:] == [["clipped", "1", "unsure.wav"], ["truncated", "1", "unsure.wav"]]
    assert rows(parts["Errors"])[1:] == [["bad_header", "1", f"bad.wav{reason}"], ["not_found", "1", "gone.wav"]]
    assert "Events" not in parts


def test_histograms_hold_all_files(tmp_path):
    found = [row(f"{n}.wav", "ab"[n % 3 == 0], (n % 97) / 97, seconds=0.02 * 1.3 ** (n % 40)) for n in range(400)]
    _, parts = written(tmp_path / "r.html", found)
    for heading in ("Scores", "Durations"):
        drawn = [title.text for title in parts[heading].find("figure").iter("title")]
        assert sum(int(text.rpartition(": ")[2].replace(",", "")) for text in drawn) == 400
    small = parts["Scores"].find("div[@class='small']")
    assert ["".join(name.itertext()) for name in small.iter("figcaption")] == ["a  266", "b  134"]


def test_events_of_files(tmp_path):
    event = {"start": 0.0, "end": 1.0, "peak": 0.5, "label": "b", "score": 0.9}
    found = [row(seconds=1800.0, events=[event] * 3), row(seconds=1800.0, events=[]), row(status="error", events=[])]
    main, parts = written(tmp_path / "r.html", found)
    assert tiles(main)["events"][0] == "3" and rows(parts["Events"]) == [["b", "3", "3.0 / h"]]


def test_a_stream_beside_a_table(tmp_path):
    paths = [f"sink.csv.path={tmp_path / 'e.csv'}", f"sink.report.path={tmp_path / 'r.html'}"]
    settings = configured("infer", "sink=[csv,report]", *paths)["sink"]
    with Fanout({name: build(one, Sink, at=f"sink.{name}") for name, one in settings.items()}) as sink:
        sink.check_files()
        sink.start(StreamInfo("street <b>.wav", ["a", "b"], 100, 10))
        for first in (0, 180):
            sink.write(Steps(first, np.zeros((180, 2), np.float32)))
        for label, start in (("b", 1.0), ("a", 3.0), ("b", 4.0)):
            sink.write(TimedEvent(start, start + 0.5, start, label, 0.9))
        for length in (0.0, 2.5):
            sink.write(TimedGap(1.0, length, "no data", "reset"))
        sink.write(StreamWarning(3.0, "late", "slow <b>"))
        assert not (tmp_path / "r.html").exists()
    main, parts = read(tmp_path / "r.html")
    assert main.findtext("header/h1") == "A classified stream" and "street <b>.wav" in "".join(main.itertext())
    assert tiles(main)["heard or seen"][0] == "36\u00a0s" and tiles(main)["gaps"] == ("1", "2.5\u00a0s lost")
    assert rows(parts["Events"]) == [["b", "2", "200.0 / h"], ["a", "1", "100.0 / h"]]
    assert rows(parts["Warnings"])[1:] == [["late", "1", "3.00 sslow <b>"]]
    assert len((tmp_path / "e.csv").read_text().splitlines()) == 4


def test_nothing_and_errors_alone(tmp_path):
    main, parts = written(tmp_path / "none.html", [])
    assert main.findtext("header/h1") == "Nothing was classified" and not parts
    bad = [row(f"{n}.wav", status="error", code="timeout", truth="b") for n in range(5)]
    main, parts = written(tmp_path / "bad.html", bad)
    assert list(parts) == ["Accuracy", "Errors"]
    assert "5 whose truth is known have no answer" in parts["Accuracy"].findtext("p")
    assert rows(parts["Errors"])[1] == ["timeout", "5", "0.wav1.wav2.wav"] and "accuracy" not in tiles(main)


# Hostile names


@pytest.mark.parametrize("many", [False, True])
def test_hostile_names_are_only_text(many, tmp_path):
    labels = [f"{name}{number}" for number, name in enumerate([*HOSTILE, *["more"] * 60 * many])]
    found = [
        row(f"/data/{labels[number % len(HOSTILE)]}/{name}", label, 0.1 + number / 400, labels, "warning", f"c {name}",
            truth=labels[-1 - number] if number % 2 else name, reason=name,
            events=[{"start": 0, "end": 1, "peak": 0, "label": label, "score": 1.0}])
        for number, (label, name) in enumerate(zip(labels, HOSTILE * 9))
    ]  # fmt: skip
    found += [row(name, labels=labels, status="error", code=name, reason=name, truth=name) for name in HOSTILE]
    path = tmp_path / "r.html"
    main, parts = written(path, found, **{f"k{name}": name for name in HOSTILE})
    text = "".join(main.itertext())
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\u2028]", text)
    assert all(name in text for name in (r"caf\xe9\xff", r"\u202egnp.exe", r"\ud800", "走る", "شكرا"))
    assert "<script>alert(1)</script>" in text and "x" * 301 not in text and path.stat().st_size < 1_500_000
    expected = {clean(shorten(label, 80)) for label in labels}
    assert {line[0] for line in rows(parts["Answers"])} <= expected
    assert ("Confusions" in parts) and (parts["Confusions"].find("div/table[@class='matrix']") is None) == many


# Memory and files


def test_memory_does_not_grow_with_the_files(tmp_path):
    labels, peaks = [f"label {number}" for number in range(30)], []
    for count in (2_000, 20_000):
        tracemalloc.start()
        with Report(str(tmp_path / "r.html")) as sink:
            for n in range(count):
                status, code = ("error", f"code{n}") if n % 10 == 9 else ("ok", "")
                truth = labels[n * n % 30] if n % 3 else f"unknown {n}"
                sink.write(row(f"/data/{'d' * 200}/{n}.wav", labels[n % 30], n * 7919 % 10_007 / 10_007, labels, status, code,
                               1.0 + n % 50, truth=truth, reason=f"reason {n}"))  # fmt: skip
            sink.finish()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 8e6 and peaks[1] < peaks[0] + 4e6, peaks
    assert (tmp_path / "r.html").stat().st_size < 1e6


def test_files_that_are_not_finished_leave_the_old_page(tmp_path):
    path = tmp_path / "r.html"
    path.write_text("old")
    with Report(str(path)) as sink:
        sink.write(row())
    assert path.read_text() == "old"
    written(path, [row()])
    assert list(tmp_path.iterdir()) == [path]


def test_links_stay_and_other_things_are_refused(tmp_path):
    (tmp_path / "link.html").symlink_to(tmp_path / "real.html")
    written(tmp_path / "link.html", [row()])
    assert (tmp_path / "link.html").is_symlink() and (tmp_path / "real.html").is_file()
    for path in (tmp_path, "/dev/null", ""):
        with pytest.raises(ConfigError, match=r"sink\.report\.path"):
            Report(str(path))
    with pytest.raises(OSError):
        Report("/proc/none/r.html")
    with pytest.raises(ConfigError, match=r"sink\.report\.worst"):
        build({"_target_": "pipeline.sinks.report.Report", "worst": -1}, Sink, at="sink.report")


# Blocks


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 7), (0, 123_456), (-3, 2.5), (0.1, 0.1001), (5, 5)])
def test_ticks_are_round_and_inside(low, high):
    found = charts.round_ticks(low, high)
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in found) and 1 <= len(found) <= 7
    if len(found) > 1:
        steps = np.diff(found)
        assert np.allclose(steps, steps[0]) and f"{steps[0]:.0e}"[0] in "125"


def drawn(drawing):
    """A figure as a page shows it."""
    module = page.environment().get_template("macros.html").module
    return ElementTree.fromstring(module.figure(drawing))


def test_curves_have_holes_where_there_is_no_number():
    lines = {"train": [(0, 1.0), (1, 0.5), (2, math.nan), (3, 0.25)], "<b>": [(0, 2.0)]}
    first, second = [path.get("d") for path in drawn(charts.plot_lines(lines, "epoch", "loss")).iter("path")]
    assert re.fullmatch(r"M[\d. ]+L[\d. ]+M[\d. ]+", first) and re.fullmatch(r"M[\d. ]+", second)
    points = [tuple(map(float, point.split())) for point in re.split("[ML]", first)[1:]]
    assert points[0][0] < points[1][0] < points[2][0] and points[0][1] < points[1][1] < points[2][1]  # y is downwards


@pytest.mark.parametrize("figure", [
    charts.plot_lines({"a": [(1, math.nan)]}, "x", "", (0, 1)), charts.draw_outlines([[], []], ""), charts.plot_lines({}, "x", ""),
    charts.plot_histogram({"": []}, [], [], "x", ""), charts.plot_reliability([], "x", ""), charts.plot_scores({"a": [0]}, "x", ""),
])  # fmt: skip
def test_figures_of_nothing(figure):
    assert drawn(figure).find("svg") is not None and not list(drawn(figure).iter("rect"))


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (0.25, "0.25 s"), (9.96, "10 s"), (59, "59 s"), (90, "1.5 min"),
                                               (5400, "1.5 h"), (3.6e6, "1,000 h")])  # fmt: skip
def test_times_for_people(seconds, text):
    assert page.format_duration(seconds).replace("\u00a0", " ") == text
