import dataclasses
import re

import jax
import numpy as np
import pytest
from methods_case import flat, make_setting, member, walk
from readme import method_template, section

from unlearn_jax.config import TASKS
from unlearn_jax.errors import ConfigError
from unlearn_jax.members import WALKS
from unlearn_jax.methods import find_method
from unlearn_jax.methods.method import Method
from unlearn_jax.train import Batch


@pytest.fixture
def found(tmp_path):
    path = tmp_path / "anchored.py"
    path.write_text(method_template())
    return find_method(f"{path}:METHOD")


@pytest.mark.parametrize("task", TASKS)
def test_the_template_is_a_method_for_both_tasks(found, task):
    assert found.name == "anchored-METHOD" and found.code
    setting = make_setting(found.name, task, method=found.method)
    found.method.check(setting)
    walked = walk(setting, method=found.method)
    assert not walked.trained.snapshots[1].failed.any()
    before, after = flat(walked.start["params"]), flat(walked.after["params"])
    assert all(np.isfinite(x).all() for x in after.values())
    for m in range(2):
        assert (member(after, m)["output/kernel"] != member(before, m)["output/kernel"]).any()
    jax.tree.map(np.testing.assert_array_equal, walked.prepared.context, walked.start["params"])


def test_the_template_checks_its_options(found):
    setting = make_setting(found.name, "regression", method=found.method, options=dict(pull=-1.0))
    with pytest.raises(ConfigError, match="pull is -1.0; allowed: at least 0"):
        found.method.check(setting)


def test_every_field_walk_and_part_of_a_batch_is_explained():
    text = section("Adding a method")
    named = set(re.findall(r"`([a-z_+]+)[`(.]", text)) | set(re.findall(r"`batch\.(\w+)`", text))
    assert {f.name for f in dataclasses.fields(Method)} <= named
    assert set(WALKS) <= named
    assert {f.name for f in dataclasses.fields(Batch)} <= named
