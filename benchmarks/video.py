"""Pictures: a step of a ConvLSTM, a step of a CNN with a GRU, and files from disk to labels, beside the peers.

    python benchmarks/video.py [convlstm] [cnn] [files] [--quick]
    python benchmarks/video.py bf16 --run RUN       what bfloat16 changes in the answers of a trained model

One thread of computation; the ways of one question take turns in one process, and medians are kept. CPU ms is
`time.process_time`, which other work on the machine hardly changes. Frames a second are by the wall clock; so before
each of these runs it waits for the machine to be idle (--patience), and tells what other work took.
All ways of a question have the same weights and are first held to the same answers (but for bfloat16). Keras joins in
where it is installed beside torch.
"""

import argparse
import copy
import functools
import importlib.util
import io
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import av
import numpy as np
import onnx
import torch
import yaml
from av.video.reformatter import VideoReformatter
from conftest import configured
from references import image_session, session_of
from table import report
from torch import nn

from pipeline.cells.lstm import ConvLSTM
from pipeline.core.build import build
from pipeline.media.video import DECODED_AHEAD
from pipeline.media.video_writer import VideoWriter
from pipeline.model.classifier import Classifier, load
from pipeline.sinks.items import Steps
from pipeline.sinks.listen import listen
from pipeline.sinks.sink import Sink
from pipeline.sources.file import File
from pipeline.streaming.stream import Stream

RATE = 30
LABELS = ["a", "b", "c", "d"]
GRU = ["encoder=recurrent", "cell=gru", "head=last", "smoothing=none", f"extractor.rate={RATE}"]
SHAPES = ["experiment=moving_shapes", f"extractor.rate={RATE}"]
SMALL = [*GRU, "extractor=frame_cnn", "encoder.hidden=128"]
MOBILE = [*GRU, "extractor=frame_cnn", "extractor.backbone=mobilenet_v3_small", "encoder.hidden=256"]


def measured(ways, budget):
    """CPU milliseconds of each way, medians of calls that take turns for ``budget`` seconds."""
    times = {name: [] for name in ways}
    for call in ways.values():
        call(), call()
    end = time.perf_counter() + budget
    while time.perf_counter() < end or len(times[next(iter(ways))]) < 15:
        for name, call in ways.items():
            begin = time.process_time()
            call()
            times[name].append(time.process_time() - begin)
    return {name: statistics.median(values) * 1e3 for name, values in times.items()}


def carried(step, *state):
    """A call without arguments: ``step(*state)`` gives the next state, first of all the answer."""
    box = [state]

    def call():
        with torch.inference_mode():
            box[0] = step(*box[0])
        return box[0][0]

    return call


def alike(ways, others, tolerance):
    """The first three answers of every way but ``others`` are the same."""
    answers = {name: [np.asarray(call()).flatten() for _ in range(3)] for name, call in ways.items()}
    first = next(iter(answers.values()))
    for name, found in answers.items():
        gap = max(np.abs(a - b).max() for a, b in zip(found, first))
        assert gap <= (0.05 if name in others else tolerance), f"{name} differs by {gap}"


def lines(what, taken):
    """Rows of the table: milliseconds, and divided by the first way's."""
    base = next(iter(taken.values()))
    return [[what, name, f"{ms:.2f}", f"{ms / base:.2f}"] for name, ms in taken.items()]


# --- (a) one step of a ConvLSTM --------------------------------------------------------------------------------------


class Naive(nn.Module):
    """As everyone writes it."""

    def __init__(self, cell):
        super().__init__()
        self.conv = nn.Conv2d(cell.in_shape[0] + cell.hidden, 4 * cell.hidden, 3, padding=1)
        self.conv.weight = nn.Parameter(torch.cat([cell.weight_ih, cell.weight_hh], 1))
        self.conv.bias = nn.Parameter(cell.bias_ih + cell.bias_hh)

    def forward(self, x, h, c):
        i, f, g, o = self.conv(torch.cat([x, h], 1)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


@functools.cache
def keras_on_one_thread():
    """Keras, and what turns a layer into a fast function."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    if keras.backend.backend() != "tensorflow":
        return keras, lambda layer: layer
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(1)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    return keras, tensorflow.function


def keras_step(naive, x):
    """A stateful ConvLSTM2D with the same weights."""
    keras, compiled = keras_on_one_thread()
    layer = keras.layers.ConvLSTM2D(naive.conv.out_channels // 4, 3, padding="same", stateful=True)
    image = keras.ops.convert_to_tensor(x.permute(0, 2, 3, 1)[:, None].contiguous().numpy())
    layer.build(image.shape)
    weight, split = naive.conv.weight.detach().permute(2, 3, 1, 0).numpy(), x.shape[1]
    layer.set_weights([weight[:, :, :split], weight[:, :, split:], naive.conv.bias.detach().numpy()])
    step = compiled(layer)
    return lambda: np.moveaxis(keras.ops.convert_to_numpy(step(image)), -1, 1)


def convlstm_ways(size):
    """Calls of one step by name, and the same with answers that can be compared."""
    torch.manual_seed(0)
    cell = ConvLSTM((3, size, size), 64).eval()
    naive, low, session = Naive(cell).eval(), copy.deepcopy(cell), image_session(cell)
    half = copy.deepcopy(naive).bfloat16()
    low.lower()
    x, zero = torch.randn(1, 3, size, size), torch.zeros(1, 64, size, size)
    short, image, none = x.bfloat16(), x.numpy(), zero.numpy()
    ways = {
        "naive PyTorch, fp32": carried(lambda h, c: naive(x, h, c), zero, zero),
        "ours, fp32": carried(lambda h, c: cell(x[:, None], (h, c))[1], zero, zero),
        "ONNX Runtime, fp32": carried(lambda h, c: session(image, h, c), none, none),
        "naive PyTorch, bf16": carried(lambda h, c: half(short, h, c), zero.bfloat16(), zero.bfloat16()),
        "ours, bf16": carried(lambda h, c: low(x[:, None], (h, c))[1], zero, zero),
    }
    if importlib.util.find_spec("keras"):
        ways["Keras, fp32"] = keras_step(naive, x)
    return ways, ways | {"naive PyTorch, bf16": lambda: ways["naive PyTorch, bf16"]().float()}


def convlstm(budget):
    rows = []
    for size in (64, 112):
        ways, answers = convlstm_ways(size)
        alike(answers, {"ours, bf16", "naive PyTorch, bf16"}, 1e-4)
        rows += lines(f"ConvLSTM 3 -> 64, {size} x {size}", measured(ways, budget))
    return rows


# --- (b) one step of a CNN with a GRU --------------------------------------------------------------------------------


class ByHand(nn.Module):
    """The model of ``MOBILE`` as one types it with torchvision and nn.GRUCell."""

    def __init__(self, model):
        super().__init__()
        recurrent = model.encoder.stages[0]
        self.net, self.norm, self.linear = model.extractor.net, recurrent.after[0], model.head.linear.map
        self.gru = nn.GRUCell(recurrent.in_shape[0], recurrent.cell.hidden)
        self.gru.load_state_dict(recurrent.cell.state_dict())
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1))
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1))

    def forward(self, picture, h):
        x = picture.permute(0, 3, 1, 2).float() / 255
        h = self.gru(self.net((x - self.mean) / self.std), h)
        return self.linear(self.norm(h)).softmax(-1), h


def exported(net, picture, h):
    """A module as a session of ONNX Runtime."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (picture, h), file, input_names=["x", "h"], output_names=["y", "h1"], dynamo=False)
    session = session_of(onnx.load_from_string(file.getvalue()))
    image = picture.numpy()
    return lambda y, h: session.run(None, {"x": image, "h": h})


def lively(model):
    """Random weights whose answers move; batch statistics as if it had been trained."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.8, 1.6)
                module.bias.uniform_(-0.3, 0.3)
    return model


def model_of(settings, *more):
    torch.manual_seed(0)
    return lively(Classifier(configured("train", *settings, *more), LABELS).eval()).for_streaming()


def pushed(model, image):
    """A call that streams one picture and gives its posteriors."""
    stream = Stream(model, 1)
    return lambda: (stream.push(image), stream.posteriors)[1]


def cnn_ways(size):
    model = model_of(MOBILE, f"extractor.height={size}", f"extractor.width={size}")
    picture = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8))
    by_hand, zero = ByHand(model).eval(), torch.zeros(1, 256)
    return {
        "eager by hand": carried(lambda y, h: by_hand(picture, h), zero, zero),
        "ours, Stream.push, fp32": pushed(model, picture.numpy()),
        "ours, Stream.push, bf16": pushed(model.with_precision("bf16"), picture.numpy()),
        "ONNX Runtime": carried(exported(by_hand, picture, zero), zero.numpy(), zero.numpy()),
    }


def cnn(budget):
    rows = []
    for size in (112, 224):
        ways = cnn_ways(size)
        alike(ways, {"ours, Stream.push, bf16"}, 1e-4)
        rows += lines(f"MobileNetV3-small + GRU 256, {size} x {size}", measured(ways, budget))
    return rows


# --- (c) files from disk to labels -----------------------------------------------------------------------------------


def made_video(path, seconds):
    """A textured picture that moves, with some noise: 640 x 480 in H.264, 30 a second."""
    rng, writer = np.random.default_rng(0), VideoWriter(path, RATE)
    texture = rng.integers(0, 160, (60, 80, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    rows, columns = np.mgrid[:480, :640]
    for number in range(seconds * RATE):
        wave = 40 * np.sin(columns / 37 + rows / 51 + number / 9) + 45 + rng.integers(0, 6, (480, 640))
        image = np.roll(texture, (2 * number, 3 * number), (0, 1)) + wave[..., None].astype(np.uint8)
        writer.write(image, number / RATE)
    writer.close()


def bare(path, convert, threads=0):
    """PyAV alone; 0: FFmpeg's choice of threads."""
    count, converter = 0, VideoReformatter()
    with av.open(str(path)) as container:
        track = container.streams.video[0]
        track.thread_type = "AUTO"
        track.codec_context.thread_count = threads
        for frame in container.decode(track):
            if convert == "anew":
                frame.to_ndarray(format="rgb24")
            elif convert:
                converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
            count += 1
    return count


class Count(Sink):
    """A sink that counts steps."""

    found = 0

    def write(self, item):
        if isinstance(item, Steps):
            self.found += len(item.posteriors)


def ours(path, model):
    """What `infer.py source=file` runs."""
    sink = Count()
    listen(model, File(str(path)), sink, 0.1)
    return sink.found


def worked():
    """Seconds that all processors have worked since they were switched on; None where the system does not tell."""
    try:
        numbers = [int(number) for number in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    except OSError:
        return None
    return (sum(numbers[:3]) + sum(numbers[5:8])) / os.sysconf("SC_CLK_TCK")


def quiet(until):
    """Wait until other work takes less than a tenth of a processor, or until that time has come."""
    while (before := worked()) is not None and time.perf_counter() < until:
        cpu, wall = time.process_time(), time.perf_counter()
        time.sleep(0.4)
        others = worked() - before - (time.process_time() - cpu)
        if others < 0.1 * (time.perf_counter() - wall):
            return


def timed(way, path, expected):
    """Frames a second, CPU milliseconds a frame, and how many processors other work took meanwhile."""
    before, wall, cpu = worked(), time.perf_counter(), time.process_time()
    count = way(path)
    assert count == expected, f"{count} pictures, expected {expected}"
    wall, cpu, after = time.perf_counter() - wall, time.process_time() - cpu, worked()
    return count / wall, cpu / count * 1e3, 0.0 if before is None else max(0.0, (after - before - cpu) / wall)


def files_ways():
    ways = {
        "PyAV to rgb24, one converter": lambda path: bare(path, "once"),
        "the same with as many decoding threads as ours": lambda path: bare(path, "once", DECODED_AHEAD),
        "PyAV, frame.to_ndarray(format='rgb24')": lambda path: bare(path, "anew"),
        "PyAV, decoded only": lambda path: bare(path, None),
    }
    models = {"ConvLSTM of experiment=moving_shapes": SHAPES, "frame_cnn small + GRU 128, 112 x 112": SMALL}
    for name, settings in models.items():
        model = model_of(settings)
        for precision in ("fp32", "bf16"):
            ways[f"ours, {name}, {precision}"] = functools.partial(ours, model=model.with_precision(precision))
    return ways


def files(seconds, rounds, patience):
    ways, until = files_ways(), time.perf_counter() + patience
    taken = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.mp4"
        made_video(path, seconds)
        for _ in range(rounds + 1):
            for name, way in ways.items():
                quiet(until)
                taken[name].append(timed(way, path, seconds * RATE))
    found = {name: [statistics.median(column) for column in zip(*runs[1:])] for name, runs in taken.items()}
    base = found["PyAV to rgb24, one converter"][0]
    return [
        [name, f"{fps:.0f}", f"{fps / base:.0%}", f"{cpu:.2f}", f"{others:.1f}"]
        for name, (fps, cpu, others) in found.items()
    ]


# --- (d) what bfloat16 changes ---------------------------------------------------------------------------------------


def bf16(run):
    """The clips of the test split one after another as one stream, in both precisions: every step counts."""
    settings = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())["dataset"]
    model = load(run / "model.safetensors").for_streaming()
    clips, answers = build(settings, at="dataset").split("test", model.spec), []
    for own in (model, model.with_precision("bf16")):
        stream, found = Stream(own), []
        for number in range(len(clips)):
            x = clips[number].x
            stream.push(x if len(x) > 1 else x[0])
            found.append(stream.posteriors)
        answers.append(np.concatenate(found))
    exact, short = answers
    gap, same = np.abs(exact - short), (exact.argmax(1) == short.argmax(1)).mean()
    name = settings["_target_"].split(".")[1]
    return [[name, len(clips), len(exact), f"{same:.3%}", f"{gap.mean():.6f}", f"{gap.max():.4f}"]]


STEPS = ["step, batch 1, state carried", "way", "CPU ms", "/ first"]
FILES = ["way", "frames a second", "of the first", "CPU ms a frame", "processors taken by other work"]
CHANGED = ["dataset", "test clips", "steps", "the same label", "mean gap of posteriors", "greatest gap"]


def asked_convlstm(quick, **_):
    note = "one step; medians of process_time, taking turns; divided by the first; torch.set_num_threads(1)"
    report("video_convlstm", STEPS, convlstm(2 if quick else 15), note)


def asked_cnn(quick, **_):
    note = (
        "a picture to posteriors; medians of process_time, taking turns; divided by the first; torch.set_num_threads(1)"
    )
    report("video_cnn", STEPS, cnn(2 if quick else 15), note)


def asked_files(quick, patience, **_):
    note = (
        f"640 x 480, H.264, {RATE} a second, disk to labels at that rate; wall clock, medians; torch.set_num_threads(1)"
    )
    report("video_files", FILES, files(*((4, 3) if quick else (10, 7)), patience), note)


def asked_bf16(run, **_):
    note = "float32 against bfloat16, the test clips one after another as one stream"
    report("video_bf16", CHANGED, bf16(run), note)


QUESTIONS = {"convlstm": asked_convlstm, "cnn": asked_cnn, "files": asked_files, "bf16": asked_bf16}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument("--patience", type=float, default=900, help="seconds to wait for an idle machine, in all")
    parser.add_argument("--run", type=Path, help="a run's folder, for bf16")
    parser.add_argument("--quick", action="store_true", help="a fraction of the time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for question in options.questions or ["convlstm", "cnn", "files"]:
        QUESTIONS[question](quick=options.quick, run=options.run, patience=options.patience)


if __name__ == "__main__":
    main()
