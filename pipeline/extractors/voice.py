"""Silero's voice activity detection: how sure it is that somebody speaks, for steps of any length at any rate.

The network (Silero Team, https://github.com/snakers4/silero-vad, MIT) hears 36 ms at a time, and was made to do so
every 32 ms. Steps of another length are divided, or several networks take turns on them, so that each hears every 30 to
60 ms. So every step is alike, and no stream waits for its turn.
"""

import math
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import pad

from pipeline.core.errors import ConfigError
from pipeline.core.package import PackageFile
from pipeline.extractors.extractor import Extractor
from pipeline.extractors.spectral import steps
from pipeline.layers.stage import State, left_context, pieces
from pipeline.media.input_spec import InputSpec

WEIGHTS = PackageFile(
    "silero-vad",
    "6.2.3",
    "silero_vad/data/silero_vad_16k.safetensors",
    "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1",
    "silero_vad-6.2.3.dist-info/licenses/LICENSE",
    "the voice activity detection of the Silero Team (MIT), its numbers as they were",
)
RATE, WINDOW, EVERY = 16000, 576, 512  # Hz; samples that are heard at a time, and from one time to the next
NEAREST = 480  # samples from one time to the next, at least: at 400, fewer words are heard
RATES = 8000, 192000  # Hz
MARGIN, BAND = (
    0.002,
    0.95,
)  # of resampling: its reach to both sides in seconds, and the share of the lower band it keeps
AT_ONCE = 512  # windows


class Network(nn.Module):
    """Windows ``(N, WINDOW)`` to what is heard ``(N, 128)``, and of its memory how sure it is, with the names of the
    file of weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, windows: Tensor) -> Tensor:
        """What is heard."""
        x = self.stft_conv(pad(windows, (0, 64), "reflect")[:, None])
        x = (x[:, :129].square() + x[:, 129:].square()).sqrt()
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = conv(x).relu()
        y: Tensor = x[:, :, 0]
        return y

    def sure(self, memory: Tensor) -> Tensor:
        """Probabilities ``(B, T)`` of memories ``(B, T, 128)``."""
        y: Tensor = self.final_conv(memory.relu().transpose(1, 2))
        return y[:, 0].sigmoid()


class Voice(Extractor):
    """Samples ``(B, T*hop)`` to probabilities of voice ``(B, T, n)``, n of them in a step (1 below 60 ms).

    The state: the samples before the chunk, and the two memories of each of the networks that take turns, the next one
    first. At another rate than 16 kHz each window is resampled by itself, and ends ``MARGIN`` earlier.
    """

    costly = True
    borrowed = WEIGHTS
    key = "extractor.path"
    resampling: Tensor

    def __init__(self, rate: PositiveInt = RATE, hop: PositiveFloat = EVERY / RATE, path: str | None = None) -> None:
        """``hop`` in seconds; ``path``: a copy of the package's file of weights. ConfigError for
        rates outside of ``RATES``.
        """
        super().__init__()
        if not RATES[0] <= rate <= RATES[1]:
            raise ConfigError(f"extractor.rate: voices are told at {RATES[0]} to {RATES[1]} Hz, not at {rate}")
        self.hop, self.path = steps(hop, rate, "hop"), path
        self.spec, self.in_shape = InputSpec(sound=rate), ()
        step, nearest = self.hop * RATE, NEAREST * rate
        times, self.turns = max(1, step // nearest), max(1, -(-nearest // step))
        self.ends = [self.hop * (number + 1) // times for number in range(times)]
        self.out_shape = (times,)
        matrix = torch.zeros(0) if rate == RATE else torch.from_numpy(resampling(rate))
        self.register_buffer("resampling", matrix, persistent=False)
        self.window = len(matrix) or WINDOW
        self.net = Network().requires_grad_(False)

    def fetch(self) -> None:
        """Read the weights from the package, or from ``path``. ConfigError if they are missing, or of another kind."""
        path = WEIGHTS.find(self.path, self.key)
        try:
            self.net.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError):
            raise ConfigError(f"{self.key}: {path} holds no weights of silero_vad_16k.safetensors") from None

    def initial(self, batch: int) -> State:
        """Silence."""
        memories = (self.zeros(batch, self.turns, 128), self.zeros(batch, self.turns, 128))
        return self.zeros(batch, max(1, self.window - self.ends[0])), memories

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All windows at once, then the memories from one to the next."""
        past, (hidden, cells) = state
        joined, past = left_context(past, x)
        starts = [past.shape[1] + end - self.window for end in self.ends]
        windows = torch.stack([joined[:, at:].unfold(1, self.window, self.hop) for at in starts], 2).flatten(0, 2)
        if self.resampling.numel():
            windows = windows @ self.resampling
        heard = torch.cat([self.net(part) for part in pieces(windows, AT_ONCE, 0)]).view(x.shape[0], -1, 128)
        memories = list(zip(hidden.unbind(1), cells.unbind(1), strict=True))
        for number in range(heard.shape[1]):
            memories.append(self.net.lstm_cell(heard[:, number], memories[number]))
        hidden, cells = (torch.stack(part, 1) for part in zip(*memories, strict=True))
        y = self.net.sure(hidden[:, self.turns :]).view(x.shape[0], -1, len(starts))
        return y, (past, (hidden[:, -self.turns :].clone(), cells[:, -self.turns :].clone()))


@cache
def resampling(rate: int) -> NDArray[np.float32]:
    """What makes windows of 16 kHz ``(N, WINDOW)`` of windows ``(N, W)`` of another rate: ``(W, WINDOW)``, the sinc of
    the lower rate under a Hann window.
    """
    size = math.ceil((WINDOW / RATE + 2 * MARGIN) * rate)
    newest = np.arange(WINDOW) / RATE - (WINDOW - 1) / RATE - MARGIN
    apart = newest[None] - (np.arange(size)[:, None] - (size - 1)) / rate  # seconds
    window = np.where(abs(apart) < MARGIN, 1 + np.cos(np.pi * apart / MARGIN), 0)
    kernel = np.sinc(BAND * min(rate, RATE) * apart) * window
    matrix: NDArray[np.float32] = (kernel / kernel.sum(0)).astype(np.float32)
    return matrix
