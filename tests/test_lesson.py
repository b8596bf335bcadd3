"""What training is made of: losses, learning rates, averages, the order of clips, steps; against torch and scikit-learn."""

import multiprocessing
import os
import pickle
import signal
import time
import traceback
import warnings
from copy import deepcopy
from multiprocessing.reduction import ForkingPickler
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import free_port, small_model
from hypothesis import given
from hypothesis import strategies as st
from lightning_fabric import Fabric
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy

from pipeline.augmentations.augmentation import Augmentation
from pipeline.core.errors import ConfigError, DivergedError, UserError
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import IGNORE, Sample, collate
from pipeline.tasks.losses import CrossEntropy, class_weights
from pipeline.training.devices import make_fabric
from pipeline.training.loader import Loader, draw_order, plan_steps
from pipeline.training.progress import best
from pipeline.training.run import Run
from pipeline.training.schedule import rate
from pipeline.training.step import TrainingStep
from pipeline.training.trainer import Trainer
from pipeline.training.weight_average import WeightAverage

RATE = 16000


def test_losses():
    """A sum over rows: plain and weighted as torch, focal as its paper in float64."""
    torch.manual_seed(0)
    logits, targets = torch.randn(40, 5, dtype=torch.float64), torch.randint(0, 5, (40,))
    targets[::7] = IGNORE
    weights = torch.rand(5, dtype=torch.float64)
    for smoothing, mine in ((0.0, weights), (0.1, weights), (0.1, None)):
        expected = cross_entropy(logits, targets, mine, reduction="none", label_smoothing=smoothing).sum()
        ours = CrossEntropy(smoothing, 0.0, None if mine is None else mine.float())
        assert ours(logits, targets) == pytest.approx(expected.item(), rel=1e-5)
    right = logits.softmax(1)[torch.arange(40), targets.clamp_min(0)][targets != IGNORE]
    focal = -((1 - right) ** 2 * right.log()).sum().item()
    assert CrossEntropy(focal=2.0)(logits, targets) == pytest.approx(focal, rel=1e-5)
    assert CrossEntropy(0.1, 2.0, weights).of_steps == CrossEntropy(0.0, 2.0), "weights are those of clips"
    sure = torch.tensor([[40.0, 0, 0]], requires_grad=True)
    CrossEntropy(focal=0.5)(sure, torch.tensor([0])).backward()
    assert sure.grad.isfinite().all()


def test_weights_of_classes():
    classes = [0] * 10 + [1] * 3 + [2]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.array(classes))
    assert class_weights(classes, 3).tolist() == pytest.approx(expected)
    assert class_weights(classes, 5).tolist() == pytest.approx([*expected, 0, 0]), "classes that are not there"


@pytest.mark.parametrize("epochs", [3, 20])
def test_learning_rates(epochs):
    """One cycle as torch has it; the others where their ends are known."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=epochs * 200 + 1)
    for step in range(epochs * 200 + 1):
        assert rate("one_cycle", step / 200, epochs, 0.0) == pytest.approx(theirs.get_last_lr()[0], abs=0.02)
        optimizer.step()
        theirs.step() if step < epochs * 200 else None
    cosine = [rate("cosine", epoch, epochs, 1.0) for epoch in (0, 0.5, 1, (1 + epochs) / 2, epochs)]
    assert cosine == pytest.approx([0, 0.5, 1, 0.5, 0], abs=2e-3)
    assert [rate("constant", epoch, epochs, 2.0) for epoch in (1, 2, epochs)] == pytest.approx([0.5, 1, 1], abs=1e-3)
    assert rate("cosine", 0.2, epochs, 1.0, spent=0.5 / epochs) == pytest.approx(0.5, abs=1e-2), "the clock rises, too"
    assert rate("cosine", 0.75, 1, 1.0) == pytest.approx(0.5, abs=1e-2), "half of a short training"
    assert rate("cosine", 0.0, epochs, 0.0, spent=1.0) == 0.0 and rate("one_cycle", 0.0, epochs, 0.0, spent=1.0) < 1e-4


def test_averages_of_weights():
    layer = torch.nn.Linear(2, 2)
    average = WeightAverage(layer, 0.9)
    expected = layer.weight.detach().double().clone()
    for step in range(1, 200):
        with torch.no_grad():
            layer.weight.add_(torch.randn(2, 2))
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * layer.weight.detach().double()
    before, other = layer.weight.detach().clone(), WeightAverage(torch.nn.Linear(2, 2), 0.9)
    with average.applied():
        assert torch.allclose(layer.weight.double(), expected, atol=1e-4) and not torch.equal(layer.weight, before)
    other.restore(average.state())
    assert other.steps == 199 and torch.equal(other.values["weight"], average.values["weight"])
    with WeightAverage(layer, 0.0).applied():
        assert torch.equal(layer.weight, before)


@given(st.integers(1, 60), st.integers(1, 16), st.integers(1, 4), st.integers(1, 3))
def test_every_clip_is_in_one_place(clips, batch, parts, world):
    """All ranks make the same number of steps and parts, and share out the same batches as one alone."""
    order = np.random.default_rng(0).permutation(clips).tolist()
    plans = [plan_steps(order, batch, parts, rank, world) for rank in range(world)]
    assert {len(found) for found in plans} == {-(-clips // batch)}
    assert all(len(step) == parts for found in plans for step in found)
    for number, whole in enumerate(plan_steps(order, batch)):
        shared = sorted(clip for found in plans for part in found[number] for clip in part)
        assert shared == sorted(whole[0])


class Noises:
    """Clips of noise; some do what clips should not. ``once``: a file that remembers that they have."""

    epoch = 0

    def __init__(self, count=12, faults=None, once=None, spans=False):
        self.count, self.faults, self.once, self.spans = count, faults or {}, once, spans
        self.classes = [number % 3 for number in range(count)]

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        fault = self.faults.get(index)
        if fault and not (self.once and self.once.exists()):
            if self.once:
                self.once.touch()
            fault()
        rng = np.random.default_rng(index)
        length = int(rng.integers(4000, 9000))
        spans = [(1600, 3200, self.classes[index])] if self.spans else None
        return Sample((rng.standard_normal(length).astype(np.float32),), (self.classes[index],), spans)


def test_orders_of_clips():
    split = Noises(100)
    split.classes = [0] * 90 + [1] * 10
    assert sorted(draw_order(split, 1, "none", 2)) == list(range(100))
    assert draw_order(split, 1, "none", 2) == draw_order(split, 1, "none", 2) != draw_order(split, 2, "none", 2)
    drawn = [split.classes[index] for seed in range(30) for index in draw_order(split, seed, "sampling", 2)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.03)
    with pytest.raises(ConfigError, match=r"trainer\.balance"):
        draw_order(SimpleNamespace(__len__=lambda: 3), 0, "sampling", 2)


def fed(split, workers, timeout=1.5):
    found = list(Loader(InputSpec(RATE), workers, timeout).load_steps(split, plan_steps(range(len(split)), 3)))
    return [part for step in found for part in step]


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_loads_and_dies_or_hangs_has_a_successor(fault, tmp_path):
    """What comes is what would have come; other processes go on, and the handler of SIGCHLD stays."""
    expected = fed(Noises(), 0)
    other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    other.start()
    before = signal.signal(signal.SIGCHLD, mine := lambda *_: None)
    try:
        with pytest.warns(UserWarning, match="has failed, and others take its place"):
            found = fed(Noises(faults={4: lambda: os.kill(os.getpid(), fault)}, once=tmp_path / "done"), 2, 1.0)
        assert signal.getsignal(signal.SIGCHLD) is mine and other.is_alive()
    finally:
        signal.signal(signal.SIGCHLD, before)
        other.kill()
        other.join()
    for one, again in zip(expected, found, strict=True):
        assert torch.equal(one.x[0], again.x[0]) and one.labels == again.labels


def test_processes_that_always_hang_end_the_training_with_a_reason():
    faults = {4: lambda: os.kill(os.getpid(), signal.SIGSTOP)}
    with warnings.catch_warnings(), pytest.raises(UserError, match=r"again and again .*trainer\.timeout"):
        warnings.simplefilter("ignore")
        fed(Noises(faults=faults), 2, 0.7)


def test_the_time_limit_is_that_of_a_clip():
    """Three clips of 0.7 s each in a batch, where each may take a second."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slow = Noises(6, faults=dict.fromkeys(range(3), lambda: time.sleep(0.7)))
        assert [len(batch.labels) for batch in fed(slow, 2, 1.0)] == [3, 3]


@pytest.mark.parametrize("workers", [0, 2])
def test_only_a_clip_that_cannot_be_read_is_left_out(workers):
    """A mistake of a dataset's own is none."""

    def fail(error):
        raise error

    broken = dict.fromkeys((4, 6, 7, 8), lambda: fail(OSError("a broken disk")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # told by the process that loads
        found = fed(Noises(faults=broken), workers)
    assert [0 if batch is None else len(batch.labels) for batch in found] == [3, 2, 0, 3]
    with pytest.raises(RuntimeError, match="of a dataset's own") as caught:
        fed(Noises(faults={4: lambda: fail(RuntimeError("of a dataset's own"))}), workers)
    traceback.clear_frames(caught.tb)  # or the processes are waited for when these are collected


def test_a_batch_travels_through_the_pipe_not_through_shared_memory():
    """Of which containers have 64 MB."""
    spec = InputSpec(sound=16000)
    batch = collate([Sample((np.full(9000, row, np.float32),), (row,), name=str(row)) for row in range(3)], spec)
    message = ForkingPickler.dumps(batch)
    assert len(message) > batch.x[0].nbytes
    found = pickle.loads(message)
    assert torch.equal(found.x[0], batch.x[0]) and found.labels == batch.labels
    assert torch.equal(found.lengths, batch.lengths) and found.names == batch.names


class Mixing(Augmentation):
    mixup = 0.4


def lesson(model, tmp_path, augment=None, rate=0.1, frames=1.0, fabric=None):
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    settings = {"_target_": "torch.optim.SGD", "lr": rate}
    run = Run(fabric, model, "background", settings, augment, 0.0, tmp_path, {})
    run.set_rate(1.0)
    return TrainingStep(fabric, run, CrossEntropy(0.05), frames, 1e9)


def batches(*rows, spans=True):
    split = Noises(spans=spans)
    return [collate([split[index] for index in part], InputSpec(RATE)) for part in rows]


def test_the_best_epoch_is_kept_by_the_rule_of_sweeps(tmp_path):
    """The greater accuracy, however small the difference and whatever the loss; of equals the lower loss, or the first."""
    run = lesson(small_model(), tmp_path).run
    figures = [(0.9, 0.5), (0.90001, 3.0), (0.90001, 3.0), (0.90001, 2.0), (0.8, 0.1)]
    kept = []
    for number, (accuracy, loss) in enumerate(figures, 1):
        run.finish_epoch({"epoch": number, "val_accuracy": accuracy, "val_loss": loss})
        kept.append(run.progress.best_epoch)
        assert kept[-1] == best(run.progress.history)["epoch"]
    assert kept == [1, 2, 2, 4, 4]


def alike(weights, others, limit=1e-5):
    for name, tensor in weights.items():
        assert torch.allclose(tensor, others[name], atol=limit), name


@pytest.mark.parametrize("spans", [False, True])
def test_a_batch_in_parts_is_a_batch(tmp_path, spans):
    """The loss and the weights after one step are the same, however clips of different lengths are shared out."""
    ends = []
    for parts in ([[0, 1, 2, 3, 4, 5]], [[0, 2, 4], [1, 3, 5]], [[0, 1], [2, 3, 4, 5], []]):
        model = small_model()
        sums = lesson(model, tmp_path).full([batches(part, spans=spans)[0] if part else None for part in parts])
        ends.append((sums, model.state_dict()))
    for sums, weights in ends[1:]:
        assert sums == pytest.approx(ends[0][0], abs=1e-4)
        alike(weights, ends[0][1])


# Steps, as each of two processes gets its parts of them.
SHARES = {
    "short": [([[0]], [[]]), ([[4, 5]], [[6, 7]])],
    "parts": [([[0, 2], []], [[1], []]), ([[4], [5]], [[6, 7], []])],
    "blocks": [([[0, 1]], [[4, 5]]), ([[2]], [[]])],
}


def lively():
    """With a memory that is learnt, which has a gradient in first blocks alone."""
    return small_model("cell.learn_initial=true")


def one_of_two(rank, port, out):
    """What one of two processes comes to."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "1"}
    torch.set_num_threads(1)
    made = make_fabric("cpu", 2, 1, "fp32")
    made.launch()
    for case, steps in SHARES.items():
        model = lively()
        if rank:  # which only the first one's weights can mend
            torch.nn.init.zeros_(model.head.stages[0].map.weight)
        step = lesson(model, out, fabric=made)
        found = []
        for shares in steps:
            parts = [None if not part else batches(part)[0] for part in shares[rank]]
            found.append(step.truncated(parts[0], 0.1) if case == "blocks" else step.full(parts))
        torch.save({"found": found, "weights": model.state_dict()}, out / f"{case}-{rank}.pt")


@pytest.mark.long
def test_uneven_shares_of_two_devices(tmp_path):
    """Where one has no clips, or less blocks of time: the weights of both stay those of one process."""
    port = free_port()
    torch.multiprocessing.spawn(one_of_two, (port, tmp_path), nprocs=2)
    for case, steps in SHARES.items():
        model = lively()
        teach = lesson(model, tmp_path)
        others = [torch.load(tmp_path / f"{case}-{rank}.pt", weights_only=True) for rank in (0, 1)]
        for number, step in enumerate(steps):
            clips = [index for rank in step for part in rank for index in part]
            batch = batches(clips)[0]
            sums = teach.truncated(batch, 0.1) if case == "blocks" else teach.full([batch])
            assert all(other["found"][number] == pytest.approx(sums, abs=1e-4) for other in others), case
        for other in others:
            alike(model.state_dict(), other["weights"])


def test_blocks_without_an_answer_change_nothing(tmp_path):
    """Where times are not known, only the blocks in which clips end are steps."""
    model = small_model()
    teach = lesson(model, tmp_path, frames=0.0)
    teach.carry = 0.0
    sums = teach.truncated(batches([2], spans=False)[0], 0.1)
    assert sums[2] == 1 and teach.run.average.steps == 1


def test_blocks_of_time_carry_the_state(tmp_path):
    """One block is a step; and while the weights stand still, many cost what the whole clip does, and end where it does."""
    given = batches([0, 1, 2, 3])
    whole, cut = small_model(), small_model()
    expected = lesson(whole, tmp_path).full(given)
    assert lesson(cut, tmp_path).truncated(given[0], 60.0) == pytest.approx(expected, abs=1e-5)
    alike(whole.state_dict(), cut.state_dict(), 1e-6)
    still = lesson(small_model(), tmp_path, rate=0.0, frames=0.0)
    expected, ends = still.full(given), still.run.carried
    assert still.truncated(given[0], 0.1) == pytest.approx(expected, abs=1e-4)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(leaves(ends), leaves(still.run.carried), strict=True))


def test_a_library_user_only_calls_fit(tmp_path):
    """The threads are set, and the weights to begin with are loaded, by ``fit``; nothing is changed before."""
    old, new, before = small_model(seed=1), small_model(seed=2), torch.get_num_threads()
    old.save(tmp_path / "old.safetensors", {"settings": {}, "history": []})
    trainer = Trainer(1, batch=4, workers=0, threads=before + 1, pretrained=str(tmp_path / "old.safetensors"))
    assert torch.get_num_threads() == before and not trainer.console.quiet
    still = {"_target_": "torch.optim.SGD", "lr": 1e-12}
    try:
        trainer.fit(new, "background", Noises(4), Noises(4), still, None, tmp_path, {})
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    alike(old.state_dict(), new.state_dict())


def leaves(state):
    return [state] if isinstance(state, torch.Tensor) else [leaf for part in state for leaf in leaves(part)]


def test_nothing_to_learn_from_changes_nothing(tmp_path):
    model = small_model()
    before = deepcopy(model.state_dict())
    teach = lesson(model, tmp_path)
    assert teach.full([None]) == [0, 0, 0] and teach.truncated(None, 1.0) == [0, 0, 0]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("part", ["head", "encoder"])
def test_a_loss_that_is_no_number_ends_it(tmp_path, part):
    """Whether the answer or a memory is infinite."""
    model = small_model()
    with torch.no_grad():
        for parameter in getattr(model, part).parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(DivergedError, match=r"lower optimizer\.lr"):
        lesson(model, tmp_path).full(batches([0, 1]))


def test_mixed_pairs_cost_as_much_of_each(tmp_path):
    """With labels that agree, mixing does not matter for the target: the loss is that of the mixed features alone."""
    model = small_model()
    teach = lesson(model, tmp_path, Mixing(), rate=0.0)
    batch = batches([0, 3, 6], spans=False)[0]
    assert set(batch.labels) == {(0,)}
    torch.manual_seed(3)
    found = teach.full([batch])
    torch.manual_seed(3)
    share, order = float(torch.distributions.Beta(0.4, 0.4).sample()), torch.randperm(3)
    x, _ = teach.run.features.compute_augmented(batch)
    _, pooled, _ = model.logits(share * x + (1 - share) * x[order])
    answer = pooled[torch.arange(3), model.last_step(batch.lengths)]
    expected = cross_entropy(answer, torch.tensor(batch.labels)[:, 0], label_smoothing=0.05).item()
    assert found[0] / 3 == pytest.approx(expected, rel=1e-4)
