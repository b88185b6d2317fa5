"""A model as Keras and tf2onnx write it: channels last, converted and compared."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def exported():
    """The ONNX model, images as it reads them and the scores that Keras computes."""
    tf, tf2onnx = pytest.importorskip("tensorflow"), pytest.importorskip("tf2onnx")
    tf.keras.utils.set_random_seed(0)
    x = inputs = tf.keras.Input((16, 16, 3))
    for width in (8, 16):
        x = tf.keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = tf.keras.layers.BatchNormalization(
            beta_initializer="random_normal", moving_mean_initializer="random_normal"
        )(x)
        x = tf.keras.layers.ReLU()(x)
        x = tf.keras.layers.MaxPooling2D()(x)
    x = tf.keras.layers.SeparableConv2D(24, 3, padding="same", activation="relu")(x)
    x = tf.keras.layers.Dense(32, activation="relu")(tf.keras.layers.Flatten()(x))
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(10, activation="softmax")(x))
    proto, _ = tf2onnx.convert.from_keras(
        model, input_signature=[tf.TensorSpec((None, 16, 16, 3), tf.float32, name="images")], opset=17
    )
    images = np.random.default_rng(0).random((64, 16, 16, 3), np.float32)
    return proto, images, model.predict(images, verbose=0)


def test_a_keras_model_becomes_its_spiking_twin(exported):
    from evsnn.conversion.balance.options import Options
    from evsnn.conversion.conversion import convert_model
    from evsnn.simulation import simulate

    proto, images, probabilities = exported
    conversion = convert_model(proto, images, Options(n_steps=(256,), threshold="max"))
    assert conversion.mismatch < 1e-4
    result = simulate(conversion.network, conversion.ann.arranged(images), n_steps=256)
    scores = np.exp(result.outputs - result.outputs.max(axis=1, keepdims=True))
    assert np.abs(scores / scores.sum(axis=1, keepdims=True) - probabilities).max() < 0.02
