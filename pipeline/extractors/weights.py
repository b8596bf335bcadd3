"""Weights that other programs have stored."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.core.errors import ConfigError


def read_weights(path: Path, key: str) -> dict[str, Tensor]:
    """Tensors by name from a file that runs no code; ConfigError names ``key`` if it holds none."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{key}: {path} does not exist; expected a local .pth or .safetensors") from None
    except Exception as error:  # unpickling fails in many ways, none of which runs code
        raise ConfigError(f"{key}: {path} is no file of weights ({type(error).__name__})") from None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ConfigError(f"{key}: {path} holds no plain table of weights")
    return found
