"""Checks the parts that the config names (source, network, files, forget sets), without data."""

import importlib.util
import os

import ml_collections

from unlearn_jax import data
from unlearn_jax.config.keys import TRACKERS
from unlearn_jax.data.given import GIVEN, WITH_SPLITS, is_given
from unlearn_jax.data.inject import check_form
from unlearn_jax.data.splits import check_request
from unlearn_jax.errors import ConfigError
from unlearn_jax.models import DEPTHS, build_model, slowest_norm
from unlearn_jax.networks.pretrained import file_layout, published_preprocess
from unlearn_jax.networks.resnet import check_variant


def check_parts(c: ml_collections.ConfigDict) -> None:
    """Refuses sources, injections, forget sets and files that are impossible with any data.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    kind = data.check_source(c.data.source)
    if kind != "tfds" and c.data.ids != "stored":
        raise ConfigError(f"config.data.ids is {c.data.ids!r}; allowed with "
                          f"{c.data.source!r}: 'stored'")
    if is_given(c.data) and kind not in WITH_SPLITS:
        raise ConfigError(f"config.data.split is {GIVEN!r}, but {c.data.source!r} has no splits; "
                          "allowed there: shares such as (0.6, 0.2, 0.2). Splits may be given with "
                          "a folder, a .csv, a .npz or tfds:NAME")
    check_form(c.data.inject)
    package = TRACKERS.get(c.train.log)
    if package and not importlib.util.find_spec(package):
        raise ConfigError(f"config.train.log is {c.train.log!r}, which needs the package "
                          f"{package}; install it (pip install {package}), or set ''")
    for request in c.forget.sets:
        check_request(request, c.data.task, c.data.inject)
    check_network(c)
    if c.model.resize_positions and file_layout(c.model.name) != "vit":
        raise ConfigError(f"config.model.resize_positions is True, but {c.model.name} has no "
                          "position embeddings of published weights; allowed: False")
    pretrained = c.model.pretrained
    if pretrained and not (os.path.isfile(pretrained) and os.access(pretrained, os.R_OK)):
        raise ConfigError(f"config.model.pretrained is {pretrained!r}, which is no file that can "
                          "be read; give a .h5 or .safetensors file")
    if not pretrained:
        return
    found, published = c.model.preprocess, published_preprocess(c.model)
    if found != published and not c.model.own_preprocess:
        raise ConfigError(
            f"config.model.preprocess is {found!r}, but the published weights of config.model."
            f"variant={c.model.variant!r} were trained with {published!r}: set config.model."
            f"preprocess={published!r}, or config.model.own_preprocess=True to keep yours on "
            "purpose")


def check_network(c: ml_collections.ConfigDict) -> None:
    """Refuses an unknown network, an unusable network from a file, and a stage that it lacks.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    if c.model.name in DEPTHS:
        check_variant(c.model)
        stages = len(DEPTHS[c.model.name][0])
    else:
        # The number of classes is known only with the data.
        classes = 0 if c.data.task == "regression" else len(c.data.groups) or 2
        model = build_model(c.model, c.data.image_size, classes)
        stages = len(model.stages)
        if c.eval.explain_samples and not stages:
            raise ConfigError(
                f"config.eval.explain_samples is {c.eval.explain_samples!r}, but {c.model.name} "
                "has no feature maps [B, s, s, C] and no tokens that form one; allowed: 0")
        if c.train.recalibrate_norms == "on" and not slowest_norm(c.model, c.data.image_size):
            raise ConfigError(
                f"config.train.recalibrate_norms is 'on', but {c.model.name} has no batch norms "
                "(nn.BatchNorm), or running statistics of another kind beside them; allowed: "
                "'auto', 'off'")
    if not 0 <= c.eval.explain_stage <= stages:
        raise ConfigError(f"config.eval.explain_stage is {c.eval.explain_stage!r}; allowed: 0 (the "
                          f"last) to {stages}, the stages of {c.model.name}")
