"""The configuration: every key with its default, and the checks that run before any work.

A file in `configs/` calls `default_config()` and sets what it changes. `check_config`
refuses impossible values with a message naming the key, the value and what is allowed.
"""

import math
from typing import Any

import ml_collections

from unlearn_jax.errors import ConfigError
from unlearn_jax.methods import METHODS, find_method
from unlearn_jax.metrics.catalogue import AUDITS
from unlearn_jax.networks import conv
from unlearn_jax.requests import check_requests
from unlearn_jax.system.nested import flat
from unlearn_jax.units import check_units, in_label_units
from unlearn_jax.variants import arm_config, check_arms, make_trials, method_config

TASKS = ("regression", "classification")


def default_config() -> ml_collections.ConfigDict:
    """The embedded default: synthetic faces, a narrow ResNet, three seeds, two CPU cores."""
    c = ml_collections.ConfigDict()
    c.seeds = (0, 1, 2)

    c.data = ml_collections.ConfigDict(dict(
        source="synthetic",       # synthetic | utkface | digits | folder | tfds:NAME
        path="",                  # folder, .zip, .tar.gz or .csv, where the source reads files
        task="regression",        # regression | classification
        ids="stored",             # tfds: stored | original (the order of the set's own files) |
                                  # a feature that names each example; data/tfds.py
        seed=0,                   # decides the subsample, the split and the augmented copies
        size=3000,                # synthetic: number of faces
        image_size=32,            # pixels; images become [image_size, image_size, 3] uint8
        label_noise=2.0,          # synthetic: standard deviation of the label noise, years
        fraction=1.0,             # keep this share of the samples, stratified by label
        label_min=20.0,           # regression: keep labels from here ...
        label_max=60.0,           # ... to here, both inclusive
        label_unit="",            # of a regression, such as years (units.py); "": the source's
        groups=(),                # lower ends of groups that become the classes of a
                                  # classification: (20.0, 30.0, 45.0); (): the source's own labels
        repeats="keep",           # keep | drop: of images equal pixel for pixel all but the first
        quality="off",            # off | on: drop blurred, dark, flat images (data/quality.py)
        quality_sharpness=70.0,   # least variance of the Laplacian at 64 px, grey levels squared
        quality_contrast=20.0,    # least standard deviation, grey levels
        quality_brightness=(40.0, 210.0),  # mean grey level allowed, both inclusive
        split=(0.6, 0.2, 0.2),    # train, validation, test
        balance=0,                # augmented copies up to this many per label; 0: none
        rotation=10.0,            # augmented copies: degrees to either side
        shift=0.1,                # share of the width and height, to either side
        zoom=0.2,                 # zoom in or out by up to this share
        flip=True,                # horizontal flip with probability one half
        inject="",                # confusion:A:B:N | patch:A:N: see data/inject.py
    ))
    c.model = ml_collections.ConfigDict(dict(
        name="resnet10",          # resnet4 (for trying things out) | resnet10 | 18 | 50; or
                                  # FILE.py:NAME, one's own (networks/own.py)
        variant="torchvision",    # torchvision | keras | vggface2 (models.py says how they differ)
        width=16,                 # channels of the first stage; 64 is the published width
        stem="strided",           # imagenet (7x7/2, max-pool) | strided (5x5/2) | small (3x3)
        projection=0,             # width of a dense layer after the pool (VGGFace2: 512); 0: none
        head_widths=(),           # hidden layers of the head; the study: (256, 128)
        head_dropout=(),          # dropout before each of them; the study: (0.5, 0.2)
        output="sigmoid",         # sigmoid | linear; value = offset + scale * output
        output_scale=40.0,        # label units
        output_offset=20.0,       # label units
        preprocess="unit",        # unit (-1..1) | caffe (BGR, mean subtracted) | vggface2 | torch
        own_preprocess=False,     # keep it though pretrained weights were trained with another one
        dtype="float32",          # float32 | bfloat16: the arithmetic; parameters stay float32
        frozen=(),                # regular expressions over parameter paths that stay fixed
        pretrained="",            # .h5 (Keras, VGGFace2) or .safetensors (torchvision, timm)
    ))
    c.train = ml_collections.ConfigDict(dict(
        epochs=12,
        batch_size=64,
        optimizer="adam",         # adam | sgd
        learning_rate=3e-3,
        schedule="onecycle",      # constant | cosine | onecycle (optim.py says how it ends)
        warmup=0.25,              # onecycle: share of the steps that the rate rises
        weight_decay=0.0,         # adam: decoupled; sgd: part of the gradient
        momentum=0.9,             # sgd
        loss="mae",               # mae | mse (regression) | cross_entropy (classification)
        class_weights="none",     # none | balanced: classes count alike, however many samples they
                                  # have in D_o, whose counts M_R is given as well
        patience=0,               # epochs without a better validation loss; 0: never stop early
        keep="best",              # best (by validation loss) | last: the weights after all epochs
        recalibrate_norms="auto", # auto | on | off: models predict with the training set's batch
                                  # statistics; auto: where few steps leave over 1 % (norms.py)
        checkpoint_seconds=120.0, # a half-finished stage is saved this often
        tensorboard=False,        # also write TensorBoard logs under WORKDIR/tensorboard
    ))
    c.forget = ml_collections.ConfigDict(dict(
        sets=("20-28",),          # 20-28 | class:3 | random:0.02 | gender:1 | race:2 | ids:FILE
    ))
    c.unlearn = ml_collections.ConfigDict(dict(
        method="ft",              # methods/__init__.py lists them; or FILE.py:NAME, one's own
        epochs=(2, 8),            # budgets; at a constant rate one run, with a snapshot at each
        from_seed=-1,             # every member starts from the M_O of this seed; -1: of its own
        batch_size=64,
        optimizer="adam",
        learning_rate=2e-3,
        schedule="cosine",        # a rate that ends high leaves the noise of its last steps
        warmup=0.25,
        weight_decay=0.0,
        momentum=0.9,
        labels="offset",          # rnd, salun: uniform | offset
        offset=(3, 6),            # rnd, salun: smallest and largest offset, label units; like
                                  # spread, alphas, alpha and within a share of the label range
                                  # where labels are no years: 3 is 3 of 40 (units.py)
        label_units="years",      # rnd: years | as_published (the study's unit error)
        spread=5.0,               # regression: standard deviation, label units, of the Gaussian
                                  # that stands for a model's class probabilities
    ))
    for name, method in METHODS.items():  # unlearn.METHOD.KEY; each method's file explains its own
        if method.options:
            c.unlearn[name] = ml_collections.ConfigDict(dict(method.options))
    c.eval = ml_collections.ConfigDict(dict(
        batch_size=250,
        alphas=(2.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0),  # label units
        alpha=15.0,               # the one shown in the headline table
        within=(5.0,),            # regression: accuracy counts errors up to this, label units
        audits=("mia",),          # audits.py lists them; some need many seeds
        challenge_bins=13,        # 13 as the challenge describes it; 14 as its code had it
        challenge_narrow=0.0,     # epsilon is 50 where one kind of models has less than this share
                                  # of the other's range; 0.01 as the challenge's code had it
        relearn_epochs=0,         # train on D_f this long to see how fast it comes back; 0: do not
        relearn_rate=1e-3,        # learning rate of that
        layers=True,              # layers.csv: how far the weights are from M_O's and M_R's
        explain_samples=0,        # images of D_f and of D_r that are explained; 0: none
        explain_steps=32,         # integrated gradients: points on the path from the baseline
        explain_baseline="grey",  # black | grey | white: where it begins
        explain_stage=0,          # stage of the network that Grad-CAM reads; 0: the last
    ))
    c.compare = ml_collections.ConfigDict(dict(
        methods=(),               # compared with each other; (): no comparison, `unlearn.method`
        budget="images",          # images | wall | flops: what all get equally much of
        fraction=0.25,            # the budget, as a share of what retraining took
        trials=5,                 # of each method, from weak to strong; odd: one as configured
        rates=(0.25, 4.0),        # factors of its learning rate, weakest and strongest trial
        tolerance=0.05,           # share by which the validation error may rise above M_O's
        rank_by="forgetting",     # forgetting | F
        unlearn=ml_collections.ConfigDict(),  # METHOD.KEY: replaces unlearn.KEY for that method
    ))
    c.thesis = ml_collections.ConfigDict(dict(
        arms=(),                  # methods side by side, as given; (): `unlearn.method` alone
        unlearn=ml_collections.ConfigDict(),    # ARM.KEY: replaces unlearn.KEY for that arm
        elsewhere=ml_collections.ConfigDict(),  # ARM: budgets on all forget sets but the first
    ))
    c.parallel = ml_collections.ConfigDict(dict(
        backend="",               # cpu | gpu | tpu: fail where it is missing; "": what jax finds
        cpu_devices=0,            # a CPU counts as this many devices; 0: one for each core
        members=0,                # devices along the member axis; 0: all
        batch=1,                  # devices along the batch axis
        members_per_device=0,     # in one call of the program; 0: one on CPU, else up to 16
        steps_per_dispatch=0,     # at most; 0: 8 on a CPU with oneDNN, 1 without it, 32 elsewhere
        cuda_graphs=True,         # on a GPU a call is one CUDA graph; False: as XLA does by itself
        convolution="auto",       # auto | onednn (a CPU's) | direct (XLA's) | others of conv.py
        resident="auto",          # images on the device | stream: from the host | auto: stream
                                  # what takes more than half of the device's memory
    ))
    c.lock()
    return c


_CHOICES = {
    "data.task": TASKS,
    "data.repeats": ("keep", "drop"),
    "data.quality": ("off", "on"),
    "model.variant": ("torchvision", "keras", "vggface2"),
    "model.stem": ("imagenet", "strided", "small"),
    "model.output": ("sigmoid", "linear"),
    "model.preprocess": ("unit", "caffe", "vggface2", "torch"),
    "model.dtype": ("float32", "bfloat16"),
    "train.optimizer": ("adam", "sgd"),
    "train.class_weights": ("none", "balanced"),
    "train.keep": ("best", "last"),
    "train.recalibrate_norms": ("auto", "on", "off"),
    "train.schedule": ("constant", "cosine", "onecycle"),
    "unlearn.optimizer": ("adam", "sgd"),
    "unlearn.schedule": ("constant", "cosine", "onecycle"),
    "unlearn.labels": ("uniform", "offset"),
    "unlearn.label_units": ("years", "as_published"),
    "eval.explain_baseline": ("black", "grey", "white"),
    "compare.budget": ("images", "wall", "flops"),
    "compare.rank_by": ("forgetting", "F"),
    "parallel.convolution": conv.SETTINGS,
    "parallel.backend": ("", "cpu", "gpu", "tpu"),
    "parallel.resident": ("auto", "device", "stream"),
}

# Of whole numbers: arrays of rows and of steps count in 32 bits, and jax.random.key takes as many
# and drops the others in silence.
_MOST = 2**31 - 1
_MOST_EPOCHS = 10**6  # a plan counts them one by one

# key: (smallest, largest allowed); an open end is an infinity
_RANGES = {
    "data.size": (20, math.inf),
    "data.seed": (0, _MOST),
    "data.image_size": (8, 1024),
    "data.label_noise": (0, math.inf),
    "data.fraction": (1e-6, 1),
    "data.label_min": (-1e30, 1e30),
    "data.label_max": (-1e30, 1e30),
    "data.quality_sharpness": (0, math.inf),
    "data.quality_contrast": (0, math.inf),
    "data.balance": (0, math.inf),
    "data.rotation": (0, 180),
    "data.shift": (0, 0.9),
    "data.zoom": (0, 0.9),
    "model.width": (1, math.inf),
    "model.projection": (0, math.inf),
    "model.output_scale": (1e-12, math.inf),
    "train.epochs": (1, _MOST_EPOCHS),
    "train.batch_size": (1, math.inf),
    "train.learning_rate": (0, math.inf),
    "train.warmup": (0, 1),
    "train.weight_decay": (0, math.inf),
    "train.momentum": (0, 1),
    "train.patience": (0, math.inf),
    "train.checkpoint_seconds": (0, math.inf),
    "unlearn.batch_size": (1, math.inf),
    "unlearn.learning_rate": (0, math.inf),
    "unlearn.warmup": (0, 1),
    "unlearn.weight_decay": (0, math.inf),
    "unlearn.momentum": (0, 1),
    "unlearn.spread": (1e-6, math.inf),
    "eval.batch_size": (1, math.inf),
    "eval.challenge_bins": (1, 100),
    "eval.challenge_narrow": (0, 1),
    "eval.relearn_epochs": (0, _MOST_EPOCHS),
    "eval.relearn_rate": (0, math.inf),
    "eval.explain_samples": (0, math.inf),
    "eval.explain_steps": (1, math.inf),
    "eval.alpha": (1e-12, math.inf),
    "compare.fraction": (1e-6, math.inf),
    "compare.trials": (1, 1000),
    "compare.tolerance": (0, 1),
    "parallel.members": (0, math.inf),
    "parallel.cpu_devices": (0, 1024),
    "parallel.batch": (1, math.inf),
    "parallel.members_per_device": (0, math.inf),
    "parallel.steps_per_dispatch": (0, math.inf),
}

# key: (types of the elements, required length or None, smallest element, must hold something)
TUPLES = {
    "seeds": (int, None, 0, True),
    "data.split": (float, 3, 0, True),
    "data.quality_brightness": (float, 2, 0, True),
    "data.groups": (float, None, None, False),
    "model.head_widths": (int, None, 1, False),
    "model.head_dropout": (float, None, 0, False),
    "model.frozen": (str, None, None, False),
    "forget.sets": (str, None, None, True),
    "unlearn.epochs": (int, None, 0, True),
    "unlearn.offset": (float, 2, 0, True),
    "eval.alphas": (float, None, 1e-12, True),
    "eval.within": (float, None, 0, False),
    "eval.audits": (str, None, None, False),
    "compare.methods": (str, None, None, False),
    "thesis.arms": (str, None, None, False),
    "compare.rates": (float, 2, 1e-12, True),
}


def completed(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config as it runs: what is not set follows the range of labels (units.py)."""
    return in_label_units(c, default_config())


def check_config(c: ml_collections.ConfigDict) -> None:
    """Refuse a config that cannot run.

    Args:
      c: the whole config; what is not set may still be as in `default_config`.

    Raises:
      InputError: names the key, the value and what is allowed.
    """
    c = completed(c)
    for key, allowed in _CHOICES.items():
        _require(get(c, key) in allowed, c, key, "one of " + _names(allowed))
    for key, (low, high) in _RANGES.items():
        value = get(c, key)
        if isinstance(value, int) and value > _MOST:
            high = _MOST
        # `not low <= value` also catches NaN
        _require(low <= value <= high and value < math.inf, c, key,
                 _range_text(low, high, isinstance(value, float)))
    for key, (kind, length, low, filled) in TUPLES.items():
        _check_tuple(c, key, kind, length, low, filled)
    for key, value in flat(c.to_dict()).items():
        _require(not isinstance(value, float) or math.isfinite(value), c, key, "a finite number")
    _check_relations(c)
    check_requests(c)
    if c.compare.methods:
        _check_comparison(c)
    if c.thesis.arms:
        check_arms(c)
        for arm in c.thesis.arms:
            check_config(arm_config(c, arm))


def _check_comparison(c: ml_collections.ConfigDict) -> None:
    found = [find_method(request) for request in c.compare.methods]
    names = [f.name for f in found]
    _require(c.compare.rates[0] <= c.compare.rates[1], c, "compare.rates", "(weakest, strongest)")
    _require("retrain" not in names, c, "compare.methods", "methods other than 'retrain', which "
             "every comparison holds them to")
    _require(not any(f.method.scheme for f in found), c, "compare.methods",
             "methods that unlearn M_O: a training scheme makes other models, at its own cost")
    _require(len(set(names)) == len(names), c, "compare.methods", "different methods")
    for request in c.compare.methods:
        check_config(method_config(c, request))
        for trial in make_trials(c, request):
            check_config(trial.config)


def _check_relations(c: ml_collections.ConfigDict) -> None:
    found = find_method(c.unlearn.method)
    _require(found.method.make_step is not None or set(c.unlearn.epochs) == {0}, c,
             "unlearn.epochs", f"(0,): {found.name} " + (
                 "trains as config.train says" if found.method.scheme
                 else "changes weights once and trains nothing"))
    _require(len(set(c.seeds)) == len(c.seeds), c, "seeds", "different seeds")
    _require(c.unlearn.from_seed in (-1, *c.seeds), c, "unlearn.from_seed",
             f"-1, or one of seeds {tuple(c.seeds)}")
    _require(c.train.class_weights == "none" or c.data.task == "classification", c,
             "train.class_weights", "'none' for data.task='regression'")
    _require(c.train.keep == "best" or not c.train.patience, c, "train.patience",
             "0 for train.keep='last': stopping early goes by the best epoch")
    _require(len(set(c.forget.sets)) == len(c.forget.sets), c, "forget.sets", "different sets")
    _require(len(set(c.unlearn.epochs)) == len(c.unlearn.epochs), c, "unlearn.epochs",
             "different budgets")
    _require(max(c.unlearn.epochs) <= _MOST_EPOCHS, c, "unlearn.epochs",
             f"budgets up to {_MOST_EPOCHS}")
    _require(abs(sum(c.data.split) - 1) < 1e-6 and min(c.data.split) > 0, c, "data.split",
             "three positive shares that add up to 1")
    _require(c.data.label_min < c.data.label_max, c, "data.label_min",
             f"below data.label_max ({c.data.label_max:g})")
    _check_groups(c)
    _require(len(c.model.head_dropout) == len(c.model.head_widths), c, "model.head_dropout",
             "one rate for each of model.head_widths")
    _require(all(p < 1 for p in c.model.head_dropout), c, "model.head_dropout", "rates below 1")
    _require(c.unlearn.offset[0] <= c.unlearn.offset[1], c, "unlearn.offset",
             "(smallest, largest)")
    _require(c.data.quality_brightness[0] < c.data.quality_brightness[1], c,
             "data.quality_brightness", "(darkest, brightest)")
    for section in ("train", "unlearn", "eval"):
        _require(c[section].batch_size % c.parallel.batch == 0, c, f"{section}.batch_size",
                 f"a multiple of parallel.batch ({c.parallel.batch})")
    losses = ("mae", "mse") if c.data.task == "regression" else ("cross_entropy",)
    _require(c.train.loss in losses, c, "train.loss",
             f"one of {_names(losses)} for data.task={c.data.task!r}")
    for name in c.eval.audits:
        _require(name in AUDITS, c, "eval.audits", f"a tuple of {_names(AUDITS)}")
    _require(len(set(c.eval.audits)) == len(c.eval.audits), c, "eval.audits", "different audits")
    for key in ("alphas", "within"):
        names = [f"{value:g}" for value in c.eval[key]]
        _require(len(set(names)) == len(names), c, f"eval.{key}", "different values")
    _require(c.eval.alpha in c.eval.alphas, c, "eval.alpha",
             f"one of eval.alphas {tuple(c.eval.alphas)}")
    if c.data.task == "classification":
        _require(max(c.eval.alphas) <= 1, c, "eval.alphas",
                 "values up to 1 for data.task='classification', whose errors are from 0 to 1")
    elif c.model.output == "sigmoid":
        low, high = c.model.output_offset, c.model.output_offset + c.model.output_scale
        _require(low <= c.data.label_min and c.data.label_max <= high, c, "model.output_scale",
                 f"what covers the labels from {c.data.label_min:g} to {c.data.label_max:g}: with "
                 f"model.output_offset={low:g} the sigmoid reaches from {low:g} to {high:g}")
    check_units(c, default_config())


def _check_groups(c: ml_collections.ConfigDict) -> None:
    groups = c.data.groups
    if groups:
        _require(c.data.task == "classification", c, "data.groups",
                 "() for data.task='regression'")
        _require(len(groups) > 1 and all(a < b for a, b in zip(groups, groups[1:])), c,
                 "data.groups", "at least two lower ends, ascending")
        _require(groups[0] == c.data.label_min and groups[-1] <= c.data.label_max, c,
                 "data.groups", f"lower ends from data.label_min ({c.data.label_min:g}) up to at "
                 f"most data.label_max ({c.data.label_max:g})")


def get(c: ml_collections.ConfigDict, key: str) -> Any:
    """The value at a dotted key, such as `train.epochs`."""
    for part in key.split("."):
        c = c[part]
    return c


def _check_tuple(c, key, kind, length, low, filled) -> None:
    value = get(c, key)
    kinds = (int, float) if kind is float else (kind,)
    what = f"a tuple of {kind.__name__}" + (f" of length {length}" if length else "")
    good = isinstance(value, tuple) and (length is None or len(value) == length)
    good = good and all(isinstance(v, kinds) and not isinstance(v, bool) for v in value)
    _require(good, c, key, what)
    _require(bool(value) or not filled, c, key, "at least one value")
    if kind is float:
        _require(all(map(math.isfinite, value)), c, key, "finite values")
    if kind is int:
        _require(all(v <= _MOST for v in value), c, key, f"values up to {_MOST}")
    if low is not None:
        _require(all(v >= low for v in value), c, key, f"values of at least {low:g}")


def _require(condition: bool, c: ml_collections.ConfigDict, key: str, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"config.{key} is {get(c, key)!r}; allowed: {allowed}")


def _names(values) -> str:
    return ", ".join(repr(v) for v in values)


def _range_text(low: float, high: float, real: bool) -> str:
    if high == math.inf:
        return f"{'a finite number of ' if real else ''}at least {low:g}"
    return f"from {low:g} to {high:.10g}"
