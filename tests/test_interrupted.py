"""infer.py stopped in every way at random times: finished rows are kept, files parse, exit codes tell what happened."""

import csv
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, read_jsonl, until
from played import LIVELY

FEW, MANY = 1, 50  # trials of each kind
SECONDS, STEP = 4.0, 0.01
HOSTED = """
import json, os, resource, runpy, sys
import torch, hydra, rich.progress, pipeline.sinks.listen, pipeline.sinks.fanout, pipeline.sinks.csv, pipeline.sinks.jsonl, pipeline.sources.file
import pipeline.sinks.console, pipeline.sinks.labels, pipeline.batch.files, pipeline.extractors.logmel, pipeline.encoders.encoder, pipeline.model.classifier
import numpy
torch.set_num_threads(1)  # threads would not survive the fork
pipeline.sinks.listen.Stream(pipeline.model.classifier.load(sys.argv[1]).for_streaming(), 10).push(numpy.zeros(16000, numpy.float32))  # compiles
for line in sys.stdin:
    asked = json.loads(line)
    if "wait" in asked:
        print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
        continue
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        continue
    for number, name in ((1, asked["out"]), (2, asked["err"])):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if asked["limit"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["limit"],) * 2)
    sys.argv = ["infer.py", *asked["arguments"]]
    code = 1
    try:
        runpy.run_path("infer.py", run_name="__main__")
    except SystemExit as end:
        code = end.code
    try:
        sys.stdout.flush()
    except OSError:
        code = 120  # as Python itself ends
    os._exit(code)
"""


class Host:
    """A process that has imported all and forks for each run, as every start of Python would cost seconds."""

    def __init__(self, model):
        self.process = subprocess.Popen([sys.executable, "-c", HOSTED, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        cwd=ROOT, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip

    def ask(self, **asked):
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, arguments, out, err, limit=0):
        return self.ask(arguments=[str(argument) for argument in arguments], out=str(out), err=str(err), limit=limit)

    def wait(self, pid):
        return self.ask(wait=pid)


@pytest.fixture(scope="module")
def host(given):
    one = Host(given[0].partition("=")[2])
    yield one
    one.process.stdin.close()
    one.process.wait(10)
    one.process.stdout.close()


@pytest.fixture(scope="module")
def given(pulses):
    """A model, and what it listens to."""
    return [f"checkpoint={pulses}", f"source.path={pulses / 'street.wav'}", *LIVELY]


def trials(test):
    """A few trials in the fast tests, many in the long ones."""
    return pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.long)])(test)


def both(folder):
    return ["sink=[jsonl,csv]", f"sink.jsonl.path={folder}/rows.jsonl", f"sink.csv.path={folder}/rows.csv",
            "sink.jsonl.posteriors=true", "sink.csv.posteriors=true"]  # fmt: skip


def read_json(path):
    """Steps and events of a file whose every line is whole."""
    rows = read_jsonl(path)
    steps = [row for row in rows if row["type"] == "step"]
    assert [row["time"] for row in steps] == [round(STEP * n, 3) for n in range(1, len(steps) + 1)]
    keys = ("start", "end", "peak", "label", "score")
    events = [[row[key] for key in keys] for row in rows if row["type"] == "event"]
    return [[*row["posteriors"].values()] for row in steps], events


def read_table(path, kinds):
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n") or not text
    rows = list(csv.reader(text.splitlines()))[1:]
    return [[kind(cell) for kind, cell in zip(kinds, row, strict=True)] for row in rows]


def read_csv(folder, late=True):
    steps = read_table(folder / "rows.posteriors.csv", [float] * (5 if late else 4))
    assert [row[0] for row in steps] == [round(STEP * n, 3) for n in range(1, len(steps) + 1)]
    return [row[1:4] for row in steps], read_table(folder / "rows.csv", [float, float, float, str, float])


def size(path):
    return path.stat().st_size if path.exists() else 0


@pytest.fixture(scope="module")
def whole(host, given, tmp_path_factory):
    """Steps and events of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    code = host.wait(host.start([*given, *both(folder)], folder / "out", folder / "err"))
    assert code == 0, (folder / "err").read_text()
    steps, events = read_json(folder / "rows.jsonl")
    assert len(steps) == SECONDS / STEP and len(events) >= 5 and (steps, events) == read_csv(folder, late=False)
    return steps, events


@trials
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(host, given, whole, tmp_path, count, sign, code):
    rng = random.Random(int(sign))
    lengths = set()
    for first in range(0, count, 2):
        running = []
        for trial in range(first, first + 2):
            folder = tmp_path / str(trial)
            folder.mkdir()
            settings = [*given, *both(folder), "source.realtime=true"]
            running.append((folder, host.start(settings, folder / "out", folder / "err")))
        for folder, pid in running:
            until(lambda: size(folder / "rows.posteriors.csv"))  # noqa: B023 - called at once
            time.sleep(rng.uniform(0, 0.3))
            os.kill(pid, sign)
        for folder, pid in running:
            found = host.wait(pid)
            assert found == code and "Traceback" not in (folder / "err").read_text(), (folder / "err").read_text()
            steps, events = read_json(folder / "rows.jsonl")
            assert (steps, events) == read_csv(folder)
            assert steps == whole[0][: len(steps)] and len(steps) >= 10
            now = round(len(steps) * STEP, 3)  # events that were open have ended here
            assert [e for e in events if e[1] < now] == [e for e in whole[1] if e[1] < now]
            assert all(event[1] <= now for event in events)
            lengths.add(len(steps))
    assert len(lengths) > 1 or count == FEW


@trials
def test_a_disk_that_becomes_full(host, given, whole, tmp_path, count):
    rng = random.Random(0)
    for trial in range(count):
        folder = tmp_path / str(trial)
        folder.mkdir()
        pid = host.start([*given, *both(folder)], folder / "out", folder / "err", limit=rng.randint(200, 25_000))
        assert host.wait(pid) == 74, (folder / "err").read_text()
        told = (folder / "err").read_text()
        assert "Traceback" not in told and "File too large" in told and "rows.jsonl" in told
        steps, events = read_json(folder / "rows.jsonl")
        assert steps == whole[0][: len(steps)] and events == whole[1][: len(events)] and len(steps) < len(whole[0])
        if "the others go on" in told and told.count("File too large") == 1:
            assert read_csv(folder, late=False) == whole
        elif size(folder / "rows.posteriors.csv"):
            beside = read_table(folder / "rows.posteriors.csv", [float] * 4)
            assert [row[1:] for row in beside] == whole[0][: len(beside)] and len(beside) >= len(steps)


@pytest.mark.parametrize("sink", ["jsonl", "csv", "console"])
def test_standard_output_without_room(host, given, tmp_path, sink):
    pid = host.start([*given, f"sink={sink}"], "/dev/full", tmp_path / "err")
    told = (tmp_path / "err").read_text() if host.wait(pid) == 74 else pytest.fail((tmp_path / "err").read_text())
    assert "No space left on device" in told and "Traceback" not in told and told.count("\n") == 1


@trials
@pytest.mark.parametrize("sink", ["jsonl", "console"])
def test_a_reader_that_goes(host, given, whole, tmp_path, count, sink):
    rng = random.Random(0)
    for trial in range(count):
        folder = tmp_path / str(trial)
        folder.mkdir()
        os.mkfifo(folder / "pipe")
        settings = [f"sink=[{sink},labels]", f"sink.{sink}.posteriors=true", f"sink.labels.path={folder}/labels.txt"]
        pid = host.start([*given, *settings], folder / "pipe", folder / "err")
        wanted, data = rng.randint(1, 4000), b""
        with open(folder / "pipe", "rb", buffering=0) as pipe:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)  # so that not all fits in
            while len(data) < wanted and (part := pipe.read(min(64, wanted - len(data)))):
                data += part
        assert host.wait(pid) == 74 and "Traceback" not in (folder / "err").read_text(), (folder / "err").read_text()
        assert len(data) == wanted
        if sink == "jsonl":
            steps = [json.loads(line) for line in data.decode().split("\n")[:-1]]
            found = [[*row["posteriors"].values()] for row in steps if row["type"] == "step"]
            assert found == whole[0][: len(found)]
        assert len((folder / "labels.txt").read_text().splitlines()) == len(whole[1])  # the other sink goes on
