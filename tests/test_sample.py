"""What training is fed: the class of every output step, also for events that are shorter than a step."""

import pytest
import torch

from pipeline.media.sample import IGNORE, Batch, StepGrid

HOP, DELAY = 640, 2


def targets(spans, steps=6):
    batch = Batch((torch.zeros(1, HOP * steps),), torch.tensor([HOP * steps]), [(1,)], [spans], [""], [""], [""])
    target = batch.targets(StepGrid(steps + DELAY, HOP, DELAY), background=0)
    assert (target[0, :DELAY] == IGNORE).all()
    return target[0, DELAY:].tolist()


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(100, 310, 1)], [1, 0, 0, 0, 0, 0]),
        ([(1700, 1710, 1)], [0, 0, 1, 0, 0, 0]),
        ([(330, 940, 1)], [1, 0, 0, 0, 0, 0]),
        ([(640, 640, 1)], [0, 1, 0, 0, 0, 0]),
        ([(3839, 3840, 1)], [0, 0, 0, 0, 0, 1]),
        ([(100, 200, 1), (250, 310, 2)], [1, 0, 0, 0, 0, 0]),
        ([(100, 160, 1), (200, 310, 2)], [2, 0, 0, 0, 0, 0]),
        ([(100, 310, 1), (0, 1920, 2)], [1, 2, 2, 0, 0, 0]),
        ([(0, 960, 1), (1000, 1100, 2), (1300, 1920, 3)], [1, 2, 3, 0, 0, 0]),
        ([(300, 800, 1), (1000, 1200, 2)], [1, 2, 0, 0, 0, 0]),
        ([(300, 500, 1), (510, 560, 2)], [1, 0, 0, 0, 0, 0]),
    ],
)  # fmt: skip
def test_every_event_owns_a_step(spans, expected):
    """The step whose middle is nearest; of two short events in one step, the longer."""
    assert targets(spans) == expected


def test_longer_events_have_the_steps_whose_middles_they_cover():
    assert targets([(0, 1280, 1), (2000, 3200, 2)]) == [1, 1, 0, 2, 2, 0]
