"""Recordings that training data are mixed with: noises and impulse responses, decoded once and kept in memory."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.core.errors import ConfigError, MediaError
from pipeline.media.audio import read
from pipeline.media.formats import media_files


def read_recordings(given: str | list[str], rate: int, at: str, each: float, total: float) -> list[Tensor]:
    """Samples ``(N,)`` at ``rate`` Hz of files, or of those below folders: of each the first ``each`` seconds, together
    about ``total`` seconds. ``at`` is the key that named them.

    Where there is more, files are taken in an order that is the same each time but not that of their names. Files that
    cannot be read are skipped with a warning; ConfigError if nothing is left.
    """
    files = [file for name in ([given] if isinstance(given, str) else given) for file in list_files(name, at)]
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


def list_files(name: str, at: str) -> list[Path]:
    """A file, or the media files of a folder; ConfigError if there is neither."""
    path = Path(name).expanduser()
    if path.is_dir():
        return media_files(path)
    if not path.exists():
        raise ConfigError(f"{at}: there is no {name!r}; expected a folder with recordings, or a list of files")
    return [path]
