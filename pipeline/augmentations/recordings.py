"""Recordings that training data are mixed with: noises and impulse responses, decoded once and kept in memory."""

import warnings

import numpy as np
import torch
from torch import Tensor

from pipeline.core.errors import ConfigError, MediaError
from pipeline.media.audio import read
from pipeline.media.walk import list_files


def read_recordings(given: str | list[str], rate: int, at: str, each: float, total: float) -> list[Tensor]:
    """Samples ``(N,)`` at ``rate`` Hz of files, or of those below folders: of each the first ``each`` seconds, together
    about ``total`` seconds. ``at`` is the key that named them.

    Where there is more, files are taken in an order that is the same each time but not that of their names. Files that
    cannot be read are skipped with a warning; ConfigError if nothing is left.
    """
    files = list_files(given, at)
    found, seconds = list[Tensor](), 0.0
    for number in np.random.default_rng(0).permutation(len(files)):
        if seconds >= total:
            warnings.warn(f"{at}: took {len(found)} of {len(files)} files: {total:g} s are enough", stacklevel=2)
            break
        try:
            samples = torch.from_numpy(read(files[number], rate, end=each)[0])
        except MediaError as error:
            warnings.warn(f"{at}: skipped {files[number]}: {error}", stacklevel=2)
            continue
        if samples.any():
            found.append(samples)
            seconds += len(samples) / rate
    if not found:
        raise ConfigError(f"{at}: found no sound in {given!r}; expected a folder with recordings, or a list of files")
    return found
