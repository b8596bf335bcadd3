"""Several extractors of sound on one hop."""

import numpy as np
import pytest
import soundfile
import torch
from conftest import configured, listen, noise, ran, read_csv, small_model
from torch import nn

from pipeline.core.build import build
from pipeline.core.errors import ConfigError
from pipeline.extractors.extractor import Extractor
from pipeline.extractors.joined import Joined
from pipeline.extractors.logmel import LogMel
from pipeline.extractors.mfcc import MFCC
from pipeline.extractors.moving_region import MovingRegion
from pipeline.extractors.optical_flow import OpticalFlow
from pipeline.extractors.texture import Texture
from pipeline.layers.laws import check
from pipeline.media.sample import Sample, collate
from pipeline.model.classifier import Classifier, load
from pipeline.model.features import Features
from pipeline.streaming.stream import Stream


class Late(LogMel):
    """Log-mel, of the sound ``delay`` steps before."""

    def __init__(self, delay, **settings):
        super().__init__(**settings)
        self.delay = delay

    def initial(self, batch):
        return super().initial(batch), self.zeros(batch, self.delay, *self.out_shape)

    def forward(self, x, state):
        y, samples = super().forward(x, state[0])
        y = torch.cat([state[1], y], 1)
        return y[:, : -self.delay], (samples, y[:, -self.delay :].clone())


class Learned(LogMel):
    """Log-mel with gains that a training changes."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.gain = nn.Parameter(torch.full(self.out_shape, 2.0))

    def forward(self, x, state):
        y, state = super().forward(x, state)
        return y * self.gain, state


def seen(extractor, wave):
    y, _ = extractor(torch.from_numpy(wave)[None], extractor.initial(1))
    return y[0].numpy()


def test_parts_of_one_hop_stand_side_by_side():
    parts, wave = [LogMel(mels=12), MFCC(mels=20, coefficients=5)], noise(8000)
    y = seen(Joined(parts), wave)
    assert np.array_equal(y, np.concatenate([seen(part, wave) for part in parts], 1))


def test_of_a_faster_part_mean_and_deviation_are_those_of_the_last_seconds():
    slow, fast, wave = Texture(every=0.1, span=0.5), LogMel(mels=12), noise(24000)
    y, frames = seen(Joined([slow, fast], span=0.5), wave), seen(fast, wave)
    assert y.shape == (15, slow.out_shape[0] + 24) and np.array_equal(y[:, :-24], seen(slow, wave))
    for step in range(15):
        window = frames[max(0, 10 * step - 40) : 10 * step + 10].astype(np.float64)  # nothing before the start counts
        assert y[step, -24:-12] == pytest.approx(window.mean(0), abs=1e-4)
        assert y[step, -12:] == pytest.approx(np.sqrt(window.var(0) + 1e-6), abs=1e-4)


def test_a_part_waits_for_the_latest():
    late, wave = Late(3, mels=8), noise(16000)
    joined = Joined([LogMel(mels=8), late, Texture(every=0.02)])
    assert (joined.hop, joined.delay) == (320, 2)
    check(joined, examples=2)
    joined = Joined([LogMel(mels=8), late])
    y = seen(joined, wave)
    assert joined.delay == 3 and np.array_equal(y[:, :8], y[:, 8:])


@pytest.mark.parametrize("parts", ["[logmel,waveform]", "[texture,logmel,mfcc]"])
def test_the_laws(parts):
    config = configured("train", "extractor=joined", f"extractor.parts={parts}")["extractor"]
    check(build(config, Extractor, at="extractor"), examples=2)


def test_each_part_is_standardised_unless_it_learns():
    target = {kind: f"pipeline.extractors.{kind.lower()}.{kind}" for kind in ("LogMel", "MFCC")}
    parts = [{"_target_": target["LogMel"], "mels": 8}, {"_target_": target["MFCC"], "coefficients": 4}]
    joined = {"_target_": "pipeline.extractors.joined.Joined", "parts": parts}
    model = Classifier(small_model().config | {"extractor": joined}, ["a", "b"])
    clips = [Sample((noise(16000, seed),), (seed % 2,)) for seed in range(4)]
    features = Features(model, None)
    features.fit(iter([collate(clips, model.spec)]))
    frames = np.concatenate([seen(model.extractor, noise(16000, seed)) for seed in range(4)])
    assert model.standardize.mean.numpy() == pytest.approx(frames.mean(0), abs=1e-3)
    assert model.standardize.std.numpy() == pytest.approx(frames.std(0), abs=1e-3)
    extractor = Joined([LogMel(mels=8), Learned(mels=4)])
    assert extractor.lasting().tolist() == [True] * 8 + [False] * 4


@pytest.mark.parametrize(("parts", "message"), [
    ("[texture,logmil]", r"extractor\.parts: there is no extractor 'logmil'; did you mean 'logmel'"),
    ("[texture,frames]", "Frames takes .*, the first part"), ("[logmel]", "at least 2 items"),
    ("[logmel,{_target_: pipeline.extractors.mfcc.MFCC,rate: 8000}]", r"MFCC takes .*8000.*, the first part .*16000"),
    ("[texture,{_target_: pipeline.extractors.logmel.LogMel,hop: 0.007}]", "a step every 112 samples, which do not"),
    ("[logmel,{_target_: pipeline.extractors.mfcc.MFCC,melz: 8}]", r"extractor\.parts\.1\.melz: .*'mels'"),
])  # fmt: skip
def test_parts_that_do_not_go_together(parts, message):
    with pytest.raises(ConfigError, match=message):
        config = configured("train", "extractor=joined", f"extractor.parts={parts}")["extractor"]
        build(config, Extractor, at="extractor")


def test_a_training_a_stream_and_files(tones, tmp_path):
    parts = "[{_target_: pipeline.extractors.texture.Texture,every: 0.04},logmel]"
    ran("train.py", "dataset=folder", f"dataset.root={tones}", "extractor=joined", f"extractor.parts={parts}",
        "encoder=recurrent", "encoder.hidden=16", "augment=light", "trainer.workers=0", "trainer.threads=1",
        "trainer.batch=8", "trainer.epochs=1", f"hydra.run.dir={tmp_path / 'run'}")  # fmt: skip
    model, wave = load(tmp_path / "run"), noise(16000)
    whole = listen(Stream(model, 3), [wave])[0]
    assert np.array_equal(whole, listen(Stream(model, 3), np.array_split(wave, 11))[0])
    table = tmp_path / "table.csv"
    ran("infer.py", f"checkpoint={tmp_path / 'run'}", "source=files", f"source.paths={tones}", "sink=csv",
        f"sink.csv.path={table}")  # fmt: skip
    row = read_csv(table)[0]
    samples, _ = soundfile.read(row["path"], dtype="float32")
    expected = model.clip_posteriors(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))[0].tolist()
    assert [float(row["p_high"]), float(row["p_low"])] == pytest.approx(expected, abs=1e-5)


def test_of_pictures_images_are_moved_and_mirrored_as_images():
    region, flow = MovingRegion(10, 48, 64), OpticalFlow(10, 48, 64, rows=6, columns=8)
    joined, x = Joined([region, flow]), torch.randint(0, 256, (2, 5, 3, 48, 64))
    y, _ = joined(x, joined.initial(2))
    parts = [part(x, part.initial(2))[0] for part in (region, flow)]
    assert torch.equal(y, torch.cat([part.flatten(2) for part in parts], -1)) and joined.compares
    mirrored = torch.cat([own.mirror(part).flatten(2) for own, part in zip((region, flow), parts, strict=True)], -1)
    assert torch.equal(joined.mirror(y), mirrored)
    changed = joined.over_images(y, lambda images: images.flip(-1) * images.shape[-1])
    assert torch.equal(changed, torch.cat([(part.flip(-1) * part.shape[-1]).flatten(2) for part in parts], -1))
    check(Joined([MovingRegion(10, 20, 24, cells=4), OpticalFlow(10, 20, 24, rows=2, columns=3)]), examples=1)
