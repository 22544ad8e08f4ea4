"""Checks the config's requests (source, injection, forget sets, files) without loading data."""

import os

import ml_collections

from unlearn_jax import data
from unlearn_jax.data.inject import check_form
from unlearn_jax.data.splits import check_request
from unlearn_jax.errors import ConfigError
from unlearn_jax.models import DEPTHS, build_model, slowest_norm
from unlearn_jax.networks.pretrained import file_layout, published_preprocess
from unlearn_jax.networks.resnet import check_variant


def check_requests(c: ml_collections.ConfigDict) -> None:
    """Refuses sources, injections, forget sets and files that are impossible with any data.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    if data.check_source(c.data.source) != "tfds" and c.data.ids != "stored":
        raise ConfigError(f"config.data.ids is {c.data.ids!r}; allowed with "
                          f"{c.data.source!r}: 'stored'")
    check_form(c.data.inject)
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
