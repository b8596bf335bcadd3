"""Embeddings of trained encoders, and groups of clips by them."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import QUICK, listen, lively_model, noise, ran, read_csv, read_jsonl, refused, small_model, write_table
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from pipeline.core.errors import ConfigError
from pipeline.exporting.export import export
from pipeline.layers.nearest import Distance
from pipeline.media.chunks import read_chunk
from pipeline.model.classifier import load
from pipeline.model.embedding import embedding_of
from pipeline.model.onnx_model import OnnxModel
from pipeline.streaming.stream import Stream
from pipeline.tasks.groups import Groups


def hidden_of(model, wave):
    """What the encoder makes of a whole clip ``(T, F)``, through the chain's own stages."""
    x = model.pad((torch.from_numpy(wave)[None],), len(wave))
    with torch.inference_mode():
        for name in ("extractor", "standardize", "encoder"):
            stage = getattr(model, name)
            x, _ = stage(x, stage.initial(1))
    return x[0, : -(-len(wave) // model.hop)].numpy()


def test_an_embedding_is_the_mean_of_the_encoders_numbers():
    model, wave = small_model("head=max", "head.delay=0.1"), noise(16000)
    hidden, made = hidden_of(model, wave), embedding_of(model, live=False)
    told, events, _ = listen(Stream(made, 7), np.split(wave, [100, 5000]))
    np.testing.assert_allclose(told, hidden.cumsum(0) / np.arange(1, len(hidden) + 1)[:, None], atol=2e-5)
    assert events == [] and made.labels[0] == "e1" and len(made.labels) == 16
    live = listen(Stream(embedding_of(model, live=True), 7), [wave])[0]
    newest = model.config["head"]["live"] * model.rate / model.hop
    np.testing.assert_allclose(live[-1], hidden[-round(newest) :].mean(0), atol=2e-5)


def test_scores_are_those_of_equal_round_gaussians():
    rng = np.random.default_rng(0)
    centres, x = rng.normal(0, 2, (4, 3)).astype(np.float32), rng.normal(0, 2, (5, 3)).astype(np.float32)
    stage = Distance((3,), 4)
    stage.settle(centres, 0.7)
    scores = stage(torch.from_numpy(x)[None], ())[0].softmax(-1)[0].numpy()
    density = np.array([[np.exp(-np.sum((row - centre) ** 2) / 1.4) for centre in centres] for row in x])
    np.testing.assert_allclose(scores, density / density.sum(1, keepdims=True), rtol=1e-4)


def test_figures_are_those_of_scikit_learn():
    rng, task = np.random.default_rng(1), Groups(3)
    found = task.predictions(task.columns([], None), np.zeros(3))
    truth, scores = rng.integers(-1, 4, 60), rng.dirichlet(np.ones(3), 60).astype(np.float32)
    task.add(found, scores, truth)
    found.known, found.seconds = list("abcd"), np.ones(60)
    figures, known = task.measure(found), truth >= 0
    pair = truth[known], scores.argmax(1)[known]
    assert figures["nmi"] == pytest.approx(normalized_mutual_info_score(*pair))
    assert figures["ari"] == pytest.approx(adjusted_rand_score(*pair))
    assert np.sum(figures["table"]) == known.sum() and sum(one["support"] for one in figures["classes"].values()) == 60
    first = np.argsort(found.of_truth, kind="stable")[:3]  # the surest of each group
    assert sorted(scores[first].argmax(1)) == [0, 1, 2]
    assert all(scores[row].max() == scores[scores.argmax(1) == scores[row].argmax()].max() for row in first)


@pytest.fixture(scope="module")
def grouped(trained, tones, tmp_path_factory):
    """Groups of tones, without a label, by the encoder of a model that knows them."""
    root = tmp_path_factory.mktemp("grouped")
    for number in range(24):
        shutil.copy(tones / ("low", "high")[number % 2] / f"{number // 2}.wav", root / f"{number}.wav")
    write_table(root / "manifest.csv", [{"path": f"{n}.wav", "split": "train" if n < 16 else "val"} for n in range(24)])
    given = ["dataset=manifest", f"dataset.root={root}", "dataset.labelled=false", "dataset.cache=null", *QUICK, "task=groups",
             "task.count=2", f"trainer.pretrained={trained}"]  # fmt: skip
    ran("train.py", *given, f"hydra.run.dir={root / 'run'}")
    return root, given


def test_groups_without_labels_are_found_and_told(grouped, trained, tmp_path):
    root, _ = grouped
    metrics = json.loads((root / "run" / "metrics.json").read_text())
    assert metrics["val"]["nmi"] is None and metrics["val"]["count"] == 8 and metrics["epochs"] == 0
    page = (root / "run" / "report.html").read_text()
    assert "Map of the clips" in page and "Typical clips" in page and page.count("<audio") == 8
    ran("infer.py", f"checkpoint={root / 'run'}", "source=files", f"source.paths={root / 'manifest.csv'}", "source.workers=1",
        "sink=csv", f"sink.csv.path={tmp_path / 'out.csv'}")  # fmt: skip
    told = {int(row["path"].split("/")[-1][:-4]): row["label"] for row in read_csv(tmp_path / "out.csv")}
    assert {told[n] for n in range(0, 24, 2)} | {told[n] for n in range(1, 24, 2)} == {"group 1", "group 2"}
    assert len({(told[n], n % 2) for n in told}) == 2  # low tones are one group, high ones the other


def test_the_groups_are_k_means_of_the_embeddings_that_are_told(grouped, trained, tmp_path):
    root, _ = grouped
    ran("infer.py", f"checkpoint={trained}", "source=files", f"source.paths={root / 'manifest.csv'}", "source.workers=1",
        "output=embeddings", "sink=[csv,parquet]", f"sink.csv.path={tmp_path / 'out.csv'}", f"sink.parquet.path={tmp_path / 'out.parquet'}")  # fmt: skip
    rows = read_csv(tmp_path / "out.csv")
    x = np.array([[float(row[f"p_e{k}"]) for k in range(1, 17)] for row in rows])
    expected = hidden_of(load(trained), read_chunk(root / "0.wav", load(trained).spec)[0][0]).mean(0)
    np.testing.assert_allclose(x[0], expected, atol=1e-4)
    centres = load(root / "run").head.distance.centres.numpy()
    made = KMeans(2, n_init=10, random_state=0).fit(x[:16]).cluster_centers_
    order = [int(np.square(centres - one).sum(1).argmin()) for one in made]
    np.testing.assert_allclose(made, centres[order], atol=1e-3)


def test_embeddings_of_a_stream_step_by_step(grouped, trained):
    root, _ = grouped
    done = ran("infer.py", f"checkpoint={trained}", f"source.path={root / '0.wav'}", "output=embeddings", "sink=jsonl", "sink.jsonl.posteriors=true")  # fmt: skip
    steps = [json.loads(row) for row in done.stdout.splitlines()]
    assert steps and all(len(row["posteriors"]) == 16 for row in steps if row["type"] == "step")


def test_labels_that_are_known_are_compared(grouped, trained, tones, tmp_path):
    plain = [one for one in grouped[1] if not one.startswith("dataset")]
    data = ["dataset=folder", f"dataset.root={tones}", "dataset.cache=null"]
    ran("train.py", *data, *plain, f"hydra.run.dir={tmp_path}")
    row = json.loads((tmp_path / "metrics.json").read_text())["test"]
    assert row["nmi"] == pytest.approx(1) and row["ari"] == pytest.approx(1)
    assert {line["truth"] for line in read_jsonl(tmp_path / "answers.jsonl")} == {"low", "high"}


def test_a_model_of_groups_is_exported_and_streams_the_same_bits(grouped, tmp_path):
    model = load(grouped[0] / "run").for_streaming()
    export(model, tmp_path)
    graph, wave = OnnxModel(tmp_path / "model.onnx"), noise(20000)
    found, expected = (listen(Stream(one, 8), [wave])[0] for one in (graph, model))
    assert np.abs(found - expected).max() < 1e-5
    cut = listen(Stream(model, 8), np.split(wave, [3, 7000, 12345]))[0]
    assert np.array_equal(cut, expected)


@pytest.mark.parametrize(("settings", "message"), [
    ({"trainer.pretrained": "null"}, "trainer.pretrained: is not set; task=groups needs the encoder of a trained model"),
    ({"task.count": "17"}, "task.count: 17 groups of 16 clips; set fewer, or give more clips"),
    ({"head": "mean"}, "task=groups: tells groups by their centres, which another head does not have; set head=nearest"),
    ({"calibrate": "true"}, "calibrate: is of labels, which task=groups does not have"),
    ({"events": "f1"}, "events: is of labels, which task=groups does not have"),
])  # fmt: skip
def test_settings_that_do_not_suit_are_refused(grouped, tmp_path, settings, message):
    given = dict(one.split("=", 1) for one in grouped[1]) | settings
    refused(message, "train.py", *(f"{key}={value}" for key, value in given.items()), f"hydra.run.dir={tmp_path}")


def test_a_folder_of_one_class_is_grouped(grouped, trained, tmp_path):
    for split, numbers in (("train", range(16)), ("val", range(16, 20))):
        (tmp_path / "data" / split / "unsorted").mkdir(parents=True)
        for number in numbers:
            shutil.copy(grouped[0] / f"{number}.wav", tmp_path / "data" / split / "unsorted")
    plain = [one for one in grouped[1] if not one.startswith("dataset")]
    data = ["dataset=folder", f"dataset.root={tmp_path / 'data'}", "dataset.cache=null"]
    ran("train.py", *data, *plain, f"hydra.run.dir={tmp_path / 'run'}")
    one, other = (load(root / "run").head.distance.centres for root in (tmp_path, grouped[0]))
    assert torch.allclose(one, other, atol=1e-4)


def test_embeddings_of_a_stream_need_a_sink_that_writes_steps(grouped, trained):
    given = [f"checkpoint={trained}", f"source.path={grouped[0] / '0.wav'}", "output=embeddings", "sink=jsonl"]
    refused("no sink here writes; set sink=jsonl sink.jsonl.posteriors=true", "infer.py", *given)


def test_a_graph_has_no_embedding(exported):
    files = ["source=files", f"source.paths={exported}", "output=embeddings"]
    refused("needs the weights", "infer.py", f"checkpoint={exported / 'model.onnx'}", *files)
    with pytest.raises(ConfigError, match=r"a graph tells no embedding; give model\.safetensors"):
        embedding_of(OnnxModel(exported / "model.onnx"), live=True)


def test_pictures_are_no_embedding():
    size = ["extractor.height=16", "extractor.width=16"]
    model = lively_model("extractor=frames", "augment=none", "task=novelty", *size)
    with pytest.raises(ConfigError, match=r"encoder gives pictures of shape \(3, 16, 16\), no vectors; give a check"):
        embedding_of(model, live=True)
