"""`--dry-run`: what is counted, what is not, and what it rests on."""

import contextlib
import signal
from unittest import mock

import pytest

from launch import estimate
from launch.estimate import describe, plan_job
from launch.plan import make_plan
from launch.points import make_points
from unlearn_jax.engine.run import Rate
from unlearn_jax.errors import InputError
from unlearn_jax.networks.conv import _setting
from unlearn_jax.stages import plan as study_plan
from unlearn_jax.storage.store import Store
from unlearn_jax.system import interrupt

# ml_collections loads config files in a way that Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

# 120 faces of 20 to 60 years or so, split 60/20/20; batches of 16.
FLAGS = ("--config.data.size=120", "--config.data.image_size=8", "--config.model.name=resnet4",
         "--config.model.width=2", "--config.model.stem=small", "--config.train.epochs=3",
         "--config.train.batch_size=16", "--config.unlearn.batch_size=16",
         "--config.unlearn.schedule=constant", "--config.seeds=(0,1)")


@pytest.fixture(autouse=True, scope="module")
def measured_briefly():
    """A measurement takes steps for 0.1 s, not for seconds."""
    with mock.patch.object(study_plan, "_MEASURE_SECONDS", 0.1):
        yield


@contextlib.contextmanager
def unmeasured():
    """Within it nothing is compiled or measured: the rate is a given one."""
    rate = Rate(images_per_second=1000.0, calls=3, members=1, compile_seconds=1.0,
                flops_of_a_step=1e6, call_bytes=1_000_000)
    with mock.patch.object(study_plan, "measure_rate", lambda *_: rate):
        yield


def sweep(tmp_path, points, config="configs/ft.py", more=(), jobs=1):
    store = Store(tmp_path / "store")
    store.create()
    flags = (*FLAGS, *more)
    return make_plan(make_points(points, config, flags), flags, tmp_path / "sweep", store.root,
                     jobs)


def test_models_are_counted_once_and_a_longer_run_holds_the_shorter(tmp_path):
    plan = sweep(tmp_path, [{"unlearn.epochs": (e,), "unlearn.learning_rate": rate}
                            for e in (1, 2) for rate in (1e-3, 2e-3)])
    [job] = plan.jobs
    planned = plan_job(job, Store(plan.store))
    # M_O and M_R of two seeds; then each rate a population, one run with two snapshots
    assert [(j.models, j.epochs) for j in planned.jobs] == [(4, 3), (2, 2), (2, 2)]
    scratch, *unlearning = planned.jobs
    # two seeds, two epochs of D_r; from scratch three epochs of D_o and of D_r
    retain, rest = divmod(unlearning[0].images, 2 * 2)
    assert rest == 0 and unlearning[1].images == unlearning[0].images
    whole, rest = divmod(scratch.images - 2 * 3 * retain, 2 * 3)
    assert rest == 0 and 0 < retain < whole < 120 * 0.6
    assert planned.measured.images_per_second > 0 and planned.recorded is None
    text = describe(plan, "local", 1)
    assert "4 points: 8 unlearned models" in text and "measured now" in text
    assert "with 1 processes at a time" in text


def test_what_several_processes_need_is_counted_once(tmp_path):
    plan = sweep(tmp_path, [{"forget.sets": f} for f in ("20-28", "28-36")],
                 more=("--config.unlearn.epochs=(1,)",), jobs=2)
    made = set()
    with unmeasured():
        first, second = (plan_job(job, Store(plan.store), made) for job in plan.jobs)
    assert [(j.models, j.reused) for j in first.jobs] == [(4, 0), (2, 0)], "M_O and M_R; ft"
    assert [(j.models, j.reused) for j in second.jobs] == [(2, 2), (2, 0)], "M_R; ft"
    rates = sweep(tmp_path, [{"unlearn.learning_rate": rate} for rate in (1e-3, 3e-3)],
                  more=("--config.unlearn.epochs=(1,)",), jobs=2)
    with unmeasured():
        whole = plan_job(rates.jobs[1], Store(plan.store), set())
    again = plan_job(rates.jobs[1], Store(plan.store), made)  # measures a step of ft
    assert again.measured.images_per_second > 0
    # The test and validation images of M_O and M_R are predicted with the first process.
    assert 0 < 3 * again.predicted < 2 * whole.predicted
    assert [(j.models, j.reused) for j in again.jobs] == [(0, 4), (2, 0)]


def test_what_is_not_counted_says_so(tmp_path):
    plan = sweep(tmp_path, [{"unlearn.sisa.shards": n} for n in (2, 3)], "configs/sisa.py")
    assert len(plan.jobs) == 2
    with unmeasured():
        planned = plan_job(plan.jobs[0], Store(plan.store))
        text = describe(plan, "slurm", 2)
    assert [j.models for j in planned.jobs] == [4]
    assert text.count("its unlearned models are not in the plan") == 2
    assert text.count("nothing to train") == 1 and "counted with the first of them" in text
    assert "an array of 1 tasks" in text


def test_the_devices_and_the_convolutions_are_those_of_a_run(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(estimate, "use_devices", lambda c: (seen.append(c.parallel.cpu_devices),
                                                            interrupt.listen()))
    monkeypatch.setattr(estimate, "plan_variants", lambda *_: seen.append(_setting.get()))
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    plan = sweep(tmp_path, [{"train.momentum": 0.8}], more=(
        "--config.parallel.cpu_devices=3", "--config.parallel.convolution=loop"))
    estimate.use_devices_of(plan)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    plan_job(plan.jobs[0], Store(plan.store))
    assert seen == [3, "loop"]


def test_a_machine_that_only_submits_plans_with_what_it_has(tmp_path):
    plan = sweep(tmp_path, [{"train.momentum": 0.8}], more=(
        "--config.parallel.backend=tpu", "--config.parallel.batch=8",
        "--config.eval.batch_size=160"))
    text = describe(plan, "slurm", 1)
    assert "jax finds no tpu here" in text and "measured now" in text
    with pytest.raises(InputError, match="backend is 'tpu' but jax finds no such device"):
        describe(plan, "local", 1)


def test_what_cannot_be_forgotten_is_refused(tmp_path):
    plan = sweep(tmp_path, [{"forget.sets": ("gender:7",)}])
    with pytest.raises(InputError, match="gender:7"):
        describe(plan, "local", 1)
