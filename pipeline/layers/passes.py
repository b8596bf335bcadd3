"""Stages that are no cells as one compiled pass over a chunk: what their ``lean`` calls.

The formulas are those of their ``forward``, which is the truth on any device and in training. All arrays are float32
and contiguous; ``kernels.py`` compiles this text, and keeps it.
"""

import math

import numpy as np
from numba import njit

from pipeline.layers.lean import Array
from pipeline.layers.numerics import exp, f4, multiply


@njit(nogil=True, error_model="numpy")
def affine(x: Array, weight: Array, bias: Array) -> Array:
    """W x + b: ``(B, T, F)`` to ``(B, T, len(weight))``."""
    rows, steps, width = x.shape
    y = np.empty((rows * steps, len(weight)), f4)
    multiply(weight, bias, x.reshape((rows * steps, width)), y)
    return y.reshape((rows, steps, len(weight)))


@njit(nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def normalise(x: Array, gain: Array, shift: Array, epsilon: float) -> Array:
    """LayerNorm over the last axis of ``(B, T, F)`` (Ba et al. 2016, with the biased variance)."""
    y, size = np.empty_like(x), f4(x.shape[2])
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            row, out = x[b, t], y[b, t]
            total, squares = f4(0.0), f4(0.0)
            for k in range(len(row)):
                total += row[k]
            mean = total / size
            for k in range(len(row)):
                squares += (row[k] - mean) * (row[k] - mean)
            scale = f4(1.0) / np.sqrt(squares / size + f4(epsilon))
            for k in range(len(row)):
                out[k] = (row[k] - mean) * scale * gain[k] + shift[k]
    return y


@njit(nogil=True, error_model="numpy")
def convolve(x: Array, past: Array, weight: Array, bias: Array, stride: int, dilation: int) -> tuple[Array, ...]:
    """A causal convolution, ``weight (channels, F, kernel)``: ``(B, T*stride, F)`` behind what is ``past`` to
    ``(B, T, channels)``, and what is remembered.
    """
    rows, (channels, size, kernel) = len(x), weight.shape
    steps, joined = x.shape[1] // stride, np.concatenate((past, x), axis=1)
    seen, y = np.empty((rows * steps, size * kernel), f4), np.empty((rows * steps, channels), f4)
    for b in range(rows):
        for t in range(steps):
            out = seen[b * steps + t]
            for k in range(kernel):
                row = joined[b, t * stride + k * dilation]
                for f in range(size):
                    out[f * kernel + k] = row[f]
    multiply(weight.reshape((channels, size * kernel)), bias, seen, y)
    return y.reshape((rows, steps, channels)), joined[:, x.shape[1] :].copy()


@njit(nogil=True, error_model="numpy")
def gelu(x: Array) -> Array:
    """Each x times the normal distribution's share below x (Hendrycks & Gimpel 2016)."""
    y, flat = np.empty_like(x), x.reshape(x.size)
    out = y.reshape(x.size)
    for k in range(x.size):
        out[k] = flat[k] * f4(0.5 + 0.5 * math.erf(flat[k] * 0.7071067811865476))
    return y


@njit(nogil=True, error_model="numpy")
def smooth(x: Array, decay: float, average: Array, weight: Array) -> tuple[Array, ...]:
    """Softmax and moving average: logits ``(B, T, K)``, ``average (B, K)`` and ``weight (B, 1)`` before to the
    posteriors, and both after.
    """
    y, average, weight, keep, gain = np.empty_like(x), average.copy(), weight.copy(), f4(decay), f4(1.0 - decay)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            row, out = x[b, t], y[b, t]
            top, total = row[0], f4(0.0)
            for k in range(1, len(row)):
                top = row[k] if row[k] > top else top  # row.max() and slices that are written take seconds to compile
            for k in range(len(row)):
                below = row[k] - top
                out[k] = exp(f4(-80.0) if below < f4(-80.0) else below)  # NaN is not below and comes through
                total += out[k]
            weight[b, 0] = keep * weight[b, 0] + gain
            for k in range(len(row)):
                average[b, k] = keep * average[b, k] + gain * (out[k] / total)
                out[k] = average[b, k] / weight[b, 0]
    return y, average, weight


@njit(nogil=True, error_model="numpy")
def smooth_each(x: Array, decay: float, average: Array, weight: Array) -> tuple[Array, ...]:
    """The same with a sigmoid of each logit instead of the softmax."""
    y, average, weight, keep, gain = np.empty_like(x), average.copy(), weight.copy(), f4(decay), f4(1.0 - decay)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            row, out = x[b, t], y[b, t]
            weight[b, 0] = keep * weight[b, 0] + gain
            for k in range(len(row)):
                below = -abs(row[k])
                part = exp(f4(-80.0) if below < f4(-80.0) else below)  # NaN is not below and comes through
                there = (f4(1.0) if row[k] > f4(0.0) else part) / (f4(1.0) + part)
                average[b, k] = keep * average[b, k] + gain * there
                out[k] = average[b, k] / weight[b, 0]
    return y, average, weight


@njit(nogil=True, error_model="numpy")
def running_mean(x: Array, past: Array, seen: Array) -> tuple[Array, ...]:
    """Mean of the newest steps: logits ``(B, T, K)``, ``past (B, window - 1, K)`` and the steps ``seen (B, 1)`` before
    to the means, and both after.
    """
    (rows, steps, classes), before = x.shape, past.shape[1]
    y, joined = np.zeros_like(x), np.concatenate((past, x), axis=1)
    for b in range(rows):
        for t in range(steps):
            out = y[b, t]
            last = t + before + 1
            for s in range(t, last - 3, 4):
                for k in range(classes):
                    out[k] += (joined[b, s, k] + joined[b, s + 1, k]) + (joined[b, s + 2, k] + joined[b, s + 3, k])
            for s in range(last - (before + 1) % 4, last):
                for k in range(classes):
                    out[k] += joined[b, s, k]
            count = f4(min(seen[b, 0] + t + 1, before + 1))
            for k in range(classes):
                out[k] /= count
    return y, joined[:, steps:].copy(), seen + steps


@njit(nogil=True, error_model="numpy")
def mel_power(
    x: Array, past: Array, hop: int, hann: Array, inner: Array, twist: Array, outer: Array, filters: Array
) -> tuple[Array, ...]:
    """Mel power of a few frames: samples ``(B, T*hop)`` and those ``past`` to ``(B, T, mels)`` and what is remembered.

    The transform of N = a b samples as two products (Cooley & Tukey 1965): with n = b i + n' and k = k' + a j,
    X(k) = sum over n' of [e^(-2 pi i n' k' / N) sum over i of x(n) e^(-2 pi i i k' / a)] e^(-2 pi i n' j / b).
    The tables are those of ``spectral.waves``; rows of numbers are the real parts, then the imaginary ones.
    """
    rows, steps, window = len(x), x.shape[1] // hop, len(hann)
    b, a, half = len(twist), twist.shape[1] // 2, len(outer) // 2
    joined, zeros = np.concatenate((past, x), axis=1), np.zeros(max(len(inner), len(outer), len(filters)), f4)
    folded, first = np.zeros((b, a), f4), np.empty((b, 2 * a), f4)
    turned, second = np.empty((a, 2 * b), f4), np.empty((a, 2 * half), f4)
    power, y = np.empty((rows * steps, half * a), f4), np.empty((rows * steps, len(filters)), f4)
    for f in range(rows * steps):
        frame = joined[f // steps, f % steps * hop :]
        for i in range(a):
            for n in range(min(b, window - b * i)):
                folded[n, i] = frame[b * i + n] * hann[b * i + n]
        multiply(inner, zeros, folded, first)
        for n in range(b):
            z, w = first[n], twist[n]
            for k in range(a):
                turned[k, n] = z[k] * w[k] - z[a + k] * w[a + k]
                turned[k, b + n] = z[k] * w[a + k] + z[a + k] * w[k]
        multiply(outer, zeros, turned, second)
        for j in range(half):
            for k in range(a):
                power[f, a * j + k] = second[k, j] * second[k, j] + second[k, half + j] * second[k, half + j]
    multiply(filters, zeros, power, y)
    return y.reshape((rows, steps, len(filters))), joined[:, x.shape[1] :].copy()
