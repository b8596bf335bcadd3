"""Detection on long recordings: figures against slow counts, psds_eval and what must come out."""

import json
import math
import re
import warnings

import numpy as np
import pytest
import soundfile
import torch
from conftest import QUICK, ran, run, small_model, tone_clip
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError
from pipeline.measures import detection
from pipeline.measures.detection import (
    LEVELS,
    MISS_RATE_FALSE_ALARMS,
    AnnotatedRecording,
    check_recordings,
    find_recordings,
)
from pipeline.measures.metrics import Alarms, count_alarms, match_events
from pipeline.measures.stream_output import StreamOutput, detect_spans
from pipeline.model.classifier import load

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=7)


def apart(pairs):
    """Spans in order that do not overlap, ``(N, 2)``."""
    found, last = [], 0
    for gap, length in pairs:
        found.append((last + gap, last + gap + length))
        last += gap + length + 1
    return np.array(found, np.int64).reshape(-1, 2)


@given(SPANS, SPANS)
def test_tolerance_counts_tick_by_tick(true, found):
    spans, answers = apart(true), apart(found)
    there, heard = np.zeros(600, bool), np.zeros(600, bool)
    for start, end in spans:
        there[start:end] = True
    good = [there[start:end].mean() >= 0.5 for start, end in answers]
    for (start, end), ok in zip(answers, good):
        heard[start:end] |= ok
    hits = sum(heard[start:end].mean() >= 0.5 for start, end in spans)
    assert detection.count_tolerant(spans, answers) == Alarms(hits, len(spans), len(good) - sum(good))


@given(SPANS, SPANS)
def test_spans_that_overlap_cover_each_tick_once(true, others):
    spans = apart(true)
    crowded = np.array(sorted((start, start + length) for start, length in others), np.int64).reshape(-1, 2)
    there = np.zeros(600, bool)
    for start, end in crowded:
        there[start:end] = True
    assert detection.covered_ticks(spans, crowded).tolist() == [there[start:end].sum() for start, end in spans]


TRUE = {
    "a": [(142.1, 143.6), (293.1, 295.7), (302.3, 305.4), (391.3, 394.0), (1330.7, 1334.0), (1363.4, 1367.4)],
    "b": [(71.0, 74.5), (291.2, 294.6), (304.2, 309.1), (1252.9, 1257.0), (1270.8, 1275.0), (1314.4, 1315.6)],
}
FOUND = [
    {"a": [(292.9, 296.3), (302.3, 306.6), (391.0, 393.9), (1245.7, 1246.5)],
     "b": [(70.0, 74.8), (292.4, 294.6), (302.1, 311.2), (1314.5, 1315.4), (1635.7, 1636.5)]},
    {"a": [(293.8, 295.1), (495.7, 496.5), (1110.7, 1111.5), (1225.7, 1226.5), (1330.8, 1334.6)],
     "b": [(55.7, 56.5), (70.3, 75.7), (290.7, 294.3), (304.9, 307.6), (1165.7, 1166.5), (1252.9, 1258.2), (1260.7, 1261.5),
           (1271.0, 1274.7), (1314.3, 1315.8)]},
    {"a": [(142.2, 143.9), (215.7, 216.5), (292.4, 295.7), (303.4, 306.0), (330.7, 331.5), (370.7, 371.5), (392.1, 393.9),
           (1040.7, 1041.5), (1331.2, 1334.5), (1362.6, 1367.6), (1580.7, 1581.5)],
     "b": [(71.5, 74.7), (292.5, 295.9), (303.8, 308.4), (440.7, 441.5), (580.7, 581.5), (660.7, 661.5), (695.7, 696.5),
           (1250.6, 1258.2), (1269.4, 1274.0), (1314.4, 1315.8), (1475.7, 1476.5)]},
]  # fmt: skip
# Of psds_eval 0.5.3: dtc = gtc = 0.5, alpha_ct = alpha_st = 0, half an hour, by max_efpr.
PSDS_EVAL = {5: 0.35, 10: 0.5333333333333333, 20: 0.7666666666666666, 100: 0.9533333333333333}


@pytest.mark.parametrize("most", PSDS_EVAL)
def test_the_area_is_that_of_psds_eval(most):
    classes = []
    for label, true in TRUE.items():
        counts = [detection.count_tolerant(ticks(true), ticks(found[label])) for found in FOUND]
        classes.append([(one.false / 0.5, one.hits / one.truths) for one in counts])
    assert detection.psd_roc(classes, most)[1] == pytest.approx(PSDS_EVAL[most], abs=1e-9)


def ticks(spans):
    return np.array([(round(10 * start), round(10 * end)) for start, end in spans], np.int64)


def perfect(model, spans, steps=3000):
    """Posteriors that are right to the step; the first class is the background."""
    posteriors = np.zeros((steps, len(model.labels)), np.float32)
    for index, found in enumerate(spans):
        for start, end in found:
            posteriors[start // model.hop : end // model.hop, index] = 0.9
    posteriors[:, 0] = 1 - posteriors[:, 1:].sum(1)
    rows = [np.array(found, np.int64).reshape(-1, 2) for found in spans]
    return StreamOutput(posteriors, rows, steps * model.hop, "a.wav")


@pytest.mark.parametrize(("more", "late"), [((), 0.05), (("head.delay=0.2",), 0.25)])
def test_a_model_that_knows_everything(more, late):
    """A class may have any name."""
    model = small_model("decoder.minimum=0.05", *more, labels=("background", "micro", "low"))
    hop = model.hop  # 10 ms
    spans = [[], [(100 * hop, 150 * hop), (400 * hop, 480 * hop)], [(700 * hop, 720 * hop)]]
    got = detection.evaluate_outputs(model, [perfect(model, spans), perfect(model, spans)])
    assert got["events"]["micro"] == {"hits": 6, "truths": 6, "answers": 6, "precision": 1, "recall": 1, "f1": 1}
    assert got["events"]["classes"]["micro"]["hits"] == 4 and got["events"]["macro_f1"] == 1
    assert got["false"] == 0 and got["missed"] == 0
    assert got["latency"] == pytest.approx({"count": 6, "p50": late, "p90": late})  # as long as the shortest event
    assert set(got["miss_at"]) == {str(most) for most in MISS_RATE_FALSE_ALARMS} and set(got["miss_at"].values()) == {0}
    assert got["psd"]["area"] == 1 and got["hours"] == pytest.approx(60 / 3600, abs=1e-5)
    assert got["thresholds"] == {"micro": 0.6, "low": 0.6}
    assert json.loads(json.dumps(got)) == got


def test_a_recording_without_events_has_false_alarms_alone():
    model = small_model()
    heard = perfect(model, [[], [(100 * model.hop, 150 * model.hop)], []], 360_00)  # 0.1 h
    nothing = StreamOutput(heard.posteriors, [np.zeros((0, 2), np.int64)] * 3, heard.ticks, "b.wav", 4)
    got = detection.evaluate_outputs(model, [nothing])
    assert got["false"] == 1 and got["false_an_hour"] == pytest.approx(10) and got["left_out"] == 4
    assert got["missed"] is None and got["latency"]["p50"] is None and got["psd"]["area"] is None
    assert set(got["miss_at"].values()) == {None} and got["det"] == []


@pytest.mark.parametrize("share", [0.01, 0.6])
def test_a_model_that_knows_nothing_misses_nearly_all(share):
    """Four minutes with 12 events of each class; scores wander around a third, or one class is always on."""
    model = small_model()
    rng, steps, length = np.random.default_rng(0), 24_000, round(2000 * share)
    spans = [np.zeros((0, 2), np.int64)]
    spans += [(np.arange(12) * 2000 + rng.integers(100, 2000 - length, 12)) * model.hop for _ in range(2)]
    spans[1:] = [np.stack([starts, starts + length * model.hop], 1) for starts in spans[1:]]
    walk = np.cumsum(rng.standard_normal((steps, 3)), 0)
    walk = np.exp(0.3 * (walk[60:] - walk[:-60]) / 60**0.5)
    wandering = (walk / walk.sum(1, keepdims=True)).astype(np.float32)
    got = detection.evaluate_outputs(model, [StreamOutput(wandering, spans, len(wandering) * model.hop)])
    assert detection.miss_rate_at(got["det"], 30) >= 0.8  # two false alarms in all
    assert [row[1] for row in got["det"]] == sorted({row[1] for row in got["det"]})
    assert [row[2] for row in got["det"]] == sorted({row[2] for row in got["det"]}, reverse=True)
    always = np.tile(np.float32([0.1, 0.9, 0.0]), (steps, 1))
    got = detection.evaluate_outputs(model, [StreamOutput(always, [spans[0], spans[1], spans[0]], steps * model.hop)])
    assert got["missed"] == 1 and got["false"] == 1 and got["latency"] == {"count": 0, "p50": None, "p90": None}
    assert set(got["miss_at"].values()) == {1} and got["det"] == [[0.999, 0.0, 1.0]]


def test_an_answer_that_began_long_before_an_event_is_no_detection_of_it():
    model = small_model("decoder.minimum=0.05")
    hop = model.hop  # 10 ms
    heard = perfect(model, [[], [(100 * hop, 150 * hop), (1000 * hop, 1080 * hop)], []])
    posteriors = heard.posteriors.copy()
    posteriors[980:1000, 1] = 0.9  # 0.2 s too soon
    got = detection.evaluate_outputs(model, [StreamOutput(posteriors, heard.spans, heard.ticks)])
    assert got["latency"]["count"] == 2 and got["missed"] == got["false"] == 0
    assert got["latency"]["p50"] == pytest.approx((0.05 + 0.05 - 0.2) / 2)
    posteriors[500:1000, 1] = 0.9  # 5 s
    got = detection.evaluate_outputs(model, [StreamOutput(posteriors, heard.spans, heard.ticks)])
    assert got["latency"] == {"count": 1, "p50": 0.05, "p90": 0.05} and got["missed"] == 0.5 and got["false"] == 1


def wandering(model, seed, steps=4000):
    rng = np.random.default_rng(seed)
    walk = np.stack([np.convolve(rng.standard_normal(steps), np.ones(15) / 5, "same") for _ in model.labels], 1)
    spans = [sorted((int(a), int(a) + 30 * model.hop) for a in rng.choice(steps // 60, 8, False) * 60 * model.hop)
             for _ in model.labels]  # fmt: skip
    for index, found in enumerate(spans):
        for start, end in found:
            walk[start // model.hop : end // model.hop, index] += 1.5
    scores = (1 / (1 + np.exp(-walk))).astype(np.float32)
    return StreamOutput(scores, [np.array(found, np.int64) for found in spans], steps * model.hop, "w.wav")


def test_curves_are_those_of_whole_decoders_at_each_threshold():
    model = small_model("decoder.minimum=0.03", "decoder.merge=0.02")
    heard = [wandering(model, 0), wandering(model, 1)]
    got = detection.evaluate_outputs(model, heard)
    hours = sum(one.ticks for one in heard) / model.rate / 3600
    points = []
    for level in LEVELS:
        model.config["decoder"] |= {"threshold": level, "release": level * 2 / 3}
        total = Alarms()
        for one in heard:
            for index, spans in detect_spans(model, one).items():
                total += count_alarms(one.spans[index], spans, 0.2 * model.rate)
        points.append([level, total.false / hours, 1 - total.hits / total.truths])
    for row in got["det"]:
        assert row == pytest.approx(points[LEVELS.index(row[0])], abs=1e-4)
        assert not any(f <= row[1] and m < row[2] - 1e-4 for _, f, m in points)  # none beats it
    assert len(got["det"]) > 3 and len({m for *_, m in points}) > 3 and sorted(LEVELS, reverse=True) == LEVELS
    for most in MISS_RATE_FALSE_ALARMS:
        below = [m for _, f, m in points if f <= most]
        assert got["miss_at"][str(most)] == (pytest.approx(min(below), abs=1e-4) if below else None)
    assert 0 < got["psd"]["area"] < 1


def test_events_of_recordings_are_matched_apart():
    model = small_model()
    one = perfect(model, [[], [(100 * model.hop, 150 * model.hop)], []])
    other = StreamOutput(np.zeros_like(one.posteriors), one.spans, one.ticks, "b.wav")  # nothing found in it
    got = detection.evaluate_outputs(model, [one, other])["events"]
    span = (1.0, 1.5, "high")
    assert got["micro"] == got["classes"]["high"]
    assert vars(match_events([span, (101.0, 101.5, "high")], [span])[1]).items() <= got["micro"].items()


@pytest.fixture
def stream(tmp_path):
    """Ten seconds: two low tones and a high one between noise, with the truth beside it."""
    rng = np.random.default_rng(0)
    wave = 0.003 * rng.standard_normal(160_000)
    rows = ["start,end,label"]
    for start, hertz, label in ((1.0, 250, "low"), (4.0, 2500, "high"), (7.0, 280, "low")):
        t = np.arange(9600) / 16000
        wave[int(start * 16000) :][:9600] += 0.3 * np.sin(2 * np.pi * hertz * t)
        rows.append(f"{start},{start + 0.6},{label}")
    soundfile.write(tmp_path / "s.wav", wave.astype(np.float32), 16000)
    (tmp_path / "s.csv").write_text("\n".join([*rows, "9,9.5,siren", ""]))
    return tmp_path / "s.wav"


def test_a_recording_is_heard_as_a_stream(stream):
    model = small_model().for_streaming()
    (recording,) = find_recordings(str(stream))
    heard = detection.run_recording(model, recording)
    wave, _ = soundfile.read(stream, dtype="float32")
    with torch.inference_mode():
        y, _ = model(model.pad((torch.from_numpy(wave)[None],), len(wave)), model.initial(1))
    assert np.abs(heard.posteriors - y[0, model.delay : model.delay + len(heard.posteriors)].numpy()).max() < 1e-5
    assert heard.ticks == 160_000 and heard.left_out == 1
    assert [spans.tolist() for spans in heard.spans] == [[], [[64000, 73600]], [[16000, 25600], [112000, 121600]]]


@pytest.mark.parametrize(("name", "text", "message"), [
    ("s.csv", None, "s.csv does not exist; expected a table start,end,label"),
    ("s.csv", b"start,end\n1,2\n", "has no column 'label'"),
    ("s.csv", b"start,end,label\n1,2,a\n2,1,a\n", "row 2: expected 0 <= start < end"),
    ("s.csv", b"start,end,label\n1,x,a\n", "row 1: expected"),
    ("s.csv", b"start,end,label\nnan,2,a\n", "row 1: expected"),
    ("s.csv", b"start,end,label\n1,2,\n", "row 1: expected"),
    ("s.csv", b"start,end,label\n1,2,\xff\n", "row 1: label '\\udcff': expected characters of UTF-8"),
    ("list.csv", b"file\ns.wav\n", "has no column 'path'"),
    ("list.jsonl", b"[1]\n", "got '[1]'; expected an object"),
    ("sub/list.csv", b"path\n../s.wav\n", "'../s.wav' is no file in"),
    ("list.csv", b"path\nnone.wav\n", "'none.wav' is no file in"),
    ("none.wav", None, "is no file"),
])  # fmt: skip
def test_what_is_wrong_with_recordings_is_told(name, text, message, stream):
    place = stream.parent / name
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    if text is not None:
        place.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        find_recordings([str(stream if name == "s.csv" else place)])
    assert message in str(caught.value) and "streams" in str(caught.value)


def test_tables_of_recordings(stream):
    (stream.parent / "list.csv").write_text("path,snr\ns.wav,20\n")
    (stream.parent / "list.jsonl").write_text('{"path": "s.wav"}\n')
    for name in ("list.csv", "list.jsonl"):
        (found,) = find_recordings([str(stream.parent / name)])
        assert found.path == stream and len(found.events) == 4
    (stream.parent / "s.csv").write_text("start,end,label\n")
    assert find_recordings(str(stream))[0] == AnnotatedRecording(stream, [])
    with pytest.raises(ConfigError, match="an empty list"):
        find_recordings([])


@pytest.mark.parametrize(("arguments", "message"), [
    (["streams={stream}", "dataset.clips=12", "dataset.held_out=12"], "unreadable"),
    (["streams=nowhere.wav"], "streams: 'nowhere.wav' is no file"),
    (["false_alarms=1", "decoder.threshold=0.5"], "false_alarms and decoder.threshold: each says where events begin"),
    (["events=f1", "decoder.threshold=0.5"], "events and decoder.threshold: each says where events begin"),
])  # fmt: skip
def test_what_cannot_be_is_told_before_the_training(stream, tmp_path, arguments, message):
    stream.write_bytes(b"no sound")
    done = run("train.py", *(one.format(stream=stream) for one in arguments), f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode in (1, 2) and message in done.stderr.decode()
    assert not list(tmp_path.glob("run/*.safetensors"))


def test_training_with_streams(tones, stream, tmp_path):
    for number in range(12):
        tone_clip(tmp_path / "data" / "background" / f"{number}.wav", 50, seconds=1.0, seed=number)
    for label in ("low", "high"):
        (tmp_path / "data" / label).symlink_to(tones / label)
    settings = ["dataset=folder", f"dataset.root={tmp_path / 'data'}", "dataset.cache=null", f"streams={stream}"]
    done = ran("train.py", *QUICK, *settings, "trainer.epochs=4", f"hydra.run.dir={tmp_path / 'run'}")
    got = json.loads((tmp_path / "run" / "metrics.json").read_text())["streams"]
    assert got["recordings"] == ["s.wav"] and got["events"]["micro"]["truths"] == 3 and got["left_out"] == 1
    assert all(math.isfinite(value) for row in got["det"] for value in row)
    assert detection.evaluate_recordings(load(tmp_path / "run"), find_recordings(str(stream))) == got
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Misses and false alarms" in page and "from start to detection" in page
    assert "streams, 0.2 min: event F1" in " ".join(done.stdout.decode().split())


def test_events_of_labels_that_nobody_learns_are_told_before_the_training(stream):
    for label, other in (("dog", ""), ("Dog", "no label of the data: Dog")):
        stream.with_suffix(".csv").write_text(f"start,end,label\n0.1,0.2,{label}\n")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            check_recordings(find_recordings(str(stream)), small_model(labels=["dog", "rain"]))
        assert [other in str(one.message) for one in told] == [True] * bool(other)


@pytest.mark.parametrize(("rows", "told", "kept", "left"), [
    (["1000,1600,low", "4000,4600,high"], r"2 of 2 true events end behind .*\(10\.00 s\): rows 1, 2 \(1000 to 1600\); .* not milli", 0, 2),
    (["1,2,low", "9.5,10.1,high"], None, 2, 0),
    (["1,2,low", "9.5,12,high", "10,11,low"], r"2 of 3 .* rows 2, 3", 2, 1),
    (["1,3,low", "5,6,low", "2,4,low", "2,3,high"], r"1 events overlap another of the same label, such as 'low' in rows 1 and 3", 4, 0),
])  # fmt: skip
def test_truth_behind_the_end_is_told_and_not_missed(stream, rows, told, kept, left):
    stream.with_suffix(".csv").write_text("\n".join(["start,end,label", *rows]))
    recordings, model = find_recordings(str(stream)), small_model().for_streaming()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        check_recordings(recordings, model)
    assert [re.search(told, str(one.message)) is not None for one in found] == ([True] if told else [])
    heard = detection.run_recording(model, recordings[0])
    assert sum(map(len, heard.spans)) == kept and heard.left_out == left
    assert max((spans.max() for spans in heard.spans if len(spans)), default=0) <= heard.ticks


def test_the_terminal_does_not_miss_what_is_behind_the_end(trained, stream):
    stream.with_suffix(".csv").write_text("start,end,label\n1,1.6,low\n1000,1600,low\n")
    truth = f"sink.console.truth={stream.with_suffix('.csv')}"
    done = ran("infer.py", f"checkpoint={trained}", f"source.path={stream}", truth)
    assert b"of 1 true events were not found" in done.stdout
    assert b"sink.console.truth: 1 of 2 true events" in done.stderr
