"""engine=ray: the rows of one machine, from a cluster whose processes die.

Ray is no requirement: `make test-ray` runs this in an environment of its own.
"""

import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT, read_jsonl, refused, run, small_model, tone_clip, until

from pipeline.batch.batch import Work
from pipeline.batch.listing import Entry

there = importlib.util.find_spec("ray") is not None
ray = pytest.mark.skipif(not there, reason="Ray is not installed; run `make test-ray`")
FILES = 60


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    small_model().save(path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Tones of several lengths, and what is none: a text, an empty file, a name that is no UTF-8."""
    folder = tmp_path_factory.mktemp("files") / "all"
    for number in range(FILES - 3):
        tone_clip(folder / "ab"[number % 2] / f"{number:02}.wav", 200 + 40 * number, 0.3 + 0.1 * (number % 9))
    (folder / "a" / "text.wav").write_text("no sound" * 100)
    (folder / "b" / "empty.wav").touch()
    os.rename(tone_clip(folder / "a" / "new.wav", 500), os.fsencode(folder / "a" / "old") + b"\xff.wav")
    return folder


def command(model, folder, out, *settings):
    """Of infer.py: csv and jsonl of the events of a folder, whose name is relative to where it runs."""
    sinks = ["sink=[csv,jsonl]", f"sink.csv.path={out}.csv", f"sink.jsonl.path={out}.jsonl", "output=events"]
    return ["infer.py", f"checkpoint={model}", "source=files", f"source.paths={folder.name}", *sinks, *settings]


def classified(model, folder, out, *settings):
    """Run that, and what is told on the side."""
    done = run(*command(model, folder, out, *settings), cwd=folder.parent, env=os.environ)  # Ray reads some of it once
    told = done.stderr.decode()
    assert done.returncode == 3, told  # some files are errors
    assert not done.stdout and "[" not in told.split("files,")[0], told  # nothing of Ray's
    return told


def written(out):
    return Path(f"{out}.csv").read_bytes(), Path(f"{out}.jsonl").read_bytes()


def ledger(out):
    """The keys of the rows that are in a ledger."""
    try:
        lines = Path(f"{out}.csv.ledger").read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [found["key"] for line in lines if "key" in (found := json.loads(line[9:]))]


@pytest.fixture(scope="module")
def alone(model, files, tmp_path_factory):
    """What one machine says."""
    out = tmp_path_factory.mktemp("alone") / "out"
    classified(model, files, out)
    rows = read_jsonl(f"{out}.jsonl")
    assert len(rows) == FILES and sum(row["status"] == "error" for row in rows) == 2
    return written(out)


def below(pid):
    """The processes that a process has started, and those that they have: how they are called, by number."""
    found, parents = {pid: ""}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    while more := [child for child, parent in parents.items() if parent in found and child not in found]:
        for child in more:
            try:
                found[child] = (Path("/proc") / str(child) / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                found[child] = ""
    return found


def alive(pids):
    """Which of these processes have not ended."""
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        found += [pid] if state != "Z" else []
    return found


@contextmanager
def started(model, files, out, *settings):
    """infer.py on the way, with some rows done."""
    arguments = [sys.executable, str(ROOT / "infer.py"), *command(model, files, out, *settings)[1:]]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    program = subprocess.Popen(arguments, cwd=files.parent, start_new_session=True, **pipes)
    try:
        known = len(ledger(out))
        until(lambda: len(ledger(out)) > known or program.poll() is not None)
        yield program
    finally:
        program.kill()
        program.communicate()


@ray
def test_the_rows_are_those_of_one_machine(model, files, alone, tmp_path):
    told = classified(model, files, tmp_path / "out", "engine=ray", "engine.batch=8")
    assert written(tmp_path / "out") == alone
    assert "60 files" in told


@ray
def test_a_dead_actor_costs_nothing_and_a_ledger_of_one_machine_goes_on(model, files, alone, tmp_path):
    out = tmp_path / "out"
    classified(model, files, out, f"source.paths={files.name}/a")  # half of them, by this machine
    half = ledger(out)
    with started(model, files, out, "engine=ray", "engine.batch=2") as program:
        family = below(program.pid)
        actors = [pid for pid, name in family.items() if name.startswith("ray::MapWorker")]
        assert len(actors) == 2, family
        decoders = set(below(actors[0])) - {actors[0]}
        assert decoders
        os.kill(actors[0], signal.SIGKILL)
        assert len(ledger(out)) < FILES, "too late to be of interest"
        until(lambda: not alive(decoders))  # that nobody needs any more
        family |= below(program.pid)
        _, told = program.communicate(timeout=100)
    assert program.returncode == 3, told.decode()
    assert f"{len(half)} of them were known before" in told.decode()
    keys = ledger(out)
    assert keys[: len(half)] == half and len(set(keys)) == len(keys) == FILES
    assert written(out) == alone
    until(lambda: not alive(family))


@ray
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_nobody_is_left_behind(number, code, model, files, tmp_path):
    with started(model, files, tmp_path / "out", "engine=ray", "engine.batch=1") as program:
        family = below(program.pid)
        assert any("ray::MapWorker" in name for name in family.values())
        os.killpg(program.pid, number)  # as terminals do
        program.communicate(timeout=30)
        assert program.returncode == code
        assert len(ledger(tmp_path / "out")) < FILES, "too late to be of interest"
        until(lambda: not alive(family), 30)


@ray
def test_a_cluster_that_is_there_is_used_and_stays(model, files, alone, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    port = 20_000 + os.getpid() % 10_000
    options = ["--head", "--block", f"--port={port}", "--num-cpus=2", "--include-dashboard=false"]
    short = tempfile.mkdtemp()  # names of sockets are limited
    environment = os.environ | {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0", "PYTHONPATH": ""}
    program = Path(sys.executable).with_name("ray")
    cluster = subprocess.Popen(
        [program, "start", *options, f"--temp-dir={short}"],
        cwd="/", env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        said = []
        while not said or b"Ray runtime started" not in said[-1]:
            said.append(cluster.stdout.readline())
            assert said[-1], b"".join(said)
        address = ["engine=ray", f"engine.address=127.0.0.1:{port}"]
        for out in (tmp_path / "first", tmp_path / "second"):
            classified(model, files, out, *address)
            assert written(out) == alone
        refused("engine.cpus", *command(model, files, tmp_path / "third", *address, "engine.cpus=3"), cwd=files.parent)
        assert cluster.poll() is None
        family = below(cluster.pid)
        assert not any("MapWorker" in name for name in family.values())
    finally:
        cluster.terminate()
        cluster.communicate(timeout=30)
        shutil.rmtree(short)
    until(lambda: not alive(family), 30)


@ray
@pytest.mark.filterwarnings("default")
def test_a_file_that_ends_every_actor_is_an_error(files, tmp_path):
    """Decoders die in its stead, so it takes an actor that kills itself."""
    from pipeline.batch.ray import Actor, Ray

    class Fatal(Actor):
        def results(self, entries):
            if any(entry.path.endswith("07.wav") for entry in entries.values()):
                os.kill(os.getpid(), signal.SIGKILL)
            return super().results(entries)

    engine = Ray(actors=1, batch=8)
    engine.kind = Fatal
    asked = [(number, Entry(str(files / "b" / f"{number:02}.wav"))) for number in range(1, 24, 2)]
    rows = list(engine.results(Work(small_model()), iter(asked)))
    assert sorted(number for number, _ in rows) == [number for number, _ in asked]
    for number, row in rows:
        assert (row.status, row.code) == (("error", "crashed") if number == 7 else ("ok", "")), row


@ray
def test_no_cluster_at_an_address(model, files, tmp_path):
    nowhere = ["engine=ray", "engine.address=127.0.0.1:9"]
    refused("engine.address", *command(model, files, tmp_path / "out", *nowhere), cwd=files.parent)


@pytest.mark.skipif(there, reason="Ray is installed")
def test_without_ray_it_says_what_to_install(model, files, tmp_path):
    given = command(model, files, tmp_path / "out", "engine=ray")
    refused('pip install "ray[data]" pyarrow', *given, cwd=files.parent)
    assert not Path(f"{tmp_path}/out.csv").exists()
