import pytest

from unlearn_jax.attribution.attribution import BASELINES
from unlearn_jax.config import KEYS, ConfigError, check_config, default_config, get


def with_value(key, value):
    c = default_config()
    section, _, name = key.rpartition(".")
    with c.unlocked():
        with (get(c, section) if section else c).ignore_type():
            (get(c, section) if section else c)[name] = value
    return c


def test_the_default_is_allowed_and_locked():
    c = default_config()
    check_config(c)
    with pytest.raises(AttributeError, match="epoch"):
        c.train.epoch = 3


@pytest.mark.parametrize("key, value, words", [
    ("model.name", "resnet34", "'resnet10', 'resnet18', 'resnet50'"),
    ("unlearn.method", "scrap", "'ft', 'rnd'"),
    ("train.recalibrate_norms", "yes", "'auto', 'on', 'off'"),
    ("train.learning_rate", float("nan"), "at least 0"),
    ("data.fraction", 1.5, "from 1e-06 to 1"),
    ("data.split", (0.5, 0.5), "length 3"),
    ("data.split", (0.5, 0.4, 0.2), "add up to 1"),
    ("data.split", (1.0, 0.0, 0.0), "positive"),
    ("seeds", (), "at least one"),
    ("seeds", (1, 1), "different"),
    ("seeds", (0, -1), "at least 0"),
    ("seeds", (0.5,), "tuple of int"),
    ("unlearn.epochs", (2, True), "tuple of int"),
    ("unlearn.epochs", (2, 2), "different budgets"),
    ("unlearn.offset", (6, 3), "smallest, largest"),
    ("forget.sets", ("20-28", 3), "tuple of str"),
    ("eval.alphas", (0.0,), "at least 1e-12"),
    ("model.head_dropout", (0.5,), "one rate for each"),
    ("data.label_min", 60, "below data.label_max"),
    ("data.groups", (20.0, 40.0), "() for data.task='regression'"),
    ("train.loss", "cross_entropy", "'mae', 'mse'"),
    ("parallel.batch", 3, "a multiple of parallel.batch"),
    ("train.learning_rate", float("inf"), "at least 0"),
    ("data.seed", 2**31, "from 0 to 2"),
    ("seeds", (2**31,), "values up to 2147483647"),
    ("train.learning_rate", float("inf"), "a finite number of at least 0"),
    ("data.label_noise", float("inf"), "a finite number of at least 0"),
    ("model.output_offset", float("nan"), "a finite number"),
    ("model.output_scale", float("inf"), "a finite number of at least 1e-12"),
    ("unlearn.scrub.alpha", float("inf"), "a finite number"),
    ("data.size", 10**10, "from 20 to 2147483647"),
    ("train.batch_size", 2**31, "from 1 to 2147483647"),
    ("train.epochs", 10**7, "from 1 to 1000000"), ("unlearn.epochs", (10**7,), "up to 1000000"),
    ("model.head_widths", (2**31,), "values up to 2147483647"),
    ("eval.alphas", (15.0, 15.0), "different values"),
    ("eval.alphas", (float("inf"), 15.0), "finite values"),
    ("eval.within", (float("nan"),), "finite values"),
    ("data.groups", (float("-inf"), 3.0), "finite values"),
    ("eval.audits", ("mia", "mia"), "different audits"),
    ("eval.audits", ("mai",), "'mia', 'lira'"),
    ("eval.explain_samples", -1, "at least 0"),
    ("eval.explain_steps", 0, "at least 1"),
    ("eval.explain_baseline", "pink", "'black', 'grey', 'white'"),
    ("eval.explain_stage", 5, "0 (the last) to 4, the stages of resnet10"),
    ("eval.alpha", 12.0, "one of eval.alphas"),
    ("data.source", "fodler", "synthetic, utkface, digits, folder, arrays, tfds:NAME"),
    ("data.source", "tfds", "tfds:NAME"),
    ("data.ids", "original", "allowed with 'synthetic': 'stored'"),
    ("data.inject", "patsh:20-28:9", "confusion:A:B:N or patch:A:N"),
    ("data.inject", "confusion:20-26:50-60:9", "N must be a positive multiple of 2"),
    ("model.pretrained", "nowhere.h5", "which is no file that can be read"),
    ("model.output_scale", 30.0, "covers the labels from 20 to 60"),
])
def test_impossible_values_name_key_value_and_what_is_allowed(key, value, words):
    with pytest.raises(ConfigError, match="config.") as e:
        check_config(with_value(key, value))
    assert words in str(e.value)
    if key != "parallel.batch":  # reported at the batch size that does not fit
        assert f"config.{key} is {value!r}" in str(e.value)
    assert len(str(e.value).splitlines()) == 1


@pytest.mark.parametrize("task, request_, words", [
    ("regression", "28-20", "has its ends reversed"),
    ("regression", "class:3", "a regression has no classes"),
    ("regression", "ids:nowhere.txt", "the file cannot be read"),
    ("regression", "random:2", "a share between 0 and 1"),
    ("regression", "gender:male", "not understood; allowed: a range"),
    ("regression", "injected", "needs config.data.inject"),
    ("classification", "20-28", "not understood; allowed: class:NAME; ATTRIBUTE:NUMBER"),
])
def test_forget_sets_are_checked_without_data(task, request_, words):
    c = with_value("forget.sets", (request_,))
    with c.unlocked():
        c.data.task = task
        if task == "classification":
            c.train.loss, c.eval.alphas, c.eval.alpha = "cross_entropy", (0.25,), 0.25
    with pytest.raises(ConfigError) as e:
        check_config(c)
    assert words in str(e.value) and f"forget set {request_!r}" in str(e.value)


def test_early_stopping_keeps_the_best():
    c = default_config()
    c.train.keep, c.train.patience = "last", 3
    with pytest.raises(ConfigError, match="config.train.patience is 3"):
        check_config(c)


@pytest.mark.parametrize("groups, words", [
    ((20.0,), "at least two"), ((20.0, 40.0, 30.0), "ascending"), ((25.0, 40.0), "label_min"),
    ((20.0, 70.0), "label_max"),
])
def test_groups_cover_the_range_of_labels(groups, words):
    c = default_config()
    c.data.task, c.data.groups = "classification", groups
    with pytest.raises(ConfigError, match="config.data.groups") as e:
        check_config(c)
    assert words in str(e.value)


@pytest.mark.parametrize("method, epochs", [("sisa", (2,)), ("sisa", (0, 2))])
def test_a_method_without_steps_has_no_budgets(method, epochs):
    c = default_config()
    c.unlearn.method = method
    c.unlearn.epochs = (0,)
    check_config(c)
    c.unlearn.epochs = epochs
    with pytest.raises(ConfigError, match="config.unlearn.epochs is .*sisa trains as config.train"):
        check_config(c)


def test_the_baselines_allowed_are_those_that_there_are():
    assert KEYS["eval.explain_baseline"].allowed == tuple(BASELINES)
