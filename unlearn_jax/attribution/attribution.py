"""Attributions of one member to pixels, places and channels.

The explained value is one number per image: the predicted value in label units, or the logit of
the image's own class. Only first derivatives are taken, in reverse mode.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.models import Model, Variables

# Starting points of the path of integrated gradients, in grey levels.
BASELINES = {"black": 0.0, "grey": 127.5, "white": 255.0}


def explained_value(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """The explained value, `[B]`.

    Args:
      outputs: `[B]` label units, which are the explained values, or logits `[B, C]`.
      labels: `[B]`; with logits, classes.
    """
    if outputs.ndim == 1:
        return outputs
    return jnp.take_along_axis(outputs, labels[:, None], axis=1)[:, 0]


def midpoints(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights `[steps]` of the midpoint rule on the interval from 0 to 1."""
    nodes = (np.arange(steps) + 0.5) / steps
    return nodes.astype(np.float32), np.full(steps, 1 / steps, np.float32)


def integrated_gradients(value: Callable[[jax.Array], jax.Array], images_BHWC: jax.Array,
                         baseline_HWC: jax.Array, nodes_K: jax.Array,
                         weights_K: jax.Array) -> jax.Array:
    """Integrated gradients, or the part of them that some nodes of the quadrature contribute.

    `(x - x') * sum_k w_k grad f(x' + a_k (x - x'))`. With all nodes and enough steps, the sum
    over an image is f(x) - f(x') (completeness).

    Args:
      value: maps images `[K * B, H, W, 3]`, all of the first node first, to `[K * B]`; the value of
        an image depends on no other image.
      images_BHWC: x, grey levels.
      baseline_HWC: x', the start of the path.
      nodes_K: a, from 0 to 1.
      weights_K: w; over all nodes they add up to 1.

    Returns:
      `[B, H, W, 3]` in the unit of `value`.

    Source: Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks", equations 1, 3.
    """
    way_BHWC = images_BHWC.astype(jnp.float32) - baseline_HWC[None]
    points = baseline_HWC[None, None] + nodes_K[:, None, None, None, None] * way_BHWC[None]
    flat = points.reshape(-1, *way_BHWC.shape[1:])
    gradients = jax.grad(lambda x: jnp.sum(value(x)))(flat).reshape(points.shape)
    return way_BHWC * jnp.sum(weights_K[:, None, None, None, None] * gradients, axis=0)


def pixel_attributions(model: Model, variables: Variables, images_BHWC: jax.Array,
                       labels: jax.Array, baseline_HWC: jax.Array, nodes_K: jax.Array,
                       weights_K: jax.Array) -> jax.Array:
    """Integrated gradients of the explained value, the three colours added up: `[B, H, W]`."""
    repeated = jnp.tile(labels, len(nodes_K))

    def value(images: jax.Array) -> jax.Array:
        return explained_value(model.apply(variables, images, train=False)[0], repeated)

    return integrated_gradients(value, images_BHWC, baseline_HWC, nodes_K, weights_K).sum(-1)


def class_activation_map(activations_BHWC: jax.Array, gradients_BHWC: jax.Array,
                         signed: bool) -> jax.Array:
    """Grad-CAM `[B, H, W]`: channels weighted by their mean gradient, and added up.

    Args:
      activations_BHWC: A, of a layer.
      gradients_BHWC: dy / dA.
      signed: keep negative parts, which lower y. The source drops them (a ReLU), because it shows
        evidence for a class; for an age, a region that makes a face look younger is evidence too.

    Source: Selvaraju et al. 2017, "Grad-CAM", equations 1, 2.
    """
    weights_BC = gradients_BHWC.mean((1, 2))
    found = jnp.sum(weights_BC[:, None, None, :] * activations_BHWC, axis=-1)
    return found if signed else jax.nn.relu(found)


def grad_cam(model: Model, variables: Variables, images_BHWC: jax.Array, labels: jax.Array,
             layer: str) -> tuple[jax.Array, jax.Array]:
    """Grad-CAM at the output of a stage.

    Args:
      model, variables: network, and variables of one member.
      images_BHWC: grey levels.
      labels: `[B]`.
      layer: one of `model.stages`.

    Returns:
      Maps `[B, H', W']`, with both signs for a regression and without negative parts for a class;
      and the explained values `[B]`.
    """
    found = jax.eval_shape(lambda v, x: model.features(v, x, train=False)[2][layer], variables,
                           images_BHWC)

    def total(shift: jax.Array):
        outputs, features = model.shifted(variables, images_BHWC, {layer: shift})
        values = explained_value(outputs, labels)
        return jnp.sum(values), (values, features[layer], outputs.ndim == 1)

    gradients, (values, activations, signed) = jax.grad(total, has_aux=True)(
        jnp.zeros(found.shape, jnp.float32))
    return class_activation_map(activations.astype(jnp.float32), gradients, signed), values


def stage_activations(model: Model, variables: Variables,
                      images_BHWC: jax.Array) -> dict[str, jax.Array]:
    """Mean activations over the places of an image, `[B, C]` for the output of each stage."""
    _, _, features = model.features(variables, images_BHWC, train=False)
    return {name: features[name].astype(jnp.float32).mean((1, 2)) for name in model.stages}
