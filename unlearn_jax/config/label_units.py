"""Keys of the config in label units: years of the reference study, or shares of the label range.

The defaults of these keys are years, for ages from 20 to 60. Labels of another unit get the same
shares of their range (`units.py`). `keys.py` says which keys these are and which shares make sense.
"""

import ml_collections

from unlearn_jax.config.keys import KEYS
from unlearn_jax.config.values import get, require
from unlearn_jax.units import in_years, label_step, offset_steps

IN_LABEL_UNITS = {name: key.share for name, key in KEYS.items() if key.share}
_OUTPUT = "model.output_scale", "model.output_offset"


def in_label_units(config: ml_collections.ConfigDict,
                   default: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config with its defaults in years as the same shares of the range of labels.

    A key that has the value of `default` counts as not set. If neither the scale nor the offset of
    the output is set, they become those of the range. Keys that are set stay as they are. The
    config of a classification is returned unchanged.

    Args:
      config: as read; it is not changed.
      default: `config.default_config()`.
    """
    d = config.data
    if config.data.task != "regression" or in_years(d) or not d.label_min < d.label_max:
        return config
    step, found = label_step(d), config.copy_and_resolve_references()
    with found.unlocked():
        for key in IN_LABEL_UNITS:
            section, _, name = key.partition(".")
            value = default[section][name]
            if config[section][name] == value and step != 1:
                found[section][name] = (tuple(_rounded(v * step) for v in value)
                                        if isinstance(value, tuple) else _rounded(value * step))
        if all(get(config, key) == get(default, key) for key in _OUTPUT):
            found.model.output_scale = float(d.label_max - d.label_min)
            found.model.output_offset = float(d.label_min)
    return found


def check_units(config: ml_collections.ConfigDict, default: ml_collections.ConfigDict) -> None:
    """Refuses values that were set and make no sense for the range of labels.

    Args:
      config, default: as for `in_label_units`.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    d = config.data
    if d.task != "regression":
        return
    span, step = d.label_max - d.label_min, label_step(d)
    for key, share in IN_LABEL_UNITS.items():
        value = get(config, key)
        if value == get(default, key):
            continue
        low, high = share.low * span, share.high * span
        within = all(low <= v <= high for v in (value if isinstance(value, tuple) else (value,)))
        require(within, config, key, f"{low:g} to {high:g} with labels from {d.label_min:g} to "
                f"{d.label_max:g}, else {share.otherwise}")
    require(bool(offset_steps(config.unlearn.offset, step)), config, "unlearn.offset",
            f"two numbers with a multiple of {step:g} (a fortieth of the range of labels; of years "
            "1) between them")


def _rounded(value: float) -> float:
    """Rounded to six digits, as in names of metrics."""
    return float(f"{value:.6g}")
