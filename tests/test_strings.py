"""Models of strings: their loss, figures, decoding and phrases against brute force and other libraries; cuts and
snapshots; a training and its use from end to end.
"""

import functools
import itertools
import json
import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import (
    assert_resumed_exactly,
    configured,
    cut_and_restored,
    lively_model,
    noise,
    ran,
    read_csv,
    read_jsonl,
    refused,
    tone_clip,
    write_table,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torchaudio.functional import edit_distance

from datasets.transcribed import Transcripts
from pipeline.core.build import build
from pipeline.core.errors import ConfigError
from pipeline.decoders.phrases import Trie, read_phrases
from pipeline.decoders.transcript import Phrase, Transcript, collapse
from pipeline.exporting import rivulet_runtime
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Sample, collate
from pipeline.streaming.stream import Stream
from pipeline.tasks.ctc import ctc_cost, fewest_steps
from pipeline.tasks.strings import Strings, align

LABELS = ["a", "b", "c", "-"]
STRINGS = ["task=strings"]


def read(path):
    """The string of a path, by characters: an oracle that knows nothing of ours."""
    return re.sub("-", "", re.sub(r"(.)\1*", r"\1", "".join(LABELS[k] for k in path)))


def likely(posteriors):
    """The probability of each string, summed over all paths, in float64."""
    found = {}
    for path in itertools.product(range(4), repeat=len(posteriors)):
        found[read(path)] = found.get(read(path), 0.0) + math.prod(
            row[k] for row, k in zip(posteriors, path, strict=True)
        )
    return found


def drawn(seed, steps=6):
    rng = np.random.default_rng(seed)
    return rng.dirichlet([0.4] * 4, steps).astype(np.float32)


@given(st.integers(0, 500))
@settings(max_examples=10)
def test_what_a_string_costs_is_the_log_of_all_its_paths(seed):
    posteriors = drawn(seed)
    found = likely(posteriors.astype(np.float64))
    strings = [text for text in ("", "a", "ab", "aa", "abca", "bcb") if text in found]
    rows = torch.from_numpy(posteriors).clamp_min(1e-30).log().expand(len(strings), -1, -1)
    costs = ctc_cost(rows, torch.full((len(strings),), 6), [[LABELS.index(one) for one in text] for text in strings], 3)
    for text, cost in zip(strings, costs.tolist(), strict=True):
        assert cost == pytest.approx(-math.log(found[text]) / max(1, len(text)), rel=1e-4), text


def test_a_string_that_has_too_few_steps_costs_nothing_and_is_told():
    assert fewest_steps([0, 0, 1]) == 4 and fewest_steps([]) == 0
    spec = InputSpec(sound=16000)
    batch = collate([Sample((np.zeros(1920, np.float32),), (0, 0, 1), name="short.wav")], spec)
    logits = torch.zeros(1, 3, 4, requires_grad=True)
    with pytest.warns(UserWarning, match=r"short.wav has 3 steps of 0.04 s .* at least 4"):
        cost, _ = Strings().sequence_cost(logits, torch.tensor([3]), batch, 0.04)
    cost.backward()
    assert cost == 0 and not logits.grad.any()


def test_strings_stand_in_the_order_of_their_times():
    x = (np.zeros(8, np.float32),)

    class Listed(list):
        epoch = 0

    split = Listed([Sample(x, (0, 2), [(4, 6, 2), (0, 3, 2), (6, 8, 0)]), Sample(x, (2, 0, 2)), Sample(x, (1,), [])])
    made = Strings().in_columns(split, ["a", "nothing", "b"], "nothing")
    assert Strings().columns(["a", "nothing", "b"], "nothing") == ["a", "b", "nothing"]
    assert Strings().columns(["a"], None) == ["a", "_blank_"]
    assert [made[k].labels for k in range(3)] == [(1, 1, 0), (1, 0, 1), ()]


@given(st.lists(st.tuples(*[st.lists(st.integers(0, 2), max_size=7)] * 2), min_size=1, max_size=6))
def test_figures_are_those_of_torchaudio(pairs):
    found = Strings().predictions(LABELS, np.array([0.5, 0.5, 0.5, np.inf], np.float32))
    found.strings, found.answers = (list(rows) for rows in zip(*pairs, strict=True))
    found.costs = [0.0] * len(pairs)
    got = Strings().summarize(found)
    edits, said = sum(edit_distance(*pair) for pair in pairs), sum(len(one) for one, _ in pairs)
    assert got["token_error"] == pytest.approx(edits / said if said else float(any(other for _, other in pairs)))
    assert got["accuracy"] == np.mean([one == other for one, other in pairs])
    swaps, lost, added = align(found.strings, found.answers, 4)
    assert swaps.sum() - np.trace(swaps) + lost.sum() + added.sum() == edits
    assert (swaps.sum(1) + lost).tolist() == np.bincount([*itertools.chain(*found.strings)], minlength=4).tolist()
    assert (swaps.sum(0) + added).tolist() == np.bincount([*itertools.chain(*found.answers)], minlength=4).tolist()
    assert json.loads(json.dumps(got, allow_nan=False)) == got


def transcript(**options):
    return Transcript(LABELS, 10, 100, **options)  # 0.1 s a step


def rows_of(path, sure=0.9):
    """Posteriors whose best columns are those of a path."""
    rows = np.full((len(path), 4), (1 - sure) / 3, np.float32)
    rows[np.arange(len(path)), [LABELS.index(one) for one in path]] = sure
    return rows


@given(st.text("abc-", max_size=40), st.integers(0, 100))
def test_greedy_decoding_is_that_of_characters(path, seed):
    rows, decoder = rows_of(path), transcript(pause=100, tell="both")
    rows += 0.01 * np.random.default_rng(seed).random(rows.shape, np.float32)
    events = decoder.decode(rows) + decoder.close()
    tokens = [event for event in events if type(event) is not Phrase]
    text = read([LABELS.index(one) for one in path])
    assert "".join(event.label for event in tokens) == text
    assert collapse([LABELS.index(one) for one in path], 3) == [LABELS.index(one) for one in text]
    assert [event.label for event in events if type(event) is Phrase] == ([" ".join(text)] if text else [])
    spans = [(one.start() * 10, one.end() * 10) for one in re.finditer(r"([abc])\1*", path)]
    assert [(event.start, event.end) for event in tokens] == spans
    for event in tokens:
        part = rows[event.start // 10 : event.end // 10, LABELS.index(event.label)]
        assert event.score == part.max() and event.peak == event.start + 10 * part.argmax()


def test_a_phrase_ends_after_a_pause_and_is_shown_before():
    decoder = transcript(pause=0.5)
    assert [event.label for event in decoder.decode(rows_of("-a-bb"))] == ["a"]
    (now,) = decoder.open_events()
    assert (now.label, now.start, now.end, now.final) == ("a b", 10, 50, False)
    assert [(type(one), one.label) for one in decoder.decode(rows_of("-----"))] != []
    (phrase,) = [one for one in decoder.decode(rows_of("-c")) if type(one) is Phrase]
    assert (phrase.label, phrase.start, phrase.end) == ("a b", 10, 50) and decoder.open_events()[0].label == "c"
    assert [one.label for one in decoder.close()] == ["c", "c"] and not decoder.open_events()


def test_what_is_told_can_be_chosen():
    path = rows_of("aa-b-c-")

    def labels_of(decoder):
        return [one.label for one in decoder.decode(path) + decoder.close()]

    labels = {kind: labels_of(transcript(tell=kind)) for kind in ("tokens", "phrases")}
    assert labels == {"tokens": ["a", "b", "c"], "phrases": ["a b c"]}
    assert labels_of(transcript(background=["b"], tell="phrases")) == ["a c"]
    told = {kind: transcript(tell=kind, background=["b"], phrases=["a c", "c"]).told for kind in (*labels, "both")}
    assert told == {"tokens": ["a", "c"], "phrases": ["a c", "c"], "both": ["a", "c", "a c"]}
    assert transcript(tell="phrases").told == [] and transcript().told == ["a", "b", "c"]
    assert not labels_of(transcript(threshold=0.95))
    nothing = transcript()
    assert not nothing.decode(np.zeros((30, 4), np.float32)) + nothing.close(), "what a stream tells while it is blind"
    passed = transcript(pause=0.5, tell="both")
    events = passed.decode(rows_of("-a"))
    passed.pass_over(20)
    events += passed.decode(rows_of("a--")) + passed.close()
    found = [(one.label, one.start, one.end) for one in events if type(one) is Phrase]
    assert found == [("a", 10, 20), ("a", 220, 230)]


@given(st.integers(0, 500), st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=5))
@settings(max_examples=15)
def test_the_best_phrase_of_a_list_is_that_of_all_paths(seed, phrases):
    posteriors = drawn(seed)
    trie = Trie([" ".join(phrase) for phrase in phrases], LABELS)
    for row in posteriors:
        trie.step(row)
    wide = posteriors.astype(np.float64)
    found = likely(np.maximum(wide, 1e-30))
    each = {" ".join(phrase): found.get(phrase, 0.0) for phrase in phrases}
    text, score = trie.best()
    assert each[text] == pytest.approx(max(each.values()), rel=1e-6)
    assert score == pytest.approx(min(1.0, each[text] / wide.max(1).prod()), rel=1e-6)


def test_a_phrase_of_the_list_is_told_or_none():
    doubt = rows_of("-a-b---")
    doubt[3] = [0.05, 0.5, 0.4, 0.05]  # b, or perhaps c
    listed = transcript(phrases=["a c", "c c a"], tell="phrases")
    (event,) = listed.decode(doubt) + listed.close()
    assert (event.label, event.start, event.end) == ("a c", 10, 40) and 0.01 < event.score < 1
    other = transcript(phrases=["c c a"], tell="phrases")
    assert not other.decode(doubt) + other.close()
    strict = transcript(phrases=["a c"], match=0.99, tell="phrases")
    assert not strict.decode(doubt) + strict.close()


def test_a_phrase_of_the_list_is_told_wherever_it_begins():
    def told(path, *phrases):
        decoder = transcript(pause=1.2, phrases=phrases, tell="phrases")  # 12 steps
        return [event.label for event in decoder.decode(rows_of(path)) + decoder.close()]

    for start in range(40):
        assert told("-" * start + "a-b---", "a b", "b") == ["a b"], start
    for pause in range(12, 40):
        assert told("a" + "-" * pause + "b", "a", "b") == ["a", "b"], pause


def test_lists_of_phrases_that_cannot_be_used(tmp_path):
    file = tmp_path / "phrases.txt"
    many = "\n".join(map(" ".join, itertools.product("abc", repeat=10)))
    for text, told in (
        ("a b\n\na d c\n", r"phrases.txt, line 3: the model has no word 'd'"), ("\n", "holds no phrase"),
        ("\n" * 10_000_001, "phrases.txt, more than 10000000 bytes"),
        (many, r"phrases.txt, line 26\d+: more than 40000 words"),
    ):  # fmt: skip
        file.write_text(text)
        with pytest.raises(ConfigError, match=told):
            read_phrases(str(file), LABELS)
    file.write_bytes(b"\xff\xfe\x00")
    for path in (file, tmp_path / "none.txt", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_phrases(str(path), LABELS)
    file.write_text("a  b \n\nc\n")
    assert read_phrases(str(file), LABELS) == ["a  b ", "c"]


def test_words_of_a_list_are_spelt_as_labels():
    assert Trie(["e\u0301t\u00e9"], ["\u00e9t\u00e9", "-"]).texts == ["\u00e9t\u00e9"]


@functools.cache
def model_of():
    return lively_model(
        *STRINGS, "encoder=conv_recurrent", "extractor.mels=20", "encoder.hidden=16", "head.delay=0.04",
        "decoder.pause=0.3", labels=["a", "b", "c", "_blank_"], seed=3, times=2.5,
    )  # fmt: skip


PHRASES = {"phrases": ["a b", "b a c", "c", "a a"], "match": 0.0}


@pytest.mark.parametrize("options", [{}, PHRASES])
@pytest.mark.parametrize(("seconds", "cuts"), [(6, 100), pytest.param(60, 1000, marks=pytest.mark.long)])
def test_cuts_and_snapshots_change_nothing(options, seconds, cuts):
    _, events, partial = cut_and_restored(model_of(), noise(seconds * 16000), cuts, **options)
    assert len(events) > 0.8 * seconds and any(type(one) is Phrase for one in events) and partial


def test_snapshots_of_others_are_refused():
    decoder = transcript(phrases=["a b"])
    decoder.decode(rows_of("a-b"))
    good = decoder.snapshot()
    for wrong in ({"run": [3, 0, 0.5, 0, None]}, {"trie": "AAAA"}, {"trie": "?"}, {"step": -1}, {"phrase": [[0]]}):
        with pytest.raises(ValueError, match="no snapshot"):
            transcript(phrases=["a b"]).restore(good | wrong)
    with pytest.raises(ValueError, match="list of phrases is another"):
        transcript(phrases=["a b c"]).restore(json.loads(json.dumps(good)))


def test_a_stream_with_the_longest_list_can_be_restored():
    lists = {"phrases": [" ".join(words) for words in itertools.islice(itertools.product("abc", repeat=10), 26_600)]}
    decoder = model_of().decoder(**lists)
    assert 39_800 < len(decoder.trie.parents) <= 40_000
    stream = Stream(model_of(), 4, decoder)
    stream.push(noise(8000))
    stream = Stream.restore(model_of(), stream.snapshot(), model_of().decoder(**lists))
    assert np.array_equal(stream.decoder.trie.symbol, decoder.trie.symbol)


TONES = {"high": 2400, "low": 300, "middle": 900}
QUICK = [
    *STRINGS, "augment=none", "encoder=recurrent", "encoder.hidden=16", "extractor.mels=20", "extractor.hop=0.03", "extractor.window=0.04", "trainer.workers=0",
    "trainer.threads=1", "trainer.batch=8", "trainer.warmup=0", "optimizer.lr=0.02",
]  # fmt: skip
COMPOSED = [
    "dataset=folder",
    "dataset.background=nothing",
    "dataset.scene={seconds: 0.5, snr: [20, 40], strings: {count: [2, 4], edge: [0.1, 0.3]}}",
]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A folder of tones for each of three words."""
    folder = tmp_path_factory.mktemp("words")
    for label, hertz in TONES.items():
        for number in range(12):
            tone_clip(folder / label / f"{number}.wav", hertz, 0.2 + 0.01 * number, seed=number)
    return folder


def training(folder, out, *more):
    places = [f"dataset.root={folder}", "dataset.cache=null", f"hydra.run.dir={out}"]
    return ["train.py", *QUICK, *COMPOSED, *places, *more]


@pytest.fixture(scope="module")
def learnt(words, learn):
    """A run's folder: strings of tones, learnt by train.py as a user would call it, and what it printed."""
    return learn("strings", *training(words, Path("OUT"), "trainer.epochs=24", "export=true")[1:])


def said(path, string, rate=16000):
    """A recording of tones, half a second of silence around them, and where the last one ends, in seconds."""
    rng, gap = np.random.default_rng(0), 0.01 * np.random.default_rng(1).standard_normal(rate // 2)
    t = np.arange(rate // 4) / rate
    parts = [0.3 * np.sin(2 * np.pi * TONES[word] * t) + 0.03 * rng.standard_normal(len(t)) for word in string.split()]
    pauses = [gap[: rate // 10]] * len(parts)
    wave = np.concatenate([gap, *itertools.chain(*zip(parts, pauses, strict=True)), *[gap] * 4])
    soundfile.write(path, wave, rate)
    return path


def test_a_training_tells_how_many_symbols_are_wrong(learnt):
    out, told = learnt
    metrics, history = json.loads((out / "metrics.json").read_text()), read_jsonl(out / "history.jsonl")
    test = metrics["test"]
    assert test["token_error"] < 0.1 and test["accuracy"] > 0.7 and [*test["classes"]] == [*TONES, "nothing"]
    best = max(history, key=lambda row: (row["val_token_accuracy"], -row["val_loss"]))
    assert metrics["best_epoch"] == best["epoch"] and b"token error" in told
    lines = read_jsonl(out / "answers.jsonl")
    assert max(len(line["truth"].split()) for line in lines) == 4
    page = (out / "report.html").read_text()
    for text in ("token error rate", "Swapped, lost, added", "strings right"):
        assert text in page
    assert "Confusions" not in page and "Calibration" not in page


def test_a_stream_tells_symbols_and_phrases(learnt, tmp_path):
    given = ["infer.py", f"checkpoint={learnt[0]}", f"source.path={said(tmp_path / 'a.wav', 'low high high middle')}"]
    sink, phrases = ["sink=[console,jsonl]", f"sink.jsonl.path={tmp_path / 'o'}"], tmp_path / "phrases.txt"

    def told(*more):
        ran(*given, *sink, *more)
        return [row for row in read_jsonl(tmp_path / "o") if row["type"] == "event"]

    events = told()
    assert [row["label"] for row in events] == ["low", "high", "high", "middle", "low high high middle"]
    assert (events[-1]["start"], events[-1]["end"]) == (events[0]["start"], events[-2]["end"])
    for listed, expected in (("low high high middle", ["low high high middle"]), ("middle low", [])):
        phrases.write_text(f"high high\n{listed}\n")
        assert [row["label"] for row in told(f"decoder.phrases={phrases}", "decoder.tell=phrases")] == expected
    phrases.write_text("low hihg\n")
    refused("line 1: the model has no word 'hihg'; did you mean 'high'?", *given, f"decoder.phrases={phrases}")


def test_files_are_told_their_strings(learnt, tmp_path):
    rows = [{"path": f"{k}.wav", "label": text} for k, text in enumerate(["low low", "high middle low high", "middle"])]
    for row in rows:
        said(tmp_path / row["path"], row["label"])
    soundfile.write(tmp_path / "quiet.wav", 0.01 * np.random.default_rng(1).standard_normal(16000), 16000)
    rows.append({"path": "quiet.wav", "label": ""})
    table = write_table(tmp_path / "m.csv", rows)

    def told(*more):
        done = ran("infer.py", f"checkpoint={learnt[0]}", "source=files", f"source.paths={table}", "sink=[csv,report]",
            f"sink.csv.path={tmp_path / 'o.csv'}", f"sink.report.path={tmp_path / 'r.html'}", *more)  # fmt: skip
        assert b"does not have" not in done.stderr
        return read_csv(tmp_path / "o.csv")

    for compute in ("onnx", "torch"):
        found = told(f"compute={compute}")
        assert [(row["label"], row["truth"]) for row in found] == [(row["label"],) * 2 for row in rows]
        assert {row["status"] for row in found} == {"ok"}
    assert float(found[1]["p_high"]) > 0.5 > float(found[0]["p_high"]) and 0 < float(found[0]["score"]) <= 1
    (tmp_path / "phrases.txt").write_text("low low\nmiddle\n")
    found = told(f"decoder.phrases={tmp_path / 'phrases.txt'}")
    assert [row["label"] for row in found] == ["low low", "", "middle", ""]
    events = [row["label"] for row in told("output=events", "decoder.tell=phrases")]
    assert events == ["low low", "high middle low high", "middle", ""]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("trainer.tbptt=0.5", "trainer.tbptt is 0.5; expected null"),
        ("augment=light augment.mixup=0.2", "augment.mixup is 0.2; expected 0"),
        ("head=max", "head is 'max'; expected last"),
        ("smoothing=ema", "smoothing.seconds is 0.05; expected 0"),
        ("events=f1", "events is 'f1'; expected null"),
        ("false_alarms=0", "false_alarms is 0"),
        ("calibrate=true", "calibrate is True; expected false"),
        ("decoder=hysteresis", "decoder: reads events, but the task tells strings; set decoder=transcript"),
        ("task=classes decoder=transcript", "decoder: reads strings, but the task tells events; set decoder=hysteresis"),
        ("decoder.phrases=[tone]", "the model has no word 'tone'"),
        ("dataset.scene.strings.count=[3,1]", "got 3 to 1; expected the lower one first"),
    ],
)  # fmt: skip
def test_settings_that_do_not_suit_are_refused(words, tmp_path, setting, told):
    refused(told, *training(words, tmp_path / "run", *setting.split()))
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.long
def test_a_training_goes_on_to_the_bit(words, tmp_path):
    assert_resumed_exactly(tmp_path, lambda out: training(words, out, "task.warm=0", "trainer.schedule=constant"))


def test_strings_are_composed_of_clips_of_one_speaker(tmp_path):
    rows = []
    for speaker, hertz in (("x", 500), ("y", 1500)):
        for label in "ab":
            for number in range(8):
                path = tone_clip(tmp_path / f"{speaker}{label}{number}.wav", hertz, 0.3, seed=number)
                split = ("train", "val", "test", "train")[number % 4]
                rows.append({"path": path.name, "label": label, "speaker": speaker, "split": split})
    write_table(tmp_path / "manifest.csv", rows)
    scene = {"snr": [20, 40], "plain": 1.0, "strings": {"count": [3, 5], "pauses": [[0.1, 0.2]]}}
    config = configured("train", "dataset=manifest", f"dataset.root={tmp_path}")["dataset"]
    data = build(config | {"background": "-", "scene": scene, "speaker": "speaker", "cache": None}, at="dataset")
    for name in ("train", "val", "test"):
        split = Strings().in_columns(data.split(name, InputSpec(sound=16000)), data.labels, "-")
        first = [split[index] for index in range(len(split))]
        for index, sample in enumerate(first):
            (wave,) = sample.x
            assert 3 <= len(sample.labels) <= 5 and sample.labels == tuple(label for *_, label in sample.spans)
            assert sample.labels[0] == split.classes[index][0]
            hertz = 1500 if Path(sample.name).name[0] == "y" else 500
            for start, end, _ in sample.spans:
                assert np.abs(np.fft.rfft(wave[start:end], 16000)).argmax() == pytest.approx(hertz, abs=20)
            pauses = [after - end for (_, end, _), (after, _, _) in pairwise(sample.spans)]
            assert all(0.1 * 16000 - 1 <= pause <= (0.2 + 0.06) * 16000 for pause in pauses)
        split.epoch = 1
        same = [np.array_equal(split[index].x[0], sample.x[0]) for index, sample in enumerate(first)]
        assert all(same) if name != "train" else not any(same), "they are drawn anew for training alone"


LONG = "high high low high high low high high low"


def test_transcripts_of_a_table(words, tmp_path):
    rows = [{"path": f"{k}.wav", "transcript": text} for k, text in enumerate(["low high", LONG, "low", ""] * 8)]
    for row in rows:
        said(tmp_path / row["path"], row["transcript"] or "low")
    write_table(tmp_path / "manifest.csv", rows)
    out = tmp_path / "run"
    source = ["dataset=transcribed", f"dataset.root={tmp_path}", f"dataset.cache={tmp_path / 'cache'}"]
    coarse = ["trainer.epochs=1", "extractor.hop=0.7", "extractor.window=0.7", f"hydra.run.dir={out}"]
    done = ran("train.py", *QUICK, *source, *coarse)
    assert re.search(rb"wav has \d steps of 0.7 s for a string of", done.stderr), done.stderr
    assert {line["truth"] for line in read_jsonl(out / "answers.jsonl")} <= {"low high", LONG, "low", ""}
    write_table(tmp_path / "manifest.csv", [row | {"transcript": "e\u0301t\u00e9 \u00e9te\u0301"} for row in rows])
    assert Transcripts(str(tmp_path)).labels == ["\u00e9t\u00e9"], "however an accent is written"
    write_table(tmp_path / "manifest.csv", [{"path": "0.wav", "label": "low"}])
    refused("transcript", "train.py", *QUICK, *source)


def test_the_program_of_an_exported_model_tells_the_same(learnt, tmp_path):
    wave = said(tmp_path / "a.wav", "low high high middle")
    ran("infer.py", f"checkpoint={learnt[0]}", f"source.path={wave}", "sink=jsonl", f"sink.jsonl.path={tmp_path / 'o'}")
    told, keys = read_jsonl(tmp_path / "o"), ("label", "start", "end", "score")
    ours = [{key: row[key] for key in keys} for row in told if row["type"] == "event"]
    program = rivulet_runtime.Stream(learnt[0] / "model.onnx")
    events, sound = [], soundfile.read(wave, dtype="float32")[0]
    for part in np.array_split(sound, 13):
        events += program.push(part)
        program = rivulet_runtime.Stream.restore(learnt[0] / "model.onnx", program.snapshot())
    events += program.close()
    assert [{key: event[key] for key in keys} for event in events] == ours and len(ours) == 5


def test_strings_are_learnt_beside_negatives(words, tmp_path):
    soundfile.write(tmp_path / "rain.wav", 0.1 * np.random.default_rng(0).standard_normal(16000 * 20), 16000)
    more = [f"dataset.negatives={tmp_path / 'rain.wav'}", "trainer.epochs=1", "trainer.mine=1"]
    done = ran(*training(words, tmp_path / "run", *more))
    assert "val_false_alarms" in read_jsonl(tmp_path / "run" / "history.jsonl")[0], done.stderr
    assert "" in {line["truth"] for line in read_jsonl(tmp_path / "run" / "answers.jsonl")}, "rain says nothing"
