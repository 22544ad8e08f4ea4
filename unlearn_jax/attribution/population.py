"""Explanations of all members of a stage: batches, devices and kept results."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from unlearn_jax.attribution.attribution import (
    BASELINES,
    explained_value,
    grad_cam,
    midpoints,
    pixel_attributions,
    stage_activations,
)
from unlearn_jax.attribution.channels import partner_means
from unlearn_jax.data.resident import Batches, Resident, Streamed
from unlearn_jax.engine.batches import Feed
from unlearn_jax.engine.layout import Layout
from unlearn_jax.engine.predict import Predictor
from unlearn_jax.engine.recipe import join
from unlearn_jax.members import in_batches, stack_batches
from unlearn_jax.models import Model, Variables
from unlearn_jax.system import arrays
from unlearn_jax.system.made_once import made_once
from unlearn_jax.train import decode_rows, find_images


@dataclasses.dataclass(frozen=True)
class ExplainSettings:
    """Settings of the explanations.

    Attributes:
      samples: number of images of each set that get maps.
      steps: nodes of the path of integrated gradients.
      baseline: start of the path, one of `BASELINES`.
      stage: the stage with the output that Grad-CAM reads, from 1; 0: the last.
    """

    samples: int
    steps: int
    baseline: str
    stage: int

    @classmethod
    def from_config(cls, cfg: ml_collections.ConfigDict) -> "ExplainSettings":
        """Reads the settings from the section `eval` of the config."""
        return cls(cfg.explain_samples, cfg.explain_steps, cfg.explain_baseline,
                   cfg.explain_stage)

    def layer(self, model: Model) -> str:
        """The block with the output that Grad-CAM reads."""
        return model.stages[self.stage - 1]


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """Explanations of the M models of a stage for N samples.

    Attributes:
      pixels: `[M, N, H, W]` integrated gradients, in label units or logits, colours added up.
      places: `[M, N, H', W']` Grad-CAM.
      values: `[M, N]` explained values, at the image.
      unexplained: `[M, N]` gap to completeness: value minus that of the baseline, minus the sum of
        `pixels`.
      channels: by set and stage of the network, `[M, C]` mean activations over the whole set.
      partners: the same for the matched channels of the next seed's model; empty if channels were
        not matched.
    """

    pixels: np.ndarray
    places: np.ndarray
    values: np.ndarray
    unexplained: np.ndarray
    channels: dict[str, dict[str, np.ndarray]]
    partners: dict[str, dict[str, np.ndarray]]


class Explainer:
    """Explains the models of one stage after another with the same compiled programs.

    Args:
      model: network.
      layout: devices.
      data: images.
      settings: settings of the explanations.
      batch_size: largest number of images of each member in a call.
      samples: number of images that are explained together; more images take several calls, fewer
        are filled up.
    """

    def __init__(self, model: Model, layout: Layout, data: Resident | Streamed,
                 settings: ExplainSettings, batch_size: int, samples: int):
        self.model, self.settings = model, settings
        self.feed = Feed(layout, data)
        axis = layout.batch_devices
        # Programs are compiled once: their batches do not depend on the size of a set.
        self._most, self._batch = (-(-n // axis) * axis
                                   for n in (batch_size, min(samples, batch_size)))
        size = model.image_size
        self._baseline = np.full((size, size, 3), BASELINES[settings.baseline], np.float32)
        self._pixels = Predictor(_path(model), layout, "explanation", shared=3, lasting=True)
        self._places = Predictor(_cam(model, settings.layer(model)), layout, "explanation",
                                 shared=1, lasting=True)
        self._channels = Predictor(_activations(model), layout, "explanation", lasting=True)

    @property
    def compile_seconds(self) -> float:
        """Seconds spent on compilation so far."""
        return sum(p.compile_seconds for p in (self._pixels, self._places, self._channels))

    def explain(self, variables_M: Variables, samples: np.ndarray,
                sets: dict[str, np.ndarray], partners: bool) -> Explanation:
        """Explains the models of a stage.

        Args:
          variables_M: `[M, ...]`.
          samples: `[N]` resident rows that get maps.
          sets: by name, resident rows over which activations are averaged.
          partners: True to match the channels of independent models.

        Raises:
          ValueError: no samples, or an empty set.
          InputError: the device's memory is too small for one member.
        """
        if not len(samples) or not all(len(rows) for rows in sets.values()):
            raise ValueError("explanations need at least one sample in each set")
        # An image is a batch of as many points of its path as fit.
        batch = self._batch
        nodes, weights = midpoints(self.settings.steps)
        per_call = max(1, self._most // batch)
        calls = math.ceil(len(nodes) / per_call)
        # The last call is filled up with nodes of weight zero.
        nodes, weights = (np.pad(x, (0, calls * per_call - len(x))).reshape(calls, per_call)
                          for x in (nodes, weights))
        pixels = sum(self._over(self._pixels, variables_M, samples, batch, self._baseline, a, w)
                     for a, w in zip(nodes, weights))
        places, values, at_baseline = self._over(self._places, variables_M, samples, batch,
                                                 self._baseline)
        channels, matched = self._channel_means(variables_M, sets, partners)
        return Explanation(pixels, places, values,
                           values - at_baseline - pixels.sum((2, 3), dtype=np.float64),
                           channels, matched)

    def _channel_means(self, variables_M: Variables, sets: dict[str, np.ndarray],
                       partners: bool) -> tuple[dict, dict]:
        ends = np.cumsum([0, *(len(rows) for rows in sets.values())])
        where = {name: slice(a, b) for name, a, b in zip(sets, ends[:-1], ends[1:])}
        rows = np.concatenate(list(sets.values()))
        found = self._over(self._channels, variables_M, rows, self._most)
        means: dict[str, dict[str, np.ndarray]] = {name: {} for name in sets}
        matched: dict[str, dict[str, np.ndarray]] = {name: {} for name in sets if partners}
        for stage, activations_MNC in found.items():
            others = partner_means(activations_MNC, where) if partners else {}
            for name in sets:
                means[name][stage] = activations_MNC[:, where[name]].mean(1, dtype=np.float64)
            for name in others:
                matched[name][stage] = others[name]
        return means, matched

    def _over(self, predictor: Predictor, variables_M: Variables, rows: np.ndarray, batch: int,
              *shared: Any) -> Any:
        """A predictor's results for all members on the same rows: a tree of `[M, n, ...]`."""
        members = jax.tree.leaves(variables_M)[0].shape[0]
        own = in_batches(rows, batch)

        def work(group: np.ndarray, run: Callable[[Batches], Any]) -> Any:
            calls = [arrays.fetch(run(call))
                     for call in self.feed(stack_batches([own] * len(group)))]
            return jax.tree.map(lambda *parts: np.concatenate(parts, axis=1)[:, :len(rows)], *calls)

        return join(predictor.over_groups(variables_M, self.feed, batch, work, *shared), members)


@made_once
def _path(model: Model) -> Callable[..., jax.Array]:
    def path(variables: Variables, resident: Resident, batches: Batches, baseline: jax.Array,
             nodes: jax.Array, weights: jax.Array) -> jax.Array:
        images, labels = _samples(resident, batches)
        return pixel_attributions(model, variables, images, labels, baseline, nodes, weights)

    return path


@made_once
def _cam(model: Model, layer: str) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
    def cam(variables: Variables, resident: Resident, batches: Batches,
            baseline: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        images, labels = _samples(resident, batches)
        places, values = grad_cam(model, variables, images, labels, layer)
        outputs, _ = model.apply(variables, baseline[None], train=False)
        repeated = jnp.broadcast_to(outputs, (len(labels), *outputs.shape[1:]))
        return places, values, explained_value(repeated, labels)

    return cam


@made_once
def _activations(model: Model) -> Callable[..., dict[str, jax.Array]]:
    def activations(variables: Variables, resident: Resident,
                    batches: Batches) -> dict[str, jax.Array]:
        return stage_activations(model, variables, find_images(resident, batches[0]))

    return activations


def _samples(resident: Resident, batches: Batches) -> tuple[jax.Array, jax.Array]:
    rows, _ = decode_rows(batches.rows[0])
    return find_images(resident, batches[0]), resident.labels[rows]
