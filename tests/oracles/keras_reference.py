"""Weights, inputs, outputs and gradients of Keras' recurrent layers, for tests/test_oracle_keras.py.

python keras_reference.py OUT.npz          (needs TensorFlow; `make test-oracles` calls it)
"""

import sys

import keras
import numpy as np
import tensorflow as tf

HARD = {"recurrent_activation": "hard_sigmoid"}
LAYERS = {
    "elman": (keras.layers.SimpleRNN, 9, {}),
    "lstm": (keras.layers.LSTM, 9, {}),
    "lstm_hard_sigmoid": (keras.layers.LSTM, 9, HARD),
    "gru": (keras.layers.GRU, 9, {"reset_after": True}),
    "gru_reset_before": (keras.layers.GRU, 9, {"reset_after": False}),
    "gru_reset_before_hard_sigmoid": (keras.layers.GRU, 9, {"reset_after": False} | HARD),
    "conv_lstm": (keras.layers.ConvLSTM2D, 4, {"kernel_size": 3, "padding": "same"}),
    "conv_lstm_hard_sigmoid": (keras.layers.ConvLSTM2D, 4, {"kernel_size": 3, "padding": "same"} | HARD),
    "conv_lstm_dilated": (keras.layers.ConvLSTM2D, 4, {"kernel_size": 5, "padding": "same", "dilation_rate": 2}),
}


def random(rng, shape):
    """Weights that carry their input's scale on, so that nothing saturates."""
    fan_in = np.prod(shape[:-1]) if len(shape) > 1 and shape[0] != 2 else 4
    return (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def main(out):
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    kept = {}
    for name, (kind, units, options) in LAYERS.items():
        layer = kind(units, return_sequences=True, return_state=True, **options)
        image = "conv" in name
        x = rng.standard_normal((3, 12, 7, 6, 2) if image else (3, 40, 5)).astype(np.float32)
        shape = (3, 7, 6, 4) if image else (3, 9)
        states = [rng.standard_normal(shape).astype(np.float32) for _ in range(2 if "lstm" in name else 1)]
        layer.build(x.shape)
        layer.set_weights([random(rng, w.shape) for w in layer.get_weights()])
        given = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(given)
            y, *last = layer(given, initial_state=[tf.constant(s) for s in states])
            seeds = tf.reshape(tf.linspace(0.0, 1.0, tf.size(y)), tf.shape(y))  # one sign: sums do not cancel
            loss = tf.reduce_sum(y * seeds)
        gradients = tape.gradient(loss, [given, *layer.trainable_weights])
        kept[f"{name}/x"], kept[f"{name}/y"] = x, y.numpy()
        for kind, arrays in (
            ("state", states), ("last", [s.numpy() for s in last]),
            ("weight", layer.get_weights()), ("gradient", [g.numpy() for g in gradients]),
        ):  # fmt: skip
            kept |= {f"{name}/{kind}{n}": array for n, array in enumerate(arrays)}
    kept["versions"] = np.array(f"Keras {keras.__version__}, TensorFlow {tf.__version__}")
    np.savez(out, **kept)


if __name__ == "__main__":
    main(sys.argv[1])
