"""What the config measures in label units: the study's values in years, or shares of a range.

The defaults of `offset`, `spread`, `alphas`, `alpha` and `within`, the bins of a regression's class
probabilities and the strata of labels are those of the reference study: years, for ages from 20 to
60. Labels that count years keep them. Labels of any other unit get the same shares of their range,
so that a data set with its labels divided by a hundred gives the same experiment: a year is a
fortieth of the range.

Years are the labels of the sources of faces, or what `data.label_unit='years'` says.
"""

from typing import Any

import ml_collections

from unlearn_jax.errors import ConfigError

# The sources whose labels are years, for which the default range of labels is meant.
FACES = ("synthetic", "utkface", "tfds:utkface")
_STUDY = 20.0, 60.0  # ages of the study's range
_YEARS = _STUDY[1] - _STUDY[0]
_SHARES = ("unlearn.offset", "unlearn.spread", "eval.alphas", "eval.alpha", "eval.within")
_OUTPUT = "model.output_scale", "model.output_offset"

# By key: the smallest and largest share of the label range, and what lies beyond them.
_SENSE = {
    "unlearn.offset": (0, 1, "every drawn label would be an end of the range"),
    "unlearn.spread": (1 / 160, 1, "a Gaussian of that width tells no labels apart"),
    "eval.alphas": (1e-4, 1, "Forgetting would be near 0, or above 0.36, for every model"),
    "eval.alpha": (1e-4, 1, "Forgetting would be near 0, or above 0.36, for every model"),
    "eval.within": (0, 1, "every answer within the range would be right"),
}


def in_years(data: ml_collections.ConfigDict) -> bool:
    """Whether the labels of the section `data` are years."""
    return data.label_unit == "years" or not data.label_unit and data.source in FACES


def label_step(data: ml_collections.ConfigDict) -> float:
    """The label units that stand for a year: 1, or a fortieth of the range of labels.

    Args:
      data: the section of the config; of a regression's labels.
    """
    return 1.0 if in_years(data) else (data.label_max - data.label_min) / _YEARS


def in_label_units(config: ml_collections.ConfigDict,
                   default: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config with its defaults in years as the same shares of the range of labels.

    A key counts as not set where it has the value of `default`. The outputs' scale and offset
    become the range where neither is set. What is set stays, and so does a classification.

    Args:
      config: as read; stays as it is.
      default: `config.default_config()`.
    """
    d = config.data
    if config.data.task != "regression" or in_years(d) or not d.label_min < d.label_max:
        return config
    step, found = label_step(d), config.copy_and_resolve_references()
    with found.unlocked():
        for key in _SHARES:
            section, _, name = key.partition(".")
            value = default[section][name]
            if config[section][name] == value and step != 1:
                found[section][name] = (tuple(_rounded(v * step) for v in value)
                                        if isinstance(value, tuple) else _rounded(value * step))
        if all(_get(config, key) == _get(default, key) for key in _OUTPUT):
            found.model.output_scale = float(d.label_max - d.label_min)
            found.model.output_offset = float(d.label_min)
    return found


def check_units(config: ml_collections.ConfigDict, default: ml_collections.ConfigDict) -> None:
    """Refuses what is set by hand and makes no sense for the range of labels.

    Args:
      config, default: as for `in_label_units`.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    d = config.data
    if d.task != "regression":
        return
    span, step = d.label_max - d.label_min, label_step(d)
    for key, (low, high, otherwise) in _SENSE.items():
        value = _get(config, key)
        if value == _get(default, key):
            continue
        for v in value if isinstance(value, tuple) else (value,):
            if not low * span <= v <= high * span:
                raise ConfigError(
                    f"config.{key} is {value!r}; allowed: {low * span:g} to {high * span:g} with "
                    f"labels from {d.label_min:g} to {d.label_max:g}, else {otherwise}")
    if not offset_steps(config.unlearn.offset, step):
        raise ConfigError(f"config.unlearn.offset is {config.unlearn.offset!r}; allowed: two "
                          f"numbers with a multiple of {step:g} (a fortieth of the range of "
                          "labels; of years 1) between them")


def offset_steps(offset: tuple[float, float], step: float) -> range:
    """The offsets from the smallest to the largest, in whole steps; may be empty."""
    smallest, largest = (round(v / step, 4) for v in offset)
    return range(-int(-smallest // 1), int(largest // 1) + 1)


def _rounded(value: float) -> float:
    """To six digits, as names of metrics write it."""
    return float(f"{value:.6g}")


def _get(config: ml_collections.ConfigDict, key: str) -> Any:
    section, _, name = key.partition(".")
    return config[section][name]
