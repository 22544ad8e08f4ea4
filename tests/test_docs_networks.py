"""The network that docs/networks.md has written out, as its reader would use it."""

import re
from pathlib import Path

import numpy as np
import pytest
from methods_case import CLASSES, MEMBERS, SIZE, flat, make_setting, walk

from unlearn_jax.config import TASKS, check_config, default_config
from unlearn_jax.methods import METHODS
from unlearn_jax.models import build_model

PAGE = Path(__file__).parent.parent / "docs" / "networks.md"


def example(width, depth):
    """The page's vit.py, smaller."""
    code, _ = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert "width: int = 64" in code and "depth: int = 4" in code
    return code.replace("int = 64", f"int = {width}").replace("int = 4", f"int = {depth}")


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    file = tmp_path_factory.mktemp("own") / "vit.py"
    file.write_text(example(width=8, depth=1))
    return f"{file}:ViT"


@pytest.mark.parametrize("task", TASKS)
def test_the_example_runs_a_step_of_reset_on_both_tasks(name, task):
    c = default_config()
    with c.unlocked():
        c.model.update(name=name, frozen=("Block_0/Dense_1/",))
        c.data.image_size = SIZE
    check_config(c)
    made = make_setting("reset", task)
    model = build_model(c.model, SIZE, CLASSES if task == "classification" else 0)
    setting = type(made)(model, made.optimizer, made.loss, made.labels, made.config, made.options,
                         made.train)
    METHODS["reset"].check(setting)
    walked = walk(setting, MEMBERS, per_device=2)
    assert not walked.trained.snapshots[1].failed.any()
    start, after = walked.start["params"], walked.after["params"]
    prepared = walked.prepared.variables["params"]
    for layer, fresh in (("Conv_0", True), ("Dense_0", True), ("Block_0/Dense_0", False)):
        old, anew, trained = (flat(t)[f"{layer}/kernel"] for t in (start, prepared, after))
        assert np.any(anew != old) == fresh, layer
        assert np.any(trained != anew), layer
    frozen = [flat(t)["Block_0/Dense_1/kernel"] for t in (start, after)]
    np.testing.assert_array_equal(*frozen)
