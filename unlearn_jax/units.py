"""The unit of the labels: years, or a fortieth of the range of labels.

The bins of a regression's class probabilities and the strata of labels are those of the reference
study: years, for ages from 20 to 60. Labels that count years keep them. Labels of any other unit
get the same shares of their range, a fortieth for each year. So a data set with its labels divided
by a hundred gives the same experiment. `config/label_units.py` does the same for the config.

Labels are years where the source holds faces or the config says `data.label_unit='years'`.
"""

import ml_collections

# The sources whose labels are years, for which the default range of labels is meant.
FACES = ("synthetic", "utkface", "tfds:utkface")
_STUDY = 20.0, 60.0  # ages of the study's range
_YEARS = _STUDY[1] - _STUDY[0]


def in_years(data: ml_collections.ConfigDict) -> bool:
    """Whether the labels of the section `data` are years."""
    return data.label_unit == "years" or not data.label_unit and data.source in FACES


def label_step(data: ml_collections.ConfigDict) -> float:
    """The label units that stand for a year: 1, or a fortieth of the range of labels.

    Args:
      data: the section of the config, for a regression.
    """
    return 1.0 if in_years(data) else (data.label_max - data.label_min) / _YEARS


def offset_steps(offset: tuple[float, float], step: float) -> range:
    """The offsets from the smallest to the largest, in whole steps; may be empty."""
    smallest, largest = (round(v / step, 4) for v in offset)
    return range(-int(-smallest // 1), int(largest // 1) + 1)
