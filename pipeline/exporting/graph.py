"""A model's step as an ONNX graph: a block of every track and the states before it to posteriors and the states after.

Inputs ``sound (B, N)`` float32, ``picture (B, T, H, W, 3)`` uint8, ``present (B, T, 2)``, or ``series (B, T, C)``
float32 in which NaN is missing, those that the model has;
``start (B, 1)``: 1 where a row begins anew, whatever its state holds (what we compute ourselves has none, and is
faster); ``state_00`` and so on. Outputs ``posteriors (B, T, K)``; ``next_00`` and so on, in the same order. The block
is fixed, the batch is not. All operators are standard ones, so that any runtime computes it.
"""

import copy
import logging
import warnings

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core.errors import ConfigError
from pipeline.exporting.native import OPSET, with_native_cells
from pipeline.layers.stage import leaves
from pipeline.layers.tracks import to_tensors
from pipeline.model.classifier import Classifier, nested
from pipeline.model.golden import offline
from pipeline.model.golden_clip import clip, library_versions
from pipeline.model.onnx_model import KEY, NEVER, NEVER_NUMBER, Card, EventCard, StateCard, seal

TRACKS = "sound", "picture", "present"
MAX_BATCH = 1 << 16
EXAMPLE_ROWS = 2  # neither 1, which an exporter takes for fixed, nor many


class Step(nn.Module):
    """The step of a causal model, with flat states."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().eval()
        with_native_cells(self.model)
        self.like = model.initial(1)
        for number, leaf in enumerate(leaves(self.like)):
            self.register_buffer(f"first_{number:02}", leaf.detach().cpu().clone())

    def forward(
        self, tracks: tuple[Tensor, ...], start: tuple[Tensor, ...], states: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Posteriors, and the next states."""
        for flag in start:
            first = [self.get_buffer(f"first_{number:02}") for number in range(len(states))]
            anew = [(flag > 0.5).view(-1, *[1] * (state.ndim - 1)) for state in states]
            states = tuple(map(torch.where, anew, first, states))
        y, after = self.model(to_tensors(self.model.spec, tracks), nested(self.like, iter(states)))
        return y, *(leaf.contiguous() for leaf in leaves(after))


def to_graph(model: Classifier, block: int, clip_window: float | None, start: bool = True) -> bytes:
    """The graph for blocks of ``block`` ticks, a multiple of the model's grain; ``clip_window``: of the head for clips;
    ``start``: whether it has that input.

    ConfigError if the model is not causal, or has a stage that cannot be exported.
    """
    if not model.causal:
        raise ConfigError("encoder: looks into the future (causal = False), so it has no step to export")
    for front, _ in model.fronts():
        if other := next((part for part in front.modules() if getattr(part, "uncounted", False)), None):
            raise ConfigError(
                f"extractor: {type(other).__name__} is computed by another library, which no graph can do"
            )
    step = Step(model)
    spec, batch = model.spec, {0: torch.export.Dim("batch", min=1, max=MAX_BATCH)}
    parts = tuple(map(torch.from_numpy, spec.stack([spec.padding(spec.empty(), block)] * EXAMPLE_ROWS)))
    states = tuple(leaf.detach().cpu().contiguous() for leaf in leaves(model.initial(EXAMPLE_ROWS)))
    example = parts, (torch.zeros(EXAMPLE_ROWS, 1),) * start, states
    dynamic = tuple(tuple(batch for _ in group) for group in example)
    tracks = TRACKS if spec.both else (TRACKS[0] if spec.sound else TRACKS[1] if spec.picture else "series",)
    numbers = [f"{number:02}" for number in range(len(states))]
    quiet = logging.getLogger("torch.onnx")
    before = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                torch.export.export(step, example, dynamic_shapes=dynamic),
                input_names=[*tracks, *["start"] * start, *(f"state_{number}" for number in numbers)],
                output_names=["posteriors", *(f"next_{number}" for number in numbers)],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # torch's exporter raises many kinds
        raise ConfigError(f"the model cannot be exported ({first_line(error)})") from error
    finally:
        quiet.setLevel(before)
    assert program is not None
    for node in program.model.graph.all_nodes():  # where each came from: as long as the weights
        node.metadata_props.clear()
    program.model.metadata_props[KEY] = card_of(model, block, clip_window).model_dump_json()
    return seal(program.model_proto.SerializeToString())


def card_of(model: Classifier, block: int, clip_window: float | None) -> Card:
    """What the graph says of itself."""
    parts = clip(model.spec, model.grain)
    ticks = model.spec.ticks(parts)
    golden = offline(model, model.pad(model.spec.stack([parts]), ticks))[: -(-ticks // model.hop)]
    decoder = model.decoder()
    return Card(
        labels=model.labels,
        link=model.link,
        config=model.config,
        spec=model.spec,
        hop=model.hop,
        grain=model.grain,
        delay=model.delay,
        block=block,
        clip_window=clip_window,
        events=EventCard(
            high=np.minimum(decoder.high, NEVER if model.task.bounded else NEVER_NUMBER).tolist(),
            low=decoder.low.tolist(),
            minimum=decoder.minimum,
            merge=decoder.merge,
            refractory=decoder.refractory,
        ),
        gated=model.gated,
        states=[StateCard.of(array) for array in model.begin(1)],
        identity=model.identity(),
        weights=model.identity(window=False),
        golden=golden.tolist(),
        versions=library_versions(),
        promise=model.promise,
    )


def first_line(error: BaseException) -> str:
    """What an error says, in short; the first cause is the one that tells."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:300]
