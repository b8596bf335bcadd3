"""The few functions that compiled kernels are made of.

Written so that LLVM turns loops over them into vector instructions: no branch that is not a selection, no check for
division by zero, and no assumption that NaN cannot occur (it must come through). Errors: below 1e-7 absolute.
"""

import numpy as np
from numba import njit

ELEMENTWISE = {"fastmath": {"contract"}, "error_model": "numpy"}
f4, i4 = np.float32, np.int32


@njit(**ELEMENTWISE)
def exp(x: f4) -> f4:
    """e^x for -87 < x < 88: 2^k times a polynomial (Moshier's Cephes library, expf)."""
    k = np.floor(x * f4(1.4426950408889634) + f4(0.5))
    r = x - k * f4(0.693359375)
    r = r - k * f4(-2.12194440e-4)
    p = f4(1.9875691500e-4)
    p = p * r + f4(1.3981999507e-3)
    p = p * r + f4(8.3334519073e-3)
    p = p * r + f4(4.1665795894e-2)
    p = p * r + f4(1.6666665459e-1)
    p = p * r + f4(5.0000001201e-1)
    p = p * r * r + r + f4(1.0)
    return p * i4((i4(k) + i4(127)) << i4(23)).view(f4)  # the exponent's bits


@njit(**ELEMENTWISE)
def tanh(x: f4) -> f4:
    """(1 - e^-2x) / (1 + e^-2x) of the magnitude."""
    a = abs(x)
    t = exp(f4(-2.0) * (f4(20.0) if a > f4(20.0) else a))
    y = (f4(1.0) - t) / (f4(1.0) + t)
    return y if x >= f4(0.0) else -y


@njit(**ELEMENTWISE)
def sigmoid(x: f4) -> f4:
    """1 / (1 + e^-x), without cancellation on either side."""
    a = abs(x)
    t = exp(-(f4(80.0) if a > f4(80.0) else a))
    y = f4(1.0) / (f4(1.0) + t)
    return y if x >= f4(0.0) else t * y


@njit(**ELEMENTWISE)
def hard_sigmoid(x: f4) -> f4:
    """clip(x / 6 + 1/2, 0, 1)."""
    y = x * f4(1.0 / 6.0) + f4(0.5)
    y = f4(0.0) if y < f4(0.0) else y
    return f4(1.0) if y > f4(1.0) else y


@njit(**ELEMENTWISE)
def hard_slope(y: f4) -> f4:
    """The slope of hard_sigmoid where it has the value y."""
    return f4(1.0 / 6.0) if (y > f4(0.0)) & (y < f4(1.0)) else f4(0.0)
