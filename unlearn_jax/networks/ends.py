"""Both ends of every network: grey levels in, label units or logits out."""

import jax
import jax.numpy as jnp

# name: (channels reversed to BGR, mean, standard deviation) in grey levels, in the network's order
# of channels
PREPROCESS = {
    "unit": (False, (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "caffe": (True, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    "vggface2": (True, (91.4953, 103.8827, 131.0912), (1.0, 1.0, 1.0)),
    "torch": (False, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}


def preprocess(images_BHWC: jax.Array, kind: str) -> jax.Array:
    """The network's float32 input from grey levels 0..255 RGB, `[B, H, W, 3]`.

    'unit': -1..1. 'caffe': keras.applications' mode of that name, ImageNet's mean. 'vggface2':
    the same with the faces' mean (WeidiXie/Keras-VGGFace2-ResNet50, keras-vggface version 2).
    'torch': ImageNet's mean and standard deviation of 0..1 values.
    """
    reverse, mean, std = PREPROCESS[kind]
    x = images_BHWC.astype(jnp.float32)
    if reverse:
        x = x[..., ::-1]
    mean_C, std_C = (jnp.asarray(v, jnp.float32).reshape(1, 1, 1, 3) for v in (mean, std))
    return (x - mean_C) / std_C


def label_units(z: jax.Array, output: str, scale: float, offset: float) -> jax.Array:
    """A regression's last layer `[B, 1]` as labels `[B]`: offset + scale * value.

    Args:
      z: output of the last layer.
      output: 'sigmoid' or 'linear': the function that gives the value from z.
      scale, offset: label units.
    """
    value = jax.nn.sigmoid(z[:, 0]) if output == "sigmoid" else z[:, 0]
    return offset + scale * value
