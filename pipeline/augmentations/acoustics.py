"""What stands between a sound and its recording: noise, rooms, microphones. Rows of samples ``(B, N)``, all at once.

Spectra are of lengths that transforms are fast for; torchaudio's ``fftconvolve`` takes the sum of the lengths as it is,
which made it some seven times as slow on seconds of sound in a room.
"""

import math

import torch
from torch import Tensor

LOUD_RATIO = 100.0  # a frame is loud down to this part of the power of the loudest: 20 dB
LOWEST_BAND_HZ = 62.5  # of an equaliser; below, a tilt is no longer followed
BANDS = 9  # of an equaliser, each an octave above the one before
FILTER_ORDER = 4  # of the Butterworth filters at the edges of a band: 24 dB an octave
REVERB_DELAY_SECONDS = 0.002  # from the direct sound to the first reflections
SILENCE = 1e-8  # of full scale: what is below is no sound


def next_fast_length(length: int) -> int:
    """The next greater length that transforms are fast for: a high power of 2, times a small number."""
    step = 1 << max(0, length.bit_length() - 4)
    return step * next(times for times in (8, 9, 10, 12, 15, 16) if step * times >= length)


def measure_level(x: Tensor, rate: int) -> Tensor:
    """RMS ``(B, 1)`` of the loud part of each row: of its 20-ms frames, those at most 20 dB below the loudest."""
    size = min(max(1, rate // 50), x.shape[1])
    power = x[:, : x.shape[1] // size * size].reshape(len(x), -1, size).square().mean(2)
    loud = power * LOUD_RATIO >= power.amax(1, keepdim=True)
    return ((power * loud).sum(1, keepdim=True) / loud.sum(1, keepdim=True)).sqrt()


def mix(x: Tensor, noise: Tensor, decibel: Tensor, rate: int, clips: bool = False) -> Tensor:
    """``x`` with noise whose RMS is ``decibel (B, 1)`` below the loud part of each row; if the noise is other
    ``clips``, that of their loud part, as their pauses and ends do not count. Silence stays silent.
    """
    rms = measure_level(noise, rate) if clips else noise.square().mean(1, keepdim=True).sqrt()
    y: Tensor = x + noise * (measure_level(x, rate) / rms.clamp(min=SILENCE) * 10 ** (-decibel / 20))
    return y


def draw_noise(rows: int, length: int) -> Tensor:
    """Noise whose power falls with frequency to a power drawn from 0 (white) to 2 (brown), for each row: Timmer &
    Koenig, "On generating power law noise", Astronomy and Astrophysics 300 (1995).
    """
    size = next_fast_length(length)
    spectrum = torch.view_as_complex(torch.randn(rows, size // 2 + 1, 2))
    logarithm = torch.arange(size // 2 + 1).clamp(min=1).log()
    spectrum[:, 0] = 0
    noise: Tensor = torch.fft.irfft(spectrum * (-torch.rand(rows, 1) * logarithm).exp(), size)
    return noise[:, :length]


def cut_excerpts(recording: Tensor, rows: int, length: int) -> Tensor:
    """Parts ``(rows, length)`` of a recording ``(N,)``, cut at random; a shorter one is repeated."""
    if len(recording) < length:
        recording = recording.repeat(-(-length // len(recording)))
    return recording.unfold(0, length, 1)[torch.randint(len(recording) - length + 1, (rows,))]


def draw_rooms(times: Tensor, direct: Tensor, rate: int) -> Tensor:
    """Impulse responses ``(B, L)`` of rooms whose sound decays by 60 dB in ``times (B, 1)`` seconds and lies ``direct
    (B, 1)`` dB below the sound that comes straight, at sample 0: exponentially decaying Gaussian noise (Polack,
    "La transmission de l'energie sonore dans les salles", 1988). Of energy 1.
    """
    after = max(1, round(REVERB_DELAY_SECONDS * rate))
    seconds = torch.arange(max(after + 1, round(float(times.max()) * rate))) / rate
    tail = torch.randn(len(times), len(seconds)) * (-math.log(1000) * seconds / times).exp()
    tail[:, :after] = 0
    tail *= 10 ** (-direct / 20) / tail.norm(dim=1, keepdim=True).clamp(min=SILENCE)
    tail[:, 0] = 1
    normed: Tensor = tail / tail.norm(dim=1, keepdim=True)
    return normed


def align_rooms(responses: list[Tensor]) -> Tensor:
    """Recorded impulse responses side by side ``(R, L)``, each from its peak on, of energy 1."""
    causal = [response[int(response.abs().argmax()) :] for response in responses]
    padded = torch.nn.utils.rnn.pad_sequence(causal, batch_first=True)
    normed: Tensor = padded / padded.norm(dim=1, keepdim=True)
    return normed


def convolve(x: Tensor, responses: Tensor) -> Tensor:
    """Each row as it sounds in its room; what rings on after the end is cut."""
    size = next_fast_length(x.shape[1] + responses.shape[1] - 1)
    return filtered(x, torch.fft.rfft(responses, size), size)


def filtered(x: Tensor, spectrum: Tensor, size: int) -> Tensor:
    """Each row with its ``spectrum`` of ``size`` samples multiplied."""
    y: Tensor = torch.fft.irfft(torch.fft.rfft(x, size) * spectrum, size)
    return y[:, : x.shape[1]]


def microphone_response(hertz: Tensor, tilt: Tensor, gains: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Amplitude ``(B, F)`` of a microphone at frequencies ``(F,)``.

    ``tilt (B, 1)`` dB an octave around 1 kHz; ``gains (B, 9)`` dB at 62.5 Hz and the octaves above, straight between
    them over log frequency; Butterworth edges at ``low`` and ``high (B, 1)`` Hz, of which 0 and infinity cut nothing.
    """
    octaves = (hertz.clamp(min=LOWEST_BAND_HZ) / LOWEST_BAND_HZ).log2()
    below = octaves.long().clamp(max=BANDS - 2)
    curve = torch.lerp(gains[:, below], gains[:, below + 1], (octaves - below).clamp(max=1))
    decibel = tilt * (octaves - math.log2(1000 / LOWEST_BAND_HZ)) + curve
    edges = (1 + (low / hertz.clamp(min=1)) ** (2 * FILTER_ORDER)) * (1 + (hertz / high) ** (2 * FILTER_ORDER))
    return (decibel * (math.log(10) / 20)).exp() * edges.rsqrt()


def filter_microphone(x: Tensor, tilt: Tensor, gains: Tensor, low: Tensor, high: Tensor, rate: int) -> Tensor:
    """Each row through a microphone of that ``response``, without delay (zero phase)."""
    size = next_fast_length(x.shape[1] + rate // 20)  # what rings before the start must not come in at the end
    hertz = torch.fft.rfftfreq(size, 1 / rate)
    return filtered(x, microphone_response(hertz, tilt, gains, low, high), size)
