"""The package as a library: from arrays and a Flax module to models, metrics and a report.

    arrays.py    the data of a study, as arrays in memory
    settings.py  the config of a study
    run.py       runs a study by the same stages as the command line
    finished.py  a finished study: its tables, models and predictions

`import unlearn_jax as ul` has the public names; docs/python.md explains them.
"""

from unlearn_jax.api.arrays import Data
from unlearn_jax.api.finished import CompletedStudy, open_study
from unlearn_jax.api.run import study

__all__ = ["CompletedStudy", "Data", "open_study", "study"]
