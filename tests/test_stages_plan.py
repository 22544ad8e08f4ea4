import json

import numpy as np
import pytest

from unlearn_jax.engine.run import Rate
from unlearn_jax.stages.plan import Job, Plan

JOBS = (Job("training", 4, 0, 3, 100, 6400, 300), Job("ft", 2, 2, 1, 20, 1280, 0))


def plan(flops):
    return Plan(JOBS, 50, Rate(1000.0, 3, 2, 1.5, flops, 10**6), None, 10**6, False)


def test_operations_are_those_of_all_steps():
    assert plan(1e9).flops == pytest.approx(120e9)
    assert "FLOPs: 1.2e+11 for the training steps" in plan(1e9).text()
    assert Plan(JOBS, 50, None, None, 10**6, False).record()["flops"] == 0


def test_unknown_operations_are_said_and_no_number():
    assert "FLOPs: not counted." in plan(np.nan).text()
    record = plan(np.nan).record()
    assert record["flops"] is None
    json.dumps(record, allow_nan=False)
