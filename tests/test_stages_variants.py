"""Configs that share a program give the numbers of a run of their own.

To a tolerance: of a wider program the compiler counts a few FLOPs less, and it may add in another
order.
"""

import csv
import dataclasses
import json
from unittest import mock

import numpy as np
import pytest

from unlearn_jax import stages
from unlearn_jax.config import default_config
from unlearn_jax.stages import graph, variants
from unlearn_jax.storage.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def without_reports():
    """They are drawn from what is looked at here, and take longer than all the rest."""
    with mock.patch.object(stages, "write_report", lambda directory, bar: None):
        yield


def config(**unlearn):
    c = default_config()
    with c.unlocked():
        c.seeds = (0, 1)
        c.data.update(size=120, image_size=8)
        c.model.update(name="resnet4", width=2, stem="small")
        c.train.update(epochs=1, batch_size=16, recalibrate_norms="off")
        c.eval.update(batch_size=50, audits=())
        c.parallel.cpu_devices = 1
        own = {k: unlearn.pop(k) for k in list(unlearn) if isinstance(unlearn[k], dict)}
        c.unlearn.update(dict(method="ft", epochs=(1, 2), batch_size=16, schedule="constant")
                         | unlearn)
        for name, options in own.items():
            c.unlearn[name].update(options)
    return c


def run(tmp_path, store, *configs):
    requests = [stages.Request(c, "test", tmp_path / f"{i}", "test")
                for i, c in enumerate(configs)]
    stages.run_studies(requests, Store(store))
    return [r.directory for r in requests]


def values(directory):
    """results.csv without what a clock decides: value by all that names it."""
    with open(directory / "results.csv", newline="") as f:
        return {tuple(v for k, v in row.items() if k != "value"): float(row["value"])
                for row in csv.DictReader(f) if not row["metric"].startswith("wall")}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-4, atol=1e-6, err_msg=str(key))


@pytest.fixture
def sizes():
    """The name and the number of members of each population."""
    noted, train = [], stages.populations.train_population

    def counted(recipe, model, layout, resident, members, *args, **kwargs):
        noted.append((recipe.name, len(members)))
        return train(recipe, model, layout, resident, members, *args, **kwargs)

    with mock.patch.object(stages.populations, "train_population", counted):
        yield noted


def test_rates_and_strengths_are_members_of_one_program(tmp_path, sizes):
    wanted = [config(method="neggrad_plus", learning_rate=rate, neggrad_plus=dict(alpha=alpha))
              for rate, alpha in ((1e-3, 0.9), (4e-3, 0.9), (4e-3, 0.6))]
    together = run(tmp_path / "together", tmp_path / "store", *wanted)
    assert sizes == [("train", 4), ("neggrad_plus", 6)]
    (alone,) = run(tmp_path / "alone", tmp_path / "other-store", wanted[2])
    assert sizes[2:] == [("train", 4), ("neggrad_plus", 2)]
    assert_close(values(together[2]), values(alone))
    assert len({tuple(values(d).values()) for d in together}) == 3
    history = (together[1] / "history.csv").read_text().splitlines()
    rates = {float(line.split(",")[8]) for line in history if line.startswith("neggrad_plus")}
    assert len(rates) == 1 and rates.pop() == pytest.approx(4e-3)
    record = json.loads((together[1] / "run.json").read_text())
    assert {(s["stage"], s["status"]) for s in record["stages"] if s["stage"] != "predictions"} \
        == {("data", "computed"), ("original", "reused"), ("retrain", "reused"),
            ("neggrad_plus", "computed")}
    again = run(tmp_path / "again", tmp_path / "store", *wanted[::-1])
    assert len(sizes) == 4, "all from the store"
    assert values(again[0]) == values(together[2])


@dataclasses.dataclass
class Study:
    config: object


def variant(**unlearn):
    from unlearn_jax.methods import find_method
    from unlearn_jax.methods.method import Setting

    c = config(**unlearn)
    found = find_method(c.unlearn.method)
    options = c.unlearn[found.name] if found.name in c.unlearn else None
    import ml_collections
    setting = Setting(None, None, None, None, c.unlearn, options or ml_collections.ConfigDict(),
                      c.train)
    unlearning = graph.Unlearning(found, setting, found.method.make_step and (lambda: None))
    return graph.Variant(Study(c), [], unlearning)


def test_what_is_part_of_the_program_sets_programs_apart():
    def sizes(*wanted):
        return [len(p) for p in variants.programs([variant(**w) for w in wanted])]

    assert sizes(dict(learning_rate=1e-3), dict(learning_rate=2e-3)) == [2]
    assert sizes(dict(momentum=0.9), dict(momentum=0.8)) == [1, 1]
    assert sizes(dict(epochs=(1,)), dict(epochs=(2,))) == [1, 1]
    assert sizes(dict(method="ft"), dict(method="rnd"), dict(method="ft", learning_rate=1.0)) \
        == [2, 1]
    assert sizes(dict(method="scrub", scrub=dict(msteps=1)),
                 dict(method="scrub", scrub=dict(msteps=2))) == [1, 1], "other passes"
    assert sizes(dict(method="salun", salun=dict(share=0.2)),
                 dict(method="salun", salun=dict(share=0.4))) == [2]
    (both,) = variants.programs([variant(method="scrub", scrub=dict(alpha=a)) for a in (0.1, 0.2)])
    assert [v.traced_options for v in both] == [{"alpha": 0.1}, {"alpha": 0.2}]
    assert both[0].name == "learning_rate=0.002, alpha=0.1"


def test_a_step_that_needs_a_number_gets_a_program_for_each(tmp_path, monkeypatch, sizes):
    from unlearn_jax.methods import METHODS

    method = METHODS["neggrad_plus"]

    def make_step(setting):
        if setting.options.alpha < 0.5:  # cannot be asked of a traced value
            raise AssertionError
        return method.make_step(setting)

    monkeypatch.setitem(METHODS, "neggrad_plus", dataclasses.replace(method, make_step=make_step))
    run(tmp_path, tmp_path / "store", *(
        config(method="neggrad_plus", neggrad_plus=dict(alpha=a)) for a in (0.9, 0.6)))
    assert sizes == [("train", 4), ("neggrad_plus", 4), ("neggrad_plus", 2), ("neggrad_plus", 2)]


def test_variants_of_one_stage_train_it_once(tmp_path, sizes):
    one, other = config(), config()
    with other.unlocked():
        other.eval.within = (3.0,)
    directories = run(tmp_path, tmp_path / "store", one, other)
    assert sizes == [("train", 4), ("ft", 2)]
    tables = [(d / "results.csv").read_text() for d in directories]
    assert "accuracy_test@5" in tables[0] and "accuracy_test@3" in tables[1]
