"""How fast are whole folders classified, from compressed files to a csv, beside the usual ways?

    python benchmarks/batch.py [--rounds 5] [--seconds 3600] [--sets sc12 fsdd ...] [--memory]

Decode, 16 kHz, log-mel (64), two GRU layers of 128, a softmax answer for each file, a row of a csv. The ways:

* ours, classify: pipeline.batch.batch.classify, two processes decode;
* ours, infer.py: the whole program with its ledger, less the time that it takes for one file (its start);
* a loop: librosa.load(path, sr=16000), torchaudio's MelSpectrogram, log, nn.GRU, file after file;
* a DataLoader: two workers (soundfile, and soxr where the rate differs), batches of 32 padded to their longest, then
  torchaudio and nn.GRU in the main process.

Each is a process of its own, warmed up with a few files, with torch.set_num_threads(1), on all cores (two are enough);
the ways take turns, and the figures are medians over the rounds. "x real time": seconds of sound in a second by the clock
on the wall. "CPU": work of all processes of a way for a second of sound, and for a file, without its start (which says more than the
clock where others use the machine, too). Computing alone: decoded sound is handed to the batch, one core,
in CPU time.

Sets: of the real recordings (../shared/data, or RIVULET_DATA) sc12 (ogg, 1 s), fsdd (wav, 8 kHz, 0.4 s) and esc10 (ogg,
22 kHz, 5 s); made anew in a temporary folder: wavs of 10 s and of 1 s at 16 kHz. --seconds: of sound in a set, at most.

--memory: instead, what the main process of infer.py holds while it classifies 100,000 wavs of 0.1 s.
"""

import argparse
import csv
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of numpy; before it is imported
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
import soundfile
import torch
from table import report  # beside this file

from pipeline.exporting.export import export

DATA = Path(os.environ.get("RIVULET_DATA", ROOT.parent / "shared" / "data"))
REAL = ("sc12", "fsdd", "esc10")
MADE = {"wav 10 s": 10.0, "wav 1 s": 1.0}
OURS, INFER, LOOP, LOADER = "ours, classify", "ours, infer.py", "a loop", "a DataLoader"
WAYS = (OURS, INFER, LOOP, LOADER)
RATE, BATCH, WORKERS, WARM = 16_000, 32, 2, 64
SUBREAPER = 36  # of prctl: who adopts grandchildren, and so learns how much they have worked


# ---- the ways, each in a process of its own


def by_classify(paths, model):
    from pipeline.batch.batch import Work, classify
    from pipeline.batch.listing import Entry

    work = Work(model, workers=WORKERS)
    for _, result in classify(work, ((number, Entry(path)) for number, path in enumerate(paths))):
        yield result.path, result.label, result.score


class Network(torch.nn.Module):
    """torchaudio's log-mel, nn.GRU, the mean over the steps of each clip, softmax."""

    def __init__(self, labels):
        import torchaudio

        super().__init__()
        self.labels = labels
        self.mel = torchaudio.transforms.MelSpectrogram(
            RATE, 512, 400, 160, 20.0, n_mels=64, norm="slaney", mel_scale="slaney"
        )
        self.gru = torch.nn.GRU(64, 128, 2, batch_first=True)
        self.linear = torch.nn.Linear(128, len(labels))

    @torch.inference_mode()
    def forward(self, x, lengths):
        y, _ = self.gru((self.mel(x).transpose(1, 2) + 1e-6).log())
        steps = lengths // 160 + 1
        mask = torch.arange(y.shape[1])[None] < steps[:, None]
        pooled = (y * mask[..., None]).sum(1) / steps[:, None]
        scores, best = self.linear(pooled).softmax(1).max(1)
        return [(self.labels[index], round(score, 4)) for index, score in zip(best.tolist(), scores.tolist())]


def by_loop(paths, model):
    import librosa

    network = Network(model.labels).eval()
    for path in paths:
        wave, _ = librosa.load(path, sr=RATE)
        [(label, score)] = network(torch.from_numpy(wave)[None], torch.tensor([len(wave)]))
        yield path, label, score


class Clips(torch.utils.data.Dataset):
    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        import soxr

        wave, rate = soundfile.read(self.paths[index], dtype="float32", always_2d=True)
        wave = wave.mean(1) if wave.shape[1] > 1 else wave[:, 0]
        return index, torch.from_numpy(soxr.resample(wave, rate, RATE) if rate != RATE else wave)


def padded(clips):
    indices, waves = zip(*clips)
    return indices, torch.nn.utils.rnn.pad_sequence(waves, True), torch.tensor([len(wave) for wave in waves])


def by_loader(paths, model):
    network = Network(model.labels).eval()
    for indices, x, lengths in torch.utils.data.DataLoader(
        Clips(paths), BATCH, num_workers=WORKERS, collate_fn=padded, worker_init_fn=lambda _: torch.set_num_threads(1)
    ):
        for index, answer in zip(indices, network(x, lengths)):
            yield paths[index], *answer


def alone(paths, model):
    """Seconds of CPU time for decoded sound in batches, and of sound."""
    from pipeline.batch.batch import Batch, Work
    from pipeline.batch.decoders import Ended
    from pipeline.batch.listing import Entry
    from pipeline.media.audio import read

    waves = [read(path, RATE)[0] for path in paths]
    batch, done = Batch(Work(model)), 0
    begun = time.thread_time()
    for number, wave in enumerate(waves):
        batch.take(number, Entry(paths[number]), (wave,))
        batch.take(number, Entry(paths[number]), Ended(len(wave) / RATE, []))
        while batch.full:
            done += len(list(batch.compute()))
    while batch.open:
        done += len(list(batch.compute()))
    assert done == len(paths)
    return time.thread_time() - begun, sum(map(len, waves)) / RATE


def work(way, listing, out, checkpoint):
    """What the process of a way does; it prints how long the files took."""
    from pipeline.model.open import open_model

    torch.set_num_threads(1)
    (model, _), paths = open_model(checkpoint, live=False), Path(listing).read_text().splitlines()
    if way == "alone":
        alone(paths[:WARM], model)
        print(json.dumps(alone(paths, model)))
        return
    rows = {OURS: by_classify, LOOP: by_loop, LOADER: by_loader}[way]
    list(rows(paths[:WARM], model))
    paths = paths[WARM:]
    begun, before, count = time.perf_counter(), family_time(), 0
    with open(out, "w", newline="") as file:
        writer = csv.writer(file)
        for row in rows(paths, model):
            writer.writerow(row)
            count += 1
    assert count == len(paths), (count, len(paths))
    print(json.dumps([time.perf_counter() - begun, family_time() - before]))


def family_time():
    """CPU seconds of this process and all below it, those that have ended included."""
    facts = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        facts[int(path.parent.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    family, total = [os.getpid()], 0
    for pid in family:
        total += facts[pid][1]
        family += [child for child, (parent, _) in facts.items() if parent == pid]
    return total / os.sysconf("SC_CLK_TCK")


# ---- the plan


class Trial:
    """A folder, with a model in it, in which ways are tried."""

    def __init__(self, folder):
        self.folder, self.checkpoint = Path(folder), Path(folder) / "model.safetensors"
        model = plain_model()
        model.save(self.checkpoint)
        export(model, self.folder)
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)

    def infer(self, paths):
        """Seconds of infer.py by the clock, and of CPU time of all its processes."""
        listing, out = self.folder / "listing.csv", self.folder / "out.csv"
        listing.write_text("\n".join(["path", *paths, ""]))
        for left in self.folder.glob("out.csv*"):
            left.unlink()
        settings = [f"source.paths={listing}", "source.root=/", f"source.workers={WORKERS}", f"sink.csv.path={out}"]
        begun, before = time.perf_counter(), spent()
        self.start(ROOT / "infer.py", f"checkpoint={self.checkpoint}", "source=files", "sink=csv", *settings)
        return time.perf_counter() - begun, spent() - before

    def work(self, way, paths):
        """What ``work`` prints."""
        listing = self.folder / "listing.txt"
        listing.write_text("\n".join(paths))
        return json.loads(self.start(__file__, "--work", way, listing, self.folder / "work.csv", self.checkpoint))

    def start(self, *command):
        """The output of a Python program, when it and all that it has started have ended."""
        done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            sys.exit(done.stderr)
        try:
            while True:
                os.wait()
        except ChildProcessError:
            return done.stdout

    def figures(self, way, paths):
        """Seconds by the clock, and of CPU time, for the files alone; and by the clock of a start."""
        if way == INFER:
            few, more = self.infer(paths[:1]), self.infer(paths)
            return more[0] - few[0], more[1] - few[1], few[0]
        return *self.work(way, [*paths[:WARM], *paths]), 0.0


def spent():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Others:
    """Who else uses the machine from now on."""

    def __init__(self):
        self.begun, self.before = time.perf_counter(), self.worked()

    def worked(self):
        """CPU seconds of all others since the machine has started."""
        ticks = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
        return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK") - spent() - time.process_time()

    def __str__(self):
        cores = max(0.0, self.worked() - self.before) / (time.perf_counter() - self.begun)
        return f"meanwhile others used {cores:.2f} of {os.cpu_count()} cores"


def plain_model():
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from pipeline.model.classifier import Classifier

    torch.manual_seed(0)
    settings = ["encoder=recurrent", "encoder.layers=2", "encoder.hidden=128", "head=mean"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(compose("train", overrides=settings), resolve=True)
    model = Classifier(config, [f"class{number}" for number in range(12)]).eval()
    with torch.no_grad():
        model.standardize.mean.fill_(-8.0)
        model.standardize.std.fill_(3.0)
    return model


def made(folder, seconds, count):
    """Wavs of noise that comes and goes."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    size = round(seconds * RATE)
    for number in range(count):
        wave = 0.1 * rng.standard_normal(size) * (1 + np.sin(np.arange(size) / 900))
        soundfile.write(folder / f"{number:06}.wav", wave.astype(np.float32), RATE)
    return folder


def listed(name, folder, limit):
    """Files of a set, mixed, of ``limit`` seconds at most, and how long they are."""
    if name in MADE:
        source = made(folder / name.replace(" ", ""), MADE[name], max(1, round(limit / MADE[name])))
    elif not (source := DATA / name).is_dir():
        return [], 0.0
    found = sorted(str(path) for path in source.rglob("*") if path.suffix in {".wav", ".ogg"})
    np.random.default_rng(0).shuffle(found)
    paths, total = [], 0.0
    for path in found:
        if total < limit:
            paths.append(path)
            total += soundfile.info(path).duration
    return paths, total


def measured(trial, name, rounds, limit):
    """Rows of one set."""
    paths, total = listed(name, trial.folder, limit)
    if not paths:
        return [[name, "not there", *[""] * 6]]
    found = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            found[way].append(trial.figures(way, paths))
            print(name, way, *(f"{value:.2f}" for value in found[way][-1]), sep="  ", file=sys.stderr)
    rows = []
    for way in WAYS:
        wall, busy, start = (median(values) for values in zip(*found[way]))
        ratios = [other[0] / ours[0] for other, ours in zip(found[way], found[OURS])]
        effort = f"{1e6 * busy / total:.0f}", f"{1e3 * busy / len(paths):.2f}"
        took = f"{start:.1f}" if way == INFER else ""
        rows.append([name, len(paths), way, f"{total / wall:.0f}", f"{len(paths) / wall:.0f}", f"{median(ratios):.2f}",
                     *effort, took])  # fmt: skip
    each = [trial.work("alone", paths) for _ in range(rounds)]
    busy = median(busy for busy, _ in each)
    effort = f"{1e6 * busy / total:.0f}", f"{1e3 * busy / len(paths):.2f}"
    rows.append([name, len(paths), "ours, computing alone", f"{total / busy:.0f}", "", "", *effort, ""])
    return rows


def memory(trial, count=100_000, distinct=100):
    """Rows of what infer.py's main process holds."""
    source = made(trial.folder / "short", 0.1, distinct)
    names = trial.folder / "names"
    names.mkdir()
    files = sorted(source.iterdir())
    for number in range(count):
        (names / f"{number:06}.wav").hardlink_to(files[number % distinct])
    out = trial.folder / "out.csv"
    command = [sys.executable, ROOT / "infer.py", f"checkpoint={trial.checkpoint}", "source=files", f"source.paths={names}",
               "sink=csv", f"sink.csv.path={out}", f"source.workers={WORKERS}"]  # fmt: skip
    begun = time.perf_counter()
    program = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    marks, rows, done, last = [count // 100, count // 10, count // 2, count], [], 0, None
    with open(wait_for(Path(f"{out}.ledger")), "rb") as ledger:
        while program.poll() is None:
            done += ledger.read().count(b'{"key"')
            last = held(program.pid) or last
            while marks and done >= marks[0]:
                rows.append([f"{marks.pop(0):,} rows", f"{last:.0f}", f"{time.perf_counter() - begun:.0f}"])
            time.sleep(0.05)
    assert program.returncode == 0 and not marks, (program.returncode, done)
    rows.append(["the end", f"{last:.0f}", f"{time.perf_counter() - begun:.0f}"])
    return rows


def wait_for(path):
    while not path.exists():
        time.sleep(0.05)
    return path


def held(pid):
    """MiB that are in memory."""
    try:
        found = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    values = [line.split()[1] for line in found.splitlines() if line.startswith("VmRSS")]
    return int(values[0]) / 1024 if values else None


def main():
    if sys.argv[1:2] == ["--work"]:
        work(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--sets", nargs="+", default=[*REAL, *MADE])
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        trial, others = Trial(folder), Others()
        if options.memory:
            rows = memory(trial)
            report("batch_memory", ["when", "MiB of the main process", "s"], rows,
                   f"infer.py source=files on 100,000 wavs of 0.1 s (hard links to 100); {others}")  # fmt: skip
            return
        rows = [row for name in options.sets for row in measured(trial, name, options.rounds, options.seconds)]
        note = (
            f"whole folders, {plain_model().parameter_count():,} parameters, torch.set_num_threads(1) in every process, "
            f"{WORKERS} processes decode, medians of {options.rounds} rounds; {others}"
        )
        columns = ["set", "files", "way", "x real time", "files/s", "time / ours", "CPU us/s", "CPU ms/file", "start s"]
        report("batch", columns, rows, note)


if __name__ == "__main__":
    main()
