"""`import unlearn_jax as ul`: the page docs/python.md, and what it says."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import unlearn_jax as ul
from unlearn_jax.api.settings import study_config
from unlearn_jax.config import check_config
from unlearn_jax.config.variants import arm_config
from unlearn_jax.errors import ConfigError, InputError
from unlearn_jax.system import interrupt

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
IMAGES = np.zeros((12, 16, 16, 3), np.uint8)
LABELS = np.arange(12) % 3


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The names of the page's example after it has run, in a folder of its own."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names = {"__name__": "example"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("example"))
        exec(compile(code, "example.py", "exec"), names)
        names["directory"] = Path.cwd()
        yield names


def test_the_example_of_the_page(example):
    run, directory = example["run"], example["directory"]
    assert isinstance(run, ul.CompletedStudy) and run.forget_sets == ("class-3",)
    assert set(run.results.method) == {"median", "original", "retrain", "ft", "ssd"}
    accuracy = run.results[run.results.metric == "accuracy_forget"]
    values = accuracy.groupby("method").value.mean()
    assert values["original"] > 0.9 and values["retrain"] == 0
    assert example["weights"]["Dense_0"]["kernel"].shape == (2, 16, 4)
    assert example["outputs"].shape == (2, 80, 4)
    assert run.report == Path("runs/mine/report.html") and (directory / run.report).is_file()
    assert {"forgotten", "not forgotten", "damaged", "undecided"} >= set(run.verdicts.verdict)
    # What the methods' own files set is in their arms.
    assert run.config["thesis"]["arms"] == ["ft", "ssd"]
    assert run.config["thesis"]["unlearn"]["ssd"]["epochs"] == [0]


def test_the_models_make_the_predictions(example):
    run, net = example["run"], example["Net"](4)
    found = run.predictions("retrain", split="forget")
    rows = found.ids.astype(int)
    assert set(example["labels"][rows]) == {3}
    x = example["images"][rows].astype(np.float32) / 127.5 - 1
    for m, seed in enumerate(found.seeds):
        variables = {"params": {layer: {name: value[m] for name, value in leaves.items()}
                                for layer, leaves in run.models("retrain")["params"].items()}}
        np.testing.assert_allclose(net.apply(variables, x, False), found.outputs[m], rtol=1e-3,
                                   atol=1e-3, err_msg=str(seed))


def test_a_study_is_read_back_and_the_second_one_trains_nothing(example, tmp_path, monkeypatch):
    monkeypatch.chdir(example["directory"])
    again = ul.open_study("runs/mine")
    pd.testing.assert_frame_equal(again.results, example["run"].results)
    assert len(again.history) and again.summary.shape[0]
    ul.study(example["data"], network=example["Net"], methods=("ft",), seeds=(0, 1), epochs=4,
             workdir=tmp_path / "ft", config={"train.learning_rate": 0.01}, progress=False)
    stages = json.loads((tmp_path / "ft" / "run.json").read_text())["stages"]
    status = {s["stage"]: s["status"] for s in stages}
    assert status == {"data": "computed", "original": "reused", "retrain": "reused",
                      "ft": "reused", "predictions": "reused"}
    with pytest.raises(InputError, match="holds a run of another config"):
        ul.study(example["data"], network=example["Net"], methods=("ft",), seeds=1,
                 workdir=tmp_path / "ft", progress=False)


def test_models_that_are_not_there(example, monkeypatch):
    monkeypatch.chdir(example["directory"])
    run = example["run"]
    with pytest.raises(InputError, match="method is 'scrub'; allowed: 'original', 'ft', 'ssd'"):
        run.models("scrub")
    with pytest.raises(InputError, match="epochs is 3; allowed: 2"):
        run.models("ft", epochs=3)
    with pytest.raises(InputError, match="has no models of 'median'"):
        run.models("median")
    with pytest.raises(InputError, match="split is 'train'; allowed: 'test', 'forget'"):
        run.predictions(split="train")
    with pytest.raises(InputError, match="is no work directory of a run"):
        ul.open_study("runs/none")


def config(task="classification", labels=LABELS, methods=("ft",), **changes):
    data = ul.Data(IMAGES, labels, task, forget={"few": [0, 1]})
    return study_config(data, Path("arrays.npz"), "resnet4", methods,
                        {key.replace("__", "."): value for key, value in changes.items()})


def test_a_column_of_a_data_frame_is_text():
    names = pd.Series(["cat", "dog", "cow"] * 4)
    data = ul.Data(IMAGES, names, forget={"few": [0]}, ids=pd.Series(map(str, range(12))))
    assert data.num_classes == 3 and data.arrays()["ids"].dtype.kind == "U"


def test_each_method_has_its_own_values_and_the_callers():
    c = config(methods=("scrub", "ssd", "ft"), unlearn__epochs=[3], unlearn__batch_size=8)
    check_config(c)
    assert c.forget.sets == ("set:few",) and c.data.image_size == 16
    assert c.thesis.arms == ("scrub", "ssd", "ft")
    for method, epochs in (("scrub", (3,)), ("ssd", (0,)), ("ft", (3,))):
        alone = config(methods=(method,), unlearn__epochs=(3,), unlearn__batch_size=8)
        check_config(alone)
        assert arm_config(c, method).unlearn == alone.unlearn
        assert alone.unlearn.epochs == epochs and alone.unlearn.batch_size == 8


def test_a_regression_has_the_range_of_its_labels():
    c = config("regression", np.linspace(-0.1, 0.7, 12))
    assert (c.data.label_min, c.data.label_max) == (-0.1, 0.7)
    check_config(c)
    assert c.model.output_offset + c.model.output_scale >= 0.7


def test_given_splits_are_taken():
    data = ul.Data(IMAGES, LABELS, forget={"few": [0]},
                   splits={"val": range(9, 12), "train": range(9)})
    assert data.arrays()["split"].tolist() == ["train"] * 9 + ["val"] * 3
    c = study_config(data, Path("arrays.npz"), "resnet4", ("ft",), {})
    assert c.data.split == ("given",)
    check_config(c)
    assert config().data.split == (0.6, 0.2, 0.2)


@pytest.mark.parametrize("make, message", [
    (lambda: config(methods="ft"), "methods is 'ft'; allowed: names such as"),
    (lambda: config(methods=("ft", "ft")), "allowed: different methods"),
    (lambda: config(methods=("nothing",)), "nothing"),
    (lambda: config(train__epoch=3), "config.train.epoch is not there.*did you mean 'epochs'"),
    (lambda: config(train__epochs="3"), "config.train.epochs is '3'; allowed: a value of type int"),
])
def test_arguments_that_cannot_be_used(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("fields, message", [
    (dict(task="regresion"), "task is 'regresion'; allowed: 'regression', 'classification'"),
    (dict(forget={}), "forget is {}; allowed: positions by name"),
    (dict(forget="class:3"), "forget is 'class:3'; allowed"),
    (dict(forget={"/a": [1]}), "forget has the name '/a'; allowed: text that begins with"),
    (dict(forget={"a": [12]}), "forget_a holds 12; allowed: positions from 0 to 11"),
    (dict(class_names=("a", "b")), "labels run from 0 to 2; allowed with 2 class_names"),
    (dict(splits={"train": range(9), "dev": [9, 10, 11]}), "has the split 'dev'"),
    (dict(splits={"train": range(9), "test": [8, 9, 10]}), "8 is in the splits 'train' and 'test'"),
    (dict(splits={"train": range(9), "test": [9]}), "2 of 12 samples, such as 10, are in no split"),
    (dict(splits={"train": range(13)}), r"splits\['train'\] holds 12; allowed"),
    (dict(images=IMAGES / 255.0), "images are float64 .*allowed: uint8"),
])
def test_data_that_cannot_be_used(fields, message):
    with pytest.raises(ul.InputError, match=message):
        ul.Data(**({"images": IMAGES, "labels": LABELS, "forget": {"a": [1]}} | fields))


def test_an_import_loads_neither_jax_nor_numpy():
    code = ("import sys, unlearn_jax; print(sorted({'jax', 'numpy', 'pandas'} & set(sys.modules)),"
            " 'study' in dir(unlearn_jax)); unlearn_jax.Data; "
            "print(sorted(unlearn_jax.__all__) == unlearn_jax.__all__)")
    done = subprocess.run([sys.executable, "-c", code], cwd=PAGE.parents[1], capture_output=True,
                          text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[] True", "True"]
    assert (Path(ul.__file__).with_name("py.typed")).is_file()
    names = set(re.findall(r"`ul\.(\w+)", PAGE.read_text()))
    assert names == set(ul.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        ul.nothing  # noqa: B018


@pytest.fixture
def interruptible():
    """A process that Ctrl-C interrupts, also where these tests run in the background."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


def test_signals_are_the_callers_again(interruptible):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with interrupt.listening():
        signal.raise_signal(signal.SIGINT)
        assert interrupt.requested()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert not interrupt.requested()
