"""Which models a half-finished population holds; readable without JAX."""

import json
from pathlib import Path

from unlearn_jax.storage.store import stage_key

STAGES = "stages.json"  # in the folder of each population
POPULATION = "population"  # the folder of the store


def saved_stages(directory: Path) -> list[list[str]]:
    """(method, key) of the stages of a saved population.

    Empty if the file cannot be read or was changed: the directory's name is a hash of its content.
    """
    try:
        stages = json.loads((directory / STAGES).read_bytes())
        whole = stage_key(POPULATION, {"stages": stages}) == directory.name
    except (OSError, ValueError, TypeError):  # another process may just have removed it
        return []
    return stages if whole else []
