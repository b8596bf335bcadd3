"""What several tests share: composed configurations, a small trained-looking model, real recordings if they are there."""

import copy
import csv
import functools
import gc
import io
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from filelock import FileLock
from hydra import compose, initialize_config_dir
from hypothesis import settings
from numba.core.caching import FunctionCache
from omegaconf import OmegaConf

from conf.launch import launch, to_plain
from infer import infer
from pipeline.model.classifier import Classifier, load
from pipeline.streaming.stream import Stream
from train import compare, train

ROOT = Path(__file__).resolve().parent.parent
SAVED = ROOT / "tests" / "saved"  # files of earlier versions
DATA = Path(os.environ.get("RIVULET_DATA", ROOT.parent / "shared" / "data"))
QUICK = ["encoder.hidden=16", "extractor.mels=20", "trainer.workers=0", "trainer.threads=1", "trainer.batch=8"]
PROGRAMS = {"train.py": (train, "train", compare), "infer.py": (infer, "infer")}

PICTURES = ("extractor=frames", "extractor.height=8", "extractor.width=12", "encoder=image_recurrent")
EVENTS = ("decoder.threshold=0.36", "decoder.release=0.34", "decoder.minimum=0.03", "decoder.merge=0.02",
          "decoder.refractory=0.05")  # fmt: skip
BOTH = ("extractor=audiovisual", "extractor@extractor.picture=frames", "extractor.picture.height=8",
        "extractor.picture.width=12", "encoder=recurrent", "head=mean")  # fmt: skip

signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let programs in the background ignore it

os.environ["OMP_NUM_THREADS"] = "1"  # also of the programs that tests start: tests are small, and share the cores
torch.set_num_threads(int(os.environ.get("RIVULET_TEST_THREADS", "1")))


def compile_once():
    """Of two workers that need the same kernel at the same time one compiles it; the other waits, and loads it."""
    load, save, held = FunctionCache.load_overload, FunctionCache.save_overload, {}

    def load_overload(cache, signature, context):
        name, found = cache._py_func.__module__, load(cache, signature, context)
        if found is None and name.startswith("rivulet_"):
            held[cache] = FileLock(Path(cache.cache_path).parent / f"{name}.{cache._py_func.__name__}.lock")
            held[cache].acquire(timeout=120)
            found = load(cache, signature, context)
            if found is not None:
                held.pop(cache).release()
        return found

    def save_overload(cache, signature, compiled):
        save(cache, signature, compiled)
        if cache in held:
            held.pop(cache).release()

    FunctionCache.load_overload, FunctionCache.save_overload = load_overload, save_overload


def read_once():
    """Each yaml of conf/ is read once for all compositions: 20 ms less for each, of which there are hundreds."""
    load, kept = OmegaConf.load, {}

    def load_kept(file):
        path = Path(getattr(file, "name", file))
        if ROOT / "conf" not in path.parents:
            return load(file)
        if path not in kept:
            kept[path] = load(file)
        return copy.deepcopy(kept[path])

    OmegaConf.load = staticmethod(load_kept)


compile_once()
read_once()
settings.register_profile("rivulet", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("rivulet")


def pytest_xdist_auto_num_workers():
    """One more than processors: some tests wait for servers and other programs."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else None


def pytest_collection_finish():
    """The exporter's list of operators is made once for all graphs, which torch has no public way to do: it takes a
    third of the 3 s of each graph. What is imported by now stays, and need not be searched for garbage.
    """
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))
    gc.freeze()


def configured(name="train", *overrides):
    """conf/NAME.yaml with overrides, as plain values."""
    return copy.deepcopy(composed(name, overrides))


@functools.cache
def composed(name, overrides):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return to_plain(compose(name, overrides=list(overrides)))


def options(group):
    """The names of conf/GROUP/*.yaml."""
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def lively_model(*overrides, labels=("background", "high", "low"), seed=0, times=1.5):
    """An untrained model with lively weights: its posteriors move, so equality means something."""
    torch.manual_seed(seed)
    model = Classifier(configured("train", *overrides), list(labels)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(times)
        if model.spec.picture is None:
            model.standardize.mean.fill_(-8.0)
            model.standardize.std.fill_(3.0)
    return model


def small_model(*overrides, **options):
    """Such a model of sound."""
    plain = ["encoder=recurrent", "head=mean", "encoder.hidden=16", "extractor.mels=20"]
    return lively_model(*plain, *overrides, **options)


@torch.no_grad()
def voiced(model):
    """The same model, whose gate, which has learnt nothing, opens and closes on ``noise``."""
    voice, wave = model.gate.voice, torch.from_numpy(noise(model.rate // model.hop * model.hop))[None]
    voice.net.conv4.weight *= 10
    voice.net.final_conv.bias -= voice(wave, voice.initial(1))[0].median().logit()
    return model


def listen(stream, chunks):
    """All that a stream tells of chunks (numbers are gaps), and of its end: posteriors, events and warnings."""
    posteriors, events, warnings = [], [], []
    for chunk in chain(chunks, [None]):
        if isinstance(chunk, int):
            events += stream.gap(chunk, "keep")
        else:
            events += stream.close() if chunk is None else stream.push(chunk)
            assert stream.first + len(stream.posteriors) == stream.steps
        posteriors.append(stream.posteriors)
        warnings += stream.warnings
    return np.concatenate(posteriors), events, warnings


def cut_and_restored(model, x, cuts, seed=0, block=4, share=0.5, **settings):
    """A stream of ``x`` in random pieces, put away and taken up again behind some of them, answers as one piece does, bit
    for bit. What it tells: posteriors, events, and those that were open in between; ``settings`` are of its decoder.
    """
    rng, opened, told, events = np.random.default_rng(seed), [], [], []
    whole = listen(Stream(model, block, model.decoder(**settings)), [x])
    stream = Stream(model, block, model.decoder(**settings))
    for part in np.split(x, np.sort(rng.integers(0, len(x) + 1, cuts))):
        events += stream.push(part)
        told.append(stream.posteriors)
        if rng.random() < share:
            before = stream.open
            stream = Stream.restore(model, stream.snapshot(), model.decoder(**settings))
            assert stream.open == before
            opened += before
    events += stream.close()
    assert np.array_equal(np.concatenate([*told, stream.posteriors]), whole[0]) and events == whole[1]
    return whole[0], events, opened


def noise(samples, seed=0):
    """Sound that comes and goes."""
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(samples) * (1 + np.sin(np.arange(samples) / (3000 + 50 * seed)))).astype(
        np.float32
    )


def tone_clip(path, hertz, seconds=0.6, rate=16000, seed=0):
    """A noisy tone as a file."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * hertz * t + rng.uniform(0, 6)) + 0.03 * rng.standard_normal(len(t))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave.astype(np.float32), rate)
    return path


def tone_clips(root, labels="ab", count=6, seconds=0.6, **options):
    """A folder for each label with so many tones, of the same pitch."""
    for label in labels:
        for number in range(count):
            tone_clip(root / label / f"{number}.wav", 440, seconds, seed=number, **options)
    return root


def write_table(path, rows):
    """Rows as csv; a row may lack some columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def ran(script, *arguments, **options):
    """``run``, which succeeds."""
    done = run(script, *arguments, **options)
    assert done.returncode == 0, done.stderr.decode()
    return done


def assert_resumed_exactly(folder, command):
    """Two epochs in one go and in two have the same weights; ``command``: the training that goes to a folder."""
    for name, epochs in (("whole", (2,)), ("parts", (1, 2))):
        for number in epochs:
            more = [f"trainer.resume={folder / name}"] * (folder / name).exists()
            ran(*command(folder / name), f"trainer.epochs={number}", *more)
    one, two = (load(folder / name).state_dict().values() for name in ("whole", "parts"))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def refused(message, script, *arguments, **options):
    """``run``, which ends with 2 and says so, without a traceback; all that it says."""
    done = run(script, *arguments, **options)
    text = done.stderr.decode()
    assert done.returncode == 2 and message in text and "Traceback" not in text, text
    return text


def run(script, *arguments, cwd=None, limit=300, **options):
    """A command line of this project: called in this process, or in one of its own with ``env``, ``input`` and such."""
    if options or script not in PROGRAMS:
        command = [sys.executable, str(ROOT / script), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, cwd=cwd or ROOT, timeout=limit, **options)
    printed, told = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(told), as_it_was():
        patch.chdir(cwd or ROOT)
        patch.setattr(sys, "argv", [str(ROOT / script), *map(str, arguments)])
        patch.setattr(sys, "path", [*sys.path])
        patch.setenv("RIVULET_PLUGINS", os.environ.get("RIVULET_PLUGINS", ""))
        if "export=true" not in arguments:  # it takes seconds
            patch.setattr("train.write_graphs", lambda *_: {})
        try:
            code = launch(*PROGRAMS[script])
        except SystemExit as end:
            code = end.code
        except Exception:
            code = 1
            traceback.print_exc()
    return subprocess.CompletedProcess(
        [script, *arguments], code, *(text.buffer.getvalue() for text in (printed, told))
    )


def read_csv(path):
    """The rows of a table, as text by column."""
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def read_jsonl(path):
    """The rows of a file of JSON lines, each of which is whole."""
    text = Path(path).read_bytes().decode("utf-8", "surrogateescape")
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def free_port():
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(look, seconds=60):
    """What a look finds, as soon as it finds something."""
    limit = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.005)
    return found


def certificate(path, *names):
    """A certificate of localhost that nobody vouches for, with its key; without openssl the test is skipped."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl program")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", f"subjectAltName={','.join(['DNS:localhost', *names])}", "-keyout", path]
    subprocess.run([*command, "-out", f"{path}.cert"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.cert").read_bytes())
    return path


@contextmanager
def static_server(folder):
    """The address of a server of the files in a folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextmanager
def as_it_was():
    """What a program may change of its process is put back."""
    threads, show, random = torch.get_num_threads(), warnings.showwarning, torch.get_rng_state()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(random)
        warnings.showwarning = show
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def peak_below(size):
    """Python takes so many bytes of memory at most."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


@contextmanager
def no_file_above(size):
    """As on a disk that is full: no file can have more bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def real():
    """The folder of real recordings; without it the test is skipped."""
    if not DATA.is_dir():
        pytest.skip(f"no real recordings at {DATA}; set RIVULET_DATA")
    return DATA


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """What takes long is made by one worker, for all."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def made(name, make):
        with FileLock(root / f"{name}.lock"):
            if not (root / f"{name}.done").exists():
                make(root / name)
                (root / f"{name}.done").touch()
        return root / name

    return made


@pytest.fixture(scope="session")
def learn(once):
    """The folder of a training that one worker runs for all, whose settings say ``OUT`` for it, and what it printed."""

    def learnt(name, *settings):
        def make(folder):
            done = ran("train.py", *(setting.replace("OUT", str(folder / "run")) for setting in settings))
            (folder / "printed").write_bytes(done.stdout)

        folder = once(name, make)
        return folder / "run", (folder / "printed").read_bytes()

    return learnt


@pytest.fixture(scope="session")
def tones(once):
    """A folder with two classes of twelve short clips each: low and high tones."""

    def make(folder):
        for number in range(12):
            tone_clip(folder / "low" / f"{number}.wav", 200 + 10 * number, seed=number)
            tone_clip(folder / "high" / f"{number}.wav", 2000 + 90 * number, seed=number)

    return once("tones", make)


@pytest.fixture(scope="session")
def pulses(tmp_path_factory):
    """A folder with a model, and with a recording of pulses, ``street.wav``, in which it hears things."""
    folder = tmp_path_factory.mktemp("pulses")
    small_model("head.live=0.1").save(folder / "model.safetensors")
    t = np.arange(16000 * 4) / 16000
    soundfile.write(folder / "street.wav", 0.3 * np.sin(2 * np.pi * 2000 * t) * (np.sin(2 * np.pi * 3 * t) > 0), 16000)
    return folder


@pytest.fixture(scope="session")
def trained(tones, once):
    """A run's folder: the tones, learnt by train.py as a user would call it."""

    def make(out):
        source = ["dataset=folder", f"dataset.root={tones}", f"dataset.cache={out.parent / 'cache'}"]
        ran("train.py", *source, *QUICK, "trainer.epochs=8", "export=true", f"hydra.run.dir={out}")

    return once("trained", make)


@pytest.fixture(scope="session")
def exported(once):
    """A folder with a model that hears much, and its graph."""
    from pipeline.exporting.export import export
    from pipeline.model.file import Promise

    window, sizes = ("head.window=0.3", "head.live=0.3"), ("cell=lstm", "encoder.hidden=96", "encoder.layers=2")

    def make(folder):
        model = small_model("head=max", "head.delay=0.04", *window, *sizes, *EVENTS, "encoder.dropout=0.5").train()
        model.promise = Promise(wish=1, sound="negatives", hours=2, alarms=1, below=2.4, recall=0.9, events=50)
        assert [path.name for path in export(model, folder)] == ["model.onnx"] and model.training
        model.eval().save(folder / "model.safetensors")

    return once("exported", make)


@pytest.fixture(scope="session")
def network(tmp_path_factory):
    """A file like that of Google's speech embedding, with random weights."""
    from references import write_speech_network

    path = tmp_path_factory.mktemp("speech") / "embedding_model.onnx"
    write_speech_network(path)
    return path
