"""Checks of the config's requests (source, injection, forget sets, files) without the data."""

import os

import ml_collections

from unlearn_jax import data
from unlearn_jax.data.inject import check_form
from unlearn_jax.data.splits import check_request
from unlearn_jax.errors import ConfigError
from unlearn_jax.networks.pretrained import PREPROCESS_OF


def check_requests(c: ml_collections.ConfigDict) -> None:
    """Refuses sources, injections, forget sets and files that are impossible whatever the data.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    if data.check_source(c.data.source) != "tfds" and c.data.ids != "stored":
        raise ConfigError(f"config.data.ids is {c.data.ids!r}; allowed with "
                          f"{c.data.source!r}: 'stored'")
    check_form(c.data.inject)
    for request in c.forget.sets:
        check_request(request, c.data.task, c.data.inject)
    pretrained = c.model.pretrained
    if pretrained and not (os.path.isfile(pretrained) and os.access(pretrained, os.R_OK)):
        raise ConfigError(f"config.model.pretrained is {pretrained!r}, which is no file that can "
                          "be read; give a .h5 or .safetensors file")
    found, published = c.model.preprocess, PREPROCESS_OF[c.model.variant]
    if pretrained and found != published and not c.model.own_preprocess:
        raise ConfigError(
            f"config.model.preprocess is {found!r}, but the published weights of config.model."
            f"variant={c.model.variant!r} were trained with {published!r}: set config.model."
            f"preprocess={published!r}, or config.model.own_preprocess=True to keep yours on "
            "purpose")
