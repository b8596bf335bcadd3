"""Thresholds chosen from a wish about false alarms, against slow loops over whole streams."""

import json

import numpy as np
import pytest
import torch
from conftest import QUICK, lively_model, ran, read_jsonl, refused, small_model, tone_clip, tone_clips
from hypothesis import given
from hypothesis import strategies as st
from test_evaluation import Listed

from pipeline.decoders.decoder import Decoder
from pipeline.measures.metrics import count_alarms
from pipeline.measures.stream_output import StreamOutput, decode_scores, detect_spans, event_spans
from pipeline.measures.thresholds import LEVELS, evaluate_decoder, run_split, tune_decoder, tune_f1, tune_false_alarms
from pipeline.media.sample import Sample
from pipeline.model.classifier import load

STEP = st.integers(0, 9).map(lambda tenths: tenths / 10)
PICTURES = ["extractor.height=8", "extractor.width=8", "encoder.hidden=8", "encoder.stem=[{channels: 8}]"]
MODELS = {
    "sound": (),
    "pictures": ("extractor=frames", "encoder=image_recurrent", *PICTURES),
    "both": ("extractor=audiovisual", "extractor@extractor.picture=frames", "encoder=recurrent"),
}


def clips(spec, count=9, seed=0):
    """Noise of whole grains, with and without known spans."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        grains = int(rng.integers(3, 9)) if spec.picture else int(rng.integers(4000, 9000))
        x = tuple(
            (rng.random((grains * track.steps, *track.shape)) * (255 if track.kind is np.uint8 else 0.5)).astype(track.kind)
            for track in spec.tracks
        )  # fmt: skip
        half = spec.ticks(x) // 2
        spans = (None, [], [(half, spec.ticks(x), number % 3)])[number % 4 if number % 4 < 3 else 0]
        found.append(Sample(x, (number % 3,), spans))
    found[2] = None
    return Listed(found)


def noise(seed, steps=600):
    """Scores that wander, and spans, for three labels; the second of which is good at it."""
    rng = np.random.default_rng(seed)
    walk = np.stack([np.convolve(rng.standard_normal(steps), np.ones(12) / 6, "same") for _ in range(3)], 1)
    spans = [np.array([(a, a + 150) for a in rng.permutation(steps // 20)[:9] * 200]) for _ in range(3)]
    spans = [found[np.argsort(found[:, 0])] for found in spans]
    for start, end in spans[1] // 10:
        walk[start:end, 1] += 2
    return StreamOutput((1 / (1 + np.exp(-walk))).astype(np.float32), spans, steps * 10)


@given(st.lists(STEP, max_size=60), STEP, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_what_cannot_be_an_event_may_be_passed_over(scores, level, minimum, merge, refractory):
    settings = {"threshold": level, "minimum": minimum / 100, "merge": merge / 100, "refractory": refractory / 100}
    scores = np.array(scores, np.float32)
    whole = Decoder(["a"], 10, 1000, **settings)
    expected = event_spans(whole.decode(scores[:, None]) + whole.close())
    assert decode_scores(Decoder(["a"], 10, 1000, **settings), scores).tolist() == expected.tolist()


@pytest.mark.parametrize("release", [None, 0.4, {"low": 0.5}])
@pytest.mark.parametrize("allowed", [0, 3])
def test_the_threshold_that_finds_most_and_keeps_to_the_wish(release, allowed):
    """Every threshold is tried with the whole decoder on the whole stream."""
    model = small_model("decoder.minimum=0.02", "decoder.merge=0.03")
    model.config["decoder"] |= {"release": release}
    model.hop, model.rate = 10, 1000
    found = noise(1)
    hours = found.ticks / 1000 / 3600
    chosen = tune_false_alarms(model, found, 2 * (allowed + 0.5) / hours)  # two labels are audible
    assert list(chosen) == ["high", "low"]
    for index, label in enumerate(model.labels[1:], 1):
        lowest = release[label] if isinstance(release, dict) and label in release else 0.4 if release == 0.4 else 0
        kept = []
        for level in LEVELS:
            if level < lowest:
                continue
            decoder = model.decoder(threshold={name: level if name == label else 0.99 for name in model.labels})
            events = decoder.decode(found.posteriors) + decoder.close()
            events = event_spans(event for event in events if event.label == label)
            count = count_alarms(found.spans[index], events, 200)
            if count.false > allowed:
                break
            kept.append((count.hits, -count.false, -level))
        assert chosen[label] == -max(kept)[2] and len(kept) > 3, len(kept)
        assert label == "low" or not allowed or max(kept)[0] > 1
    model.config["decoder"] |= {"threshold": chosen}
    got = evaluate_decoder(model, found)
    assert got["false"] <= 2 * allowed and {row["true"] for row in got["classes"].values()} == {9}
    assert got["an_hour"] == pytest.approx(got["false"] / hours, abs=0.05)


def test_where_no_threshold_will_do_the_highest_is_taken():
    model = small_model()
    everywhere = StreamOutput(np.ones((100, 3), np.float32) * np.float32([1, 0, 1]), [np.zeros((0, 2), int)] * 3, 16000)
    with pytest.warns(UserWarning, match=r"no threshold of low keeps to its share of 0 an hour; took the highest"):
        assert tune_false_alarms(model, everywhere, 0.0) == {"high": LEVELS[-1], "low": LEVELS[0]}


@pytest.mark.parametrize("share", [0.05, 0.6])
def test_a_threshold_at_which_the_answer_never_ends_is_not_chosen(share):
    """Of a model that knows nothing; whatever the wish, and however much of the time is true."""
    model = small_model()
    count, steps = 40, 40 * 50
    spans = np.array([(n * 50, n * 50 + round(50 * share)) for n in range(1, count)]) * model.hop
    found = StreamOutput(np.full((steps, 3), 1 / 3, np.float32), [spans[:0], spans, spans], steps * model.hop)
    for wish in (1, 1000):
        assert min(tune_false_alarms(model, found, wish).values()) > 1 / 3
    rows = evaluate_decoder(model, found)  # a decoder that was told to be on
    model.config["decoder"] |= {"threshold": 0.05}
    always = evaluate_decoder(model, found)
    assert (rows["found"], rows["false"], always["found"], always["false"]) == (0, 0, 0, 2)


def test_the_decoders_other_settings_hold_while_the_best_are_sought():
    """A refractory time of five seconds lets every fifth event pass, whatever is chosen."""
    model = small_model("decoder.refractory=5.0")
    scores = np.zeros((6000, 3), np.float32)
    spans = np.array([(start, start + 50) for start in range(100, 5900, 100)])
    for start, end in spans:
        scores[start:end, 1] = 0.9
    found = StreamOutput(scores, [spans[:0], spans * model.hop, spans[:0]], 6000 * model.hop)
    settings, told = tune_f1(model, found)
    model.config["decoder"] |= settings
    decoder = model.decoder()
    events = decoder.decode(scores) + decoder.close()
    assert told.answers == len(events) and told.hits == evaluate_decoder(model, found)["found"] < len(spans) / 4


@pytest.mark.parametrize("kind", MODELS)
def test_clips_are_heard_as_one_stream(kind):
    model = small_model() if kind == "sound" else lively_model(*MODELS[kind], times=2.0)
    split = clips(model.spec)
    found = run_split(model, split)
    order = [split[index] for index in np.random.default_rng(0).permutation(len(split)) if split[index] is not None]
    joined = tuple(np.concatenate(arrays) for arrays in zip(*(sample.x for sample in order)))
    ticks = model.spec.ticks(joined)
    assert found.ticks == ticks and len(found.posteriors) == -(-ticks // model.hop)
    with torch.inference_mode():
        x = model.spec.stack([joined])
        whole, _ = model(model.pad(x, ticks), model.initial(1))
    expected = whole[0, model.delay : model.delay + len(found.posteriors)].numpy()
    assert np.abs(found.posteriors - expected).max() < 1e-5
    begin, expected = 0, [[], [], []]
    for sample in order:
        length = model.spec.ticks(sample.x)
        for start, end, label in [(0, length, sample.labels[0])] if sample.spans is None else sample.spans:
            expected[label].append([begin + start, begin + end])
        begin += length
    assert [rows.tolist() for rows in found.spans] == expected and sum(map(len, expected)) > 3


def test_a_tuned_model_keeps_to_the_wish_also_when_it_is_loaded_again(tmp_path):
    model = small_model("head=last")
    splits = {"val": clips(model.spec, 40), "test": clips(model.spec, 12, seed=1)}
    with pytest.warns(UserWarning, match=r"on 0\.\d min of validation clips alone"):
        found = tune_decoder(model, splits, 0.0)
    assert found["wish"] == 0 and found["val"]["false"] == 0 and found["test"]["true"] > 0
    model.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    chosen = {label: row["threshold"] for label, row in found["val"]["classes"].items()}
    assert again.config["decoder"]["threshold"] == chosen
    heard = run_split(again.for_streaming(), splits["val"])
    for index, spans in detect_spans(again, heard).items():
        assert count_alarms(heard.spans[index], spans, 0.2 * again.rate).false == 0


def test_decoder_settings_of_older_models_are_understood(tmp_path):
    model = small_model()
    old = {"threshold": 0.6, "release": 0.4, "minimum": 0.05, "refractory": 0.1, "background": ["background"]}
    model.config["decoder"] = {"_target_": "pipeline.decoders.decoder.Decoder"} | old
    model.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors").decoder()
    assert again.high[1:] == pytest.approx([0.6, 0.6]) and again.low[1:] == pytest.approx([0.4, 0.4])
    assert again.merge == 0


def test_training_with_a_wish(tones, tmp_path):
    settings = ["dataset=folder", f"dataset.root={tones}", "dataset.cache=null", "trainer.epochs=2", "false_alarms=2"]
    done = ran("train.py", *QUICK, *settings, f"hydra.run.dir={tmp_path}")
    events = json.loads((tmp_path / "metrics.json").read_text())["events"]
    assert events["wish"] == 2 and {"val", "test", "seconds"} <= events.keys()
    chosen = {label: row["threshold"] for label, row in events["val"]["classes"].items()}
    assert load(tmp_path / "model.safetensors").config["decoder"]["threshold"] == chosen
    assert "false alarms, wished 2 an hour" in " ".join(done.stdout.decode().split())


def test_thresholds_of_single_labels_on_the_command_line(trained, tones):
    given = ["infer.py", f"checkpoint={trained}", f"source.path={tones / 'low' / '0.wav'}", "sink=jsonl"]
    for threshold, labels in (("{high: 0.99}", {"low"}), ("{low: 1, high: 0.99}", set())):
        rows = [json.loads(line) for line in ran(*given, f"decoder.threshold={threshold}").stdout.splitlines()]
        assert {row["label"] for row in rows if row["type"] == "event"} == labels
    refused("decoder.threshold.hihg: no such label; did you mean 'high'?", *given, "decoder.threshold={hihg: 0.8}")


ODD = ("Müller", "a,b", "null", "1e3", "x: {y}", "true", 'say "no"', "it's", "[1]", "#3")


def test_thresholds_of_any_label_can_be_given(tmp_path):
    """As pairs, in both programs: stored with the model, changed for a stream, and kept where none is given."""
    labels = [*ODD, "background"]
    root = tone_clips(tmp_path / "data", labels, 3, 0.2)
    pairs = json.dumps([[label, 0.7 + number / 100] for number, label in enumerate(ODD)], ensure_ascii=False)
    given = [f"decoder.threshold={pairs}", 'decoder.release=[["a,b",0.1]]', "dataset.cache=null", "trainer.epochs=1"]
    ran("train.py", *QUICK, "dataset=folder", f"dataset.root={root}", *given, f"hydra.run.dir={tmp_path / 'run'}")
    model = load(tmp_path / "run")
    level = dict(zip(model.labels, model.decoder().high.tolist()))
    assert [level[label] for label in ODD] == pytest.approx([0.7 + n / 100 for n in range(len(ODD))])
    assert model.decoder().low[model.labels.index("a,b")] == pytest.approx(0.1)
    given = ["infer.py", f"checkpoint={tmp_path / 'run'}", f"source.path={tone_clip(tmp_path / 'x.wav', 440)}"]
    sink = ["sink=jsonl", f"sink.jsonl.path={tmp_path / 'x.jsonl'}"]
    change = ['decoder.threshold=[["null",0.0],["a,b",0.1]]', 'decoder.release=[["null",0.0]]']
    ran(*given, *sink, *change)
    events = [row for row in read_jsonl(tmp_path / "x.jsonl") if row["type"] == "event"]
    assert "null" in {row["label"] for row in events} <= {"null", "a,b"}
    refused("decoder.threshold.nul: no such label; did you mean 'null'", *given, 'decoder.threshold=[["nul",0.3]]')
