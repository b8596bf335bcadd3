"""Networks from ONNX files: tiny ones, made here."""

import copy
import pickle

import numpy as np
import pytest
import soundfile
import torch
from conftest import configured, listen, noise, ran, read_csv
from onnx import TensorProto, load_model, parser
from torch.nn.functional import conv1d

from pipeline.core.build import build
from pipeline.core.errors import ConfigError, ModelError
from pipeline.extractors.extractor import Extractor
from pipeline.extractors.logmel import LogMel
from pipeline.extractors.onnx_network import fit
from pipeline.layers.laws import check
from pipeline.model.classifier import load
from pipeline.streaming.stream import Stream

HEADER = '<ir_version: 8, opset_import: ["" : 17{}]>'
BANDS = """m (float[batch, samples] x) => (float[batch, 4] y) <float[4, 1, 8] w = {0.5, -1, 0.25, 2, 1, 0, -0.5, 1,
    1, 1, 1, 1, 1, 1, 1, 1, -1, 1, -1, 1, -1, 1, -1, 1, 0, 0, 0, 0, 0, 0, 0, 3}, int64[1] one = {1}, int64[1] last = {2}>
    { a = Unsqueeze (x, one)  b = Conv <strides = [8]> (a, w)  c = Abs (b)  y = ReduceMean <axes = [2], keepdims = 0> (c) }"""
DECAY = """m (float[n, 40] x, float[2, n, 3] h, int64 sr) => (float[n, 3] y, float[2, n, 3] hn)
    <float[40, 3] w = {WEIGHTS}, float half = {0.5}, int64[1] axes = {0}>
    { r = Cast <to = 1> (sr)  a = Div (x, r)  u = MatMul (a, w)  old = Mul (h, half)  hn = Add (old, u)
      y = ReduceSum <keepdims = 0> (hn, axes)  }"""
WEIGHTS = np.linspace(-1, 1, 120, dtype=np.float32)


def network(folder, text, domains=""):
    """A file of a network in the textual form of ONNX."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "network.onnx"
    text = text.replace("{WEIGHTS}", "{" + ", ".join(map(repr, WEIGHTS.tolist())) + "}")
    path.write_bytes(parser.parse_model(HEADER.format(domains) + text).SerializeToString())
    return path


def extractor(path, **settings):
    config = configured("train", "extractor=onnx", f"extractor.path={path}")["extractor"]
    return build(config | settings, Extractor, at="extractor")


def seen(stage, x):
    y, _ = stage(torch.as_tensor(x)[None], stage.initial(1))
    return y[0].numpy()


def test_windows_of_samples(tmp_path):
    stage, wave = extractor(network(tmp_path, BANDS), window=64, hop=16, scale=2.0, shift=0.1), noise(1600)
    assert (stage.hop, stage.out_shape) == (16, (4,))
    weights = torch.tensor([[0.5, -1, 0.25, 2, 1, 0, -0.5, 1], [1] * 8, [-1, 1] * 4, [0] * 7 + [3]])[:, None]
    past = torch.from_numpy(np.pad(wave, (48, 0)))
    windows = past.unfold(0, 64, 16)[:, None] * 2 + 0.1
    assert seen(stage, wave) == pytest.approx(conv1d(windows, weights, stride=8).abs().mean(-1).numpy(), abs=1e-5)
    check(stage, examples=2)


def test_memories_and_constants(tmp_path):
    settings = {"window": 40, "hop": 20, "states": {"h": {"out": "hn", "axis": 1}}, "constants": {"sr": 4}, "delay": 2}
    stage, wave = extractor(network(tmp_path, DECAY), **settings), noise(400)
    h, expected, past = np.zeros((2, 3)), [], np.pad(wave, (20, 0)).astype(np.float64)
    for step in range(20):
        h = h / 2 + past[20 * step : 20 * step + 40] / 4 @ WEIGHTS.reshape(40, 3)
        expected.append(h.sum(0))
    assert seen(stage, wave) == pytest.approx(np.array(expected), abs=1e-4) and stage.delay == 2
    check(stage, examples=2)


def test_mels_and_pictures_in_the_order_of_their_axes(tmp_path):
    text = "m (float[1, 12, 5] x) => (float[1, 12, 5] y) { y = Identity (x) }"  # bands first
    mels = {"_target_": "pipeline.extractors.logmel.LogMel", "mels": 12}
    stage, wave = extractor(network(tmp_path, text), takes="mels", mels=mels, window=5, hop=2), noise(3200)
    frames = np.pad(seen(LogMel(mels=12), wave), ((3, 0), (0, 0)))
    assert stage.hop == 320 and np.array_equal(seen(stage, wave)[3].reshape(12, 5), frames[6:11].T)
    check(stage, examples=1)
    text = "m (float[n, 6, 8, 3] x) => (float[n, 3] y) { y = ReduceMean <axes = [1, 2], keepdims = 0> (x) }"
    settings = {"height": 6, "width": 8, "rate": 10, "window": 1, "hop": 1, "scale": 1 / 255}
    stage = extractor(network(tmp_path, text), takes="pictures", **settings)
    images = torch.randint(0, 256, (4, 3, 6, 8), dtype=torch.uint8)
    assert seen(stage, images) == pytest.approx(images.float().mean((2, 3)).numpy() / 255, abs=1e-5)
    check(stage, examples=1)


@pytest.mark.parametrize(("shape", "declared", "expected"), [
    ((16,), ["batch", "samples"], ((0,), (1, 16))), ((16,), [None, 1, None], ((0,), (1, 1, 16))),
    ((76, 32), ["n", 76, 32, 1], ((0, 1), (1, 76, 32, 1))),
    ((5, 3, 6, 8), [1, 3, 5, 6, 8], ((1, 0, 2, 3), (1, 3, 5, 6, 8))), ((16,), [2, 16], None), ((16,), [1, 15], None),
])  # fmt: skip
def test_how_a_window_becomes_an_input(shape, declared, expected):
    assert fit(shape, declared) == expected


RANDOM = "m (float[1, 8] x) => (float[1, 8] y) { a = RandomNormalLike (x)  y = Add (a, x) }"
FOO = "m (float[1, 8] x) => (float[1, 8] y) { y = com.acme.Foo (x) }"
TWO = "m (float[1, 8] x, float[1, 8] z) => (float[1, 8] y) { y = Add (x, z) }"


@pytest.mark.parametrize(("text", "settings", "message"), [
    (RANDOM, {}, r"network\.onnx cannot be used on streams: Onnx breaks the law '\w+': .* differs by \d"),
    (FOO, {}, r"com\.acme:Foo.* is not a registered"), (TWO, {}, r"takes x, z; expected one input"),
    (TWO, {"constants": {"zz": 1}}, r"extractor\.constants: .* has no 'zz'"),
    (TWO, {"states": {"z": {"out": "n"}}}, r"network\.onnx fails with x .* Invalid output name:n"),
    (TWO, {"states": {"z": {"out": "y", "axis": 3}}}, r"extractor\.states: 'z' has the shape \[1, 8\]; expected"),
    (DECAY, {"states": {"h": {"out": "y", "axis": 1}}, "constants": {"sr": 1}, "window": 40}, r"'y' is \(1, 3\); exp"),
    (BANDS, {"window": 4, "hop": 4}, r"network\.onnx fails with x \(1, 4\)"),
    (BANDS, {"output": "q"}, r"extractor\.output: .* has no 'q'"),
    (BANDS, {"window": 4}, r"extractor\.window: 4 is less than extractor\.hop, 8"),
    (BANDS, {"window": 10, "hop": 4, "takes": "mels"}, r"extractor\.mels: expected"),
    (BANDS, {"path": "nothing.onnx"}, r"no file nothing\.onnx; expected an ONNX file"),
    (BANDS, {"path": "never-heard-of:a.onnx"}, r"'never-heard-of' is not installed: pip install never-heard-of"),
])  # fmt: skip
def test_networks_that_cannot_be_used(text, settings, message, tmp_path):
    path = network(tmp_path, text, ', "com.acme" : 1' if text is FOO else "")
    with pytest.raises(ConfigError, match=message):
        extractor(
            settings.get("path", path), **{"window": 8, "hop": 8} | {k: v for k, v in settings.items() if k != "path"}
        )


def test_numbers_in_other_files_are_refused(tmp_path, monkeypatch):
    path = network(tmp_path, DECAY)
    monkeypatch.chdir(tmp_path)
    model = load_model(path)
    tensor = model.graph.initializer[0]
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    for field in ("float_data", "raw_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "secret.bin"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConfigError, match=r"network\.onnx is refused: .*[Ee]xternal"):
        extractor(path, window=40, hop=40)
    path.write_bytes(b"junk")
    with pytest.raises(ConfigError, match=r"network\.onnx is refused"):
        extractor(path)


@pytest.mark.parametrize("keep", ["reference", pytest.param("inside", marks=pytest.mark.long)])
def test_a_model_names_its_network_or_holds_it(keep, tones, tmp_path):
    path, run = network(tmp_path / "net", BANDS), tmp_path / "run"
    part = f"{{_target_: pipeline.extractors.onnx.Onnx, path: {path}, window: 640, hop: 160, keep: {keep}}}"
    ran("train.py", "dataset=folder", f"dataset.root={tones}", "extractor=joined", f"extractor.parts=[{part},logmel]",
        "encoder=recurrent", "encoder.hidden=8", "augment=none", "trainer.workers=0", "trainer.threads=1",
        "trainer.batch=8", "trainer.epochs=1", f"hydra.run.dir={run}")  # fmt: skip
    model, wave = load(run), noise(16000)
    whole = listen(Stream(model, 3), [wave])[0]
    assert np.array_equal(whole, listen(Stream(model, 3), np.array_split(wave, 11))[0])
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert np.array_equal(whole, listen(Stream(again, 3), [wave])[0]) and again.identity() == model.identity()
    table = tmp_path / "table.csv"
    ran("infer.py", f"checkpoint={run}", "source=files", f"source.paths={tones}", "sink=csv", f"sink.csv.path={table}")
    row = read_csv(table)[0]
    samples, _ = soundfile.read(row["path"], dtype="float32")
    expected = model.clip_posteriors(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))[0].tolist()
    assert [float(row["p_high"]), float(row["p_low"])] == pytest.approx(expected, abs=1e-5)
    path.write_bytes(path.read_bytes().replace(b"Abs", b"Neg"))
    if keep == "reference":
        with pytest.raises(ModelError, match=r"network\.onnx has sha256 \w+; expected \w+: put the file"):
            load(run)
    path.unlink()
    if keep == "inside":
        assert np.array_equal(whole, listen(Stream(load(run), 3), [wave])[0])
    else:
        with pytest.raises(ModelError, match=r"no file .*network\.onnx"):
            load(run)


def test_a_network_too_large_to_be_held(tmp_path, monkeypatch):
    path = network(tmp_path, BANDS)
    monkeypatch.setattr("pipeline.extractors.onnx.INSIDE_BYTES", 100)
    with pytest.raises(ConfigError, match=r"extractor\.keep: .* bytes; expected at most 100"):
        extractor(path, window=64, hop=16, keep="inside")
    monkeypatch.setattr("pipeline.extractors.onnx_network.MAX_BYTES", 100)
    with pytest.raises(ConfigError, match=r"bytes; expected at most 100"):
        extractor(path, window=64, hop=16)


def test_a_package_s_network_that_keeps_a_state():
    """Silero VAD, as its own page calls it: 512 samples, 64 before them, and a state."""
    try:
        stage = extractor("silero-vad:silero_vad/data/silero_vad.onnx", window=576, hop=512, constants={"sr": 16000},
                          states={"state": {"out": "stateN", "axis": 1}})  # fmt: skip
    except ConfigError as error:
        pytest.skip(str(error))
    y = seen(stage, 0.1 * noise(16384))
    assert y.shape == (32, 1) and y.min() >= 0 and y.max() < 0.5
