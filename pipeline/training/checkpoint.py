"""A training's state on disk: whole or not at all, and never a program."""

import io
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.core.atomic import atomic_write
from pipeline.core.errors import ConfigError

FILE = "last.ckpt"


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state of tensors, numbers, texts, lists and dicts. OSError leaves what was there."""
    data = io.BytesIO()
    torch.save(dict(state), data)
    with atomic_write(path) as file:
        file.write(data.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """A state from a run's folder or its last.ckpt. ConfigError if it is missing or broken."""
    path = path / FILE if path.is_dir() else path
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"trainer.resume: {path} does not exist; expected a run's folder or last.ckpt") from None
    except Exception as error:
        raise ConfigError(f"trainer.resume: {path} is no whole checkpoint ({type(error).__name__})") from None
    if not isinstance(state, dict):
        raise ConfigError(f"trainer.resume: {path} is no checkpoint of a training")
    return state


def generators() -> dict[str, Any]:
    """The state of every random generator of this process."""
    kind, keys, place, has, cached = np.random.get_state()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(place), int(has), float(cached)),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_generators(state: Mapping[str, Any]) -> None:
    """Go on drawing where that state was taken."""
    torch.set_rng_state(state["torch"])
    random.setstate(tuple(tuple(part) if isinstance(part, (list, tuple)) else part for part in state["python"]))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
