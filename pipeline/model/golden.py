"""The answers that a model gave to the golden clip when it was saved.

The same model is given the clip again elsewhere, with other versions of libraries or on another processor. That shows
whether its answers are still the same and, if not, which stage is the first to differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.core.errors import ModelError
from pipeline.layers.stage import Chain
from pipeline.model.golden_clip import LIBRARIES, TOLERANCE, difference, library_versions

SIZE_TOLERANCE = 1e-3  # share by which a stage's mean size may differ
LOOSE_TOLERANCE = 0.02  # of a posterior: bf16, and processors that choose another algorithm for another length
OFF = "turn this check off with selftest=false"
NAMES = "golden.posteriors", "golden.sizes"  # in a model's file


@dataclass(frozen=True)
class Golden:
    """``posteriors (T, K)``; ``sizes (S,)``: the mean absolute output of each stage; ``versions`` of the libraries that
    computed them.
    """

    posteriors: NDArray[np.float32]
    sizes: NDArray[np.float32]
    versions: dict[str, str] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """The answers as they are stored in a model's file."""
        return dict(zip(NAMES, (torch.from_numpy(self.posteriors), torch.from_numpy(self.sizes)), strict=True))


def pop_golden(
    weights: dict[str, Tensor], versions: dict[str, str], shapes: tuple[tuple[int, ...], ...]
) -> Golden | None:
    """Take the golden answers out of the tensors of a file; None if there are none. ValueError for answers of other
    ``shapes`` or types, or that are not finite.
    """
    found = [tensor for name in NAMES if (tensor := weights.pop(name, None)) is not None]
    if not found:
        return None
    if tuple(tuple(tensor.shape) for tensor in found) != shapes or not all(
        tensor.is_floating_point() and bool(tensor.isfinite().all()) for tensor in found
    ):
        raise ValueError("its golden answers are not those of such a model")
    posteriors, sizes = (tensor.float().numpy() for tensor in found)
    return Golden(posteriors, sizes, versions)


@torch.inference_mode()
def offline(chain: Chain, x: Any) -> NDArray[np.float32]:
    """Posteriors ``(T, K)`` of one whole clip, a batch of one, without the steps of the delay."""
    y, _ = chain(x, chain.initial(1))
    answers: NDArray[np.float32] = y[0, chain.delay :].float().cpu().numpy()
    return answers


@torch.inference_mode()
def stage_sizes(chain: Chain, x: Any) -> NDArray[np.float32]:
    """The mean absolute output of each stage ``(S,)``."""
    found = []
    for stage in chain.stages:
        x, _ = stage(x, stage.initial(1))
        found.append(float(x.float().abs().mean()))
    return np.array(found, np.float32)


def explain_difference(chain: Chain, x: Any, golden: Golden) -> str:
    """Why answers may differ, in words: the first stage whose output differs, and versions that have changed."""
    stored = golden.sizes
    apart = np.abs(stage_sizes(chain, x) - stored) > SIZE_TOLERANCE * np.abs(stored)
    first = "no stage differs much"
    if apart.any():
        first = f"the first stage to differ is {chain.names[int(apart.argmax())]!r}"
    return f"{first}; {changed_versions(golden.versions)}"


def changed_versions(before: Mapping[str, str]) -> str:
    """Which versions have changed since, in words."""
    now = library_versions()
    names = [name for name in ("rivulet", *LIBRARIES) if name in before]
    others = {name: before[name] for name in names if before[name] != now.get(name)}
    found = [f"{name} was {old!r:.40} and is {now.get(name)!r}" for name, old in others.items()]
    return ", ".join(found) or "the versions of the libraries are the same"


def check_golden(model: Any, x: Any, streamed: NDArray[np.float32]) -> None:
    """Whether a stream's answers to the golden clip ``x`` are those of the offline path of a ``Classifier``, and these
    the ones that were stored with it; that is looked at only on the processor, with the window for streams and in full
    precision, as they were stored. ModelError says what differs.
    """
    expected = offline(model, x)[: len(streamed)]
    exact = model.precision == "fp32" and model.anchor.device.type == "cpu"
    apart = difference(streamed, expected)
    if apart > (TOLERANCE if exact else LOOSE_TOLERANCE):
        raise ModelError(
            f"self-test: the stream differs from the offline path by {apart:.2g}: a fault of the stream, or of a "
            f"stage's state; set precision=fp32 and device=cpu, or {OFF}"
        )
    golden, head = model.golden, model.config["head"]
    if golden is not None and exact and head.get("window") == head.get("live"):
        if model.gated:  # they were stored without the gate
            expected = offline(model.with_window(head.get("live")), x)[: len(expected)]
        apart = difference(expected, golden.posteriors)
        if apart > TOLERANCE:
            raise ModelError(
                f"self-test: the answers differ by {apart:.2g} from those stored with the model: "
                f"{explain_difference(model, x, golden)}; install what it was made with, save it again, or {OFF}"
            )
