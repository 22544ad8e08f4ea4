"""The plan of a comparison, by hand: factors, trials, budgets, the choice, the commands."""

import re

import ml_collections
import numpy as np
import pytest

from unlearn_jax.commandline import read_config
from unlearn_jax.config import check_config, default_config, get, variants
from unlearn_jax.errors import ConfigError, InputError
from unlearn_jax.methods import METHODS
from unlearn_jax.methods.method import Method
from unlearn_jax.methods.outside import Found

OUTSIDE = """
from unlearn_jax.methods.method import Method
from unlearn_jax.train import make_train_step

PLAIN = Method(make_step=lambda s: make_train_step(s.model, s.optimizer, s.loss),
               options=dict(depth=3), strength="depth")
"""


def compare(**changes):
    c = default_config()
    with c.unlocked():
        c.compare.update(changes)
    return c


@pytest.fixture
def fake(monkeypatch):
    """A method of the package, `fake`, made of what is asked for."""

    def make(options=None, **fields):
        monkeypatch.setitem(METHODS, "fake", Method(options=options or {}, **fields))
        c = compare(methods=("ft", "fake"))
        with c.unlocked():
            if options:
                c.unlearn.fake = ml_collections.ConfigDict(options)
        return c

    return make


def searched(config, request):
    return [(t.learning_rate, t.strength) for t in variants.make_trials(config, request)]


def test_factors_are_even_in_their_logarithm():
    np.testing.assert_allclose(variants.spread((0.25, 4.0), 3), (0.25, 1, 4))
    np.testing.assert_allclose(variants.spread((1.0, 8.0), 4), (1, 2, 4, 8))
    np.testing.assert_allclose(variants.spread((9.0, 1.0), 3), (9, 3, 1))  # less is stronger
    assert variants.spread((0.25, 4.0), 1) == (1.0,)


def test_trials_of_a_rate():
    c = compare(trials=3, rates=(0.5, 2.0), methods=("ft",))
    rates = [t.config.unlearn.learning_rate for t in variants.make_trials(c, "ft")]
    assert rates == [0.001, 0.002, 0.004]
    assert all(np.isnan(t.strength) and not t.config.compare.methods and t.config.is_locked
               for t in variants.make_trials(c, "ft"))


def test_a_strength_is_turned_with_the_rate(fake):
    c = fake({"alpha": 10.0, "top": 4}, make_step=METHODS["ft"].make_step, strength="alpha",
             strengths=(9.0, 1 / 9))
    c.compare.trials = 3
    assert searched(c, "fake") == [(0.0005, 90.0), (0.002, 10.0), (0.008, 1.11)]
    trial = variants.make_trials(c, "fake")[0].config
    assert (trial.unlearn.fake.alpha, trial.unlearn.fake.top) == (90.0, 4)
    assert c.unlearn.fake.alpha == 10.0 and c.unlearn.learning_rate == 2e-3


def test_what_trains_nothing_varies_its_strength_alone(fake):
    c = fake({"top": 4}, strength="top", strengths=(0.25, 4.0))
    found = searched(c, "fake")
    assert [s for _, s in found] == [1.0, 2.0, 4.0, 8.0, 16.0]  # whole numbers stay whole
    assert all(np.isnan(rate) for rate, _ in found)
    check_config(variants.make_trials(c, "fake")[0].config)


def test_a_method_may_name_the_options_that_are_searched(fake):
    c = fake({"share": 0.02, "alpha": 4.0, "dampening": 1.0},
             searched_options=lambda o: {"share": (0.1, 10.0), "dampening": (2.0, 0.5)} if o.share
             else {"alpha": (8.0, 0.5)})
    c.compare.trials = 3
    found = [t.config.unlearn.fake for t in variants.make_trials(c, "fake")]
    assert [(o.share, o.alpha, o.dampening) for o in found] == [
        (0.002, 4.0, 2.0), (0.02, 4.0, 1.0), (0.2, 4.0, 0.5)]
    assert [t.option for t in variants.make_trials(c, "fake")] == ["share"] * 3
    c.unlearn.fake.share = 0.0
    assert [s for _, s in searched(c, "fake")] == [32.0, 8.0, 2.0]
    assert variants.make_trials(c, "fake")[0].option == "alpha"


def test_equal_trials_are_made_once(fake):
    c = fake({"top": 1}, strength="top", strengths=(0.8, 2.0))
    assert [s for _, s in searched(c, "fake")] == [1.0, 2.0]  # all below 1.5 are one
    assert len(searched(fake(), "fake")) == 1  # nothing to vary


def test_an_outside_method_varies_its_rate_alone(tmp_path):
    # its options are not in the config, so that no command could repeat another value
    (tmp_path / "own.py").write_text(OUTSIDE)
    found = searched(compare(trials=2), f"{tmp_path}/own.py:PLAIN")
    assert [rate for rate, _ in found] == [0.0005, 0.008] and np.isnan([s for _, s in found]).all()


def test_a_strength_must_be_an_option():
    with pytest.raises(ValueError, match="strength='beta' is none of the method's options: alpha"):
        Method(options=dict(alpha=1.0), strength="beta")
    with pytest.raises(ValueError, match="is 'mean'; it must be a number"):
        Method(options=dict(by="mean"), strength="by")
    with pytest.raises(ValueError, match="two positive factors"):
        Method(options=dict(alpha=1.0), strength="alpha", strengths=(0.0, 1.0))


def test_what_a_method_sets_replaces_what_all_share():
    c = compare(methods=("ft", "rnd"))
    with c.unlocked():
        c.compare.unlearn.rnd = ml_collections.ConfigDict(dict(learning_rate=0.1, labels="uniform"))
        c.unlearn.batch_size = 8
    ft, rnd = (variants.method_config(c, name).unlearn for name in ("ft", "rnd"))
    assert (ft.method, ft.learning_rate, ft.labels, ft.batch_size) == ("ft", 2e-3, "offset", 8)
    assert (rnd.method, rnd.learning_rate, rnd.labels, rnd.batch_size) == ("rnd", 0.1, "uniform", 8)


@pytest.mark.filterwarnings("ignore:the load_module")  # of ml_collections
def test_every_key_that_a_method_reads_can_be_set_for_it_alone():
    c = read_config(["--config=configs/compare.py", "--config.compare.unlearn.ft.learning_rate=1",
                     "--config.compare.unlearn.rnd.offset=(1, 2)", "--config.unlearn.momentum=0.5",
                     "--config.compare.unlearn.ssd.ssd.alpha=3", "--config.unlearn.spread=7.0",
                     "--config.compare.methods=('ft','rnd','ssd','scrub')"])
    check_config(c)
    ft, rnd, ssd, scrub = (variants.method_config(c, m).unlearn for m in c.compare.methods)
    assert (ft.learning_rate, ft.offset, ft.momentum) == (1.0, (3, 6), 0.5)
    assert (rnd.offset, rnd.momentum, ssd.ssd.alpha) == ((1, 2), 0.5, 3.0)
    assert rnd.learning_rate == c.unlearn.learning_rate == 2e-3 and c.unlearn.ssd.alpha != 3
    assert scrub.spread == 7.0
    assert "epochs" not in c.compare.unlearn.ft and "from_seed" not in c.compare.unlearn.ft


@pytest.mark.parametrize("fraction, prepared, costs, epochs", [
    (0.25, 0.0, (1 / 12,) * 9, 3),         # exactly three, whatever rounding does
    (0.25, 0.0, (0.1,) * 9, 2),            # 0.2 and 0.3 are equally near: the fewer
    (0.25, 0.0, (0.134,) * 9, 2),          # 0.268 is nearer than 0.134
    (0.25, 0.0, (0.18,) * 9, 1),           # 0.18 is nearer than 0.36
    (0.25, 0.1, (0.05,) * 9, 3),           # preparation counts
    (0.25, 0.0, (0.2, 0.01, 0.01, 0.5), 3),  # epochs may differ
    (1.0, 0.0, (0.1, 0.1, 0.0, 0.1), 2),   # an epoch without samples is the end
])
def test_a_budget_is_met_as_nearly_as_whole_epochs_allow(fraction, prepared, costs, epochs):
    found = variants.fit_epochs(fraction, prepared, costs.__getitem__)
    assert found == variants.Budget(epochs)


def test_the_preparation_of_a_method_without_steps_is_held_to_the_budget():
    assert variants.no_epochs(0.25, 0.25) == variants.Budget(
        0, "trains nothing, and its preparation takes 25 % of retraining where the budget is 25 %")
    found = variants.no_epochs(0.25, 0.827)
    assert (found.epochs, found.exceeded) == (0, True)
    assert found.note == ("takes 82.7 % of retraining (preparation; it trains nothing) where the "
                          "budget is 25 %")


def test_one_epoch_too_many_is_said():
    found = variants.fit_epochs(0.25, 0.125, (0.5, 0.5).__getitem__)
    assert (found.epochs, found.exceeded) == (1, True)
    assert found.note == ("takes 62.5 % of retraining (preparation 12.5 %, one epoch 50 %) where "
                          "the budget is 25 %")
    # Nearer than nothing.
    assert not variants.fit_epochs(0.25, 0.0, (0.4, 0.4).__getitem__).exceeded
    assert variants.fit_epochs(0.25, 0.3, (0.01, 0.01).__getitem__).exceeded  # all went before


def test_the_limit():
    assert variants.limit(5.0, 0.05, False) == pytest.approx(5.25)
    assert variants.limit(0.1, 0.05, True) == pytest.approx(1 - 0.95 * 0.9)  # accuracy 0.9 to 0.855


@pytest.mark.parametrize("errors, chosen, within", [
    ([[4, 6], [5, 5.4], [5.2, 5.4], [9, 9]], 1, [True, True, False, False]),  # limit 5.25
    ([[9, 9], [4, 5], [8, 8], [5, 5]], 3, [False, True, False, True]),  # the strongest of two
    ([[7, 7], [6, 7], [8, 8], [9, 9]], 1, [False] * 4),  # none within: the lowest error
    ([[7, 7], [6, 6], [6, 6], [9, 9]], 1, [False] * 4),  # equally low: the weaker
    ([[4, 4], [4, np.nan], [np.nan, np.nan], [6, 6]], 0, [True, False, False, False]),
    ([[7, np.nan], [np.nan, np.nan]], 0, [False] * 2),  # all failed: the weakest
    ([[np.nan, np.nan], [8, 8]], 1, [False] * 2),
])
def test_the_strongest_within_tolerance_is_taken(errors, chosen, within):
    found = variants.select(np.array(errors, float), np.array([4.0, 6.0]), 0.05, False)
    assert found.chosen == chosen and found.within.tolist() == within
    assert found.at_the_end == within[-1]
    assert found.limit == pytest.approx(5.25)
    np.testing.assert_array_equal(found.errors, np.mean(errors, axis=1))


def test_seeds_whose_original_failed_do_not_count():
    errors = np.array([[5.0, np.nan], [5.2, np.nan], [5.3, 1.0]])
    found = variants.select(errors, np.array([5.0, np.nan]), 0.05, False)
    assert found.chosen == 1 and found.limit == pytest.approx(5.25)
    nothing = variants.select(errors, np.array([np.nan, np.nan]), 0.05, False)
    assert nothing.chosen == 0 and not nothing.within.any() and np.isnan(nothing.limit)


def test_classes_are_held_to_their_accuracy():
    # accuracies 0.96, 0.92 and 0.90 against 0.95 * 0.96 = 0.912
    found = variants.select(np.array([[0.04], [0.08], [0.1]]), np.array([0.04]), 0.05, True)
    assert found.chosen == 1


@pytest.mark.parametrize("errors, original", [
    (np.zeros(3), np.zeros(3)), (np.zeros((3, 2)), np.zeros(3)), (np.zeros((0, 2)), np.zeros(2))])
def test_wrong_shapes_are_refused(errors, original):
    with pytest.raises(ValueError, match="shapes"):
        variants.select(errors, original, 0.05, False)


def test_the_command_names_what_differs_and_nothing_else():
    base, wanted = default_config(), compare(methods=("ft",), trials=7)
    with wanted.unlocked():
        wanted.unlearn.learning_rate = 1.26e-5
        wanted.unlearn.epochs = (3,)
        wanted.data.path = "a path"
        wanted.unlearn.fake = ml_collections.ConfigDict(dict(alpha=0.5, on=True))
    assert variants.command("configs/x.py:s", base, wanted, "runs/w") == (
        "python -m unlearn_jax.main --config=configs/x.py:s --workdir=runs/w "
        "'--config.data.path=a path' '--config.unlearn.epochs=(3,)' "
        "--config.unlearn.fake.alpha=0.5 --config.unlearn.fake.on=True "
        "--config.unlearn.learning_rate=1.26e-05")


def test_the_config_of_a_method_lies_beside_the_comparison(tmp_path):
    own, outside = Found("rnd", METHODS["rnd"], ""), Found("my-M", METHODS["ft"], "abc")
    assert variants.method_file("configs/compare.py:digits", own) == "configs/rnd.py:digits"
    assert variants.method_file("configs/compare.py", outside) == "configs/ft.py"
    assert variants.load_config("configs/rnd.py:digits").unlearn.labels == "uniform"
    with pytest.raises(InputError, match="nowhere.py is no file"):
        variants.load_config("nowhere.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(InputError, match=re.escape("empty.py has no get_config")):
        variants.load_config(str(tmp_path / "empty.py"))


@pytest.mark.parametrize("key, value, words", [
    ("compare.methods", ("ft", "retrain"), "methods other than 'retrain'"),
    ("compare.methods", ("ft", "ft"), "different methods"),
    ("compare.methods", ("ft", "sisa"), "methods that unlearn M_O"),
    ("compare.rates", (2.0, 0.5), "(weakest, strongest)"),
    ("compare.rates", (0.5,), "length 2"),
    ("compare.trials", 0, "from 1 to 1000"),
    ("compare.budget", "time", "'images', 'wall', 'flops'"),
    ("compare.fraction", 0.0, "at least 1e-06"),
    ("compare.tolerance", -0.1, "from 0 to 1"),
    ("compare.rank_by", "mae", "'forgetting', 'F'"),
])
def test_impossible_comparisons_are_refused(key, value, words):
    c = compare(methods=("ft",))
    with c.unlocked():
        c.compare[key.partition(".")[2]] = value
    with pytest.raises(ConfigError, match="config.compare") as e:
        check_config(c)
    assert words in str(e.value) and repr(get(c, key)) in str(e.value)


def test_an_unknown_method_and_an_impossible_trial_are_named():
    with pytest.raises(ConfigError, match="'scrap'.*'retrain', 'ft', 'rnd'"):
        check_config(compare(methods=("ft", "scrap")))
    c = compare(methods=("rnd",))
    with c.unlocked():
        c.compare.unlearn.rnd = ml_collections.ConfigDict(dict(labels="zero"))
    with pytest.raises(ConfigError, match="config.unlearn.labels is 'zero'"):
        check_config(c)
