"""Checks of the config that involve more than one key."""

import ml_collections

from unlearn_jax.config.keys import KEYS
from unlearn_jax.config.values import names, require
from unlearn_jax.data.given import is_given
from unlearn_jax.methods import find_method
from unlearn_jax.metrics.catalogue import AUDITS, AUDITS_OF_RETRAINED


def check_relations(c: ml_collections.ConfigDict) -> None:
    """Refuses values that contradict each other, each of them allowed by the table.

    Raises:
      ConfigError: names one of the keys, its value and what the others allow.
    """
    found = find_method(c.unlearn.method)
    require(found.method.make_step is not None or set(c.unlearn.epochs) == {0}, c,
            "unlearn.epochs", f"(0,): {found.name} " + (
                "trains as config.train says" if found.method.scheme
                else "changes weights once and trains nothing"))
    if c.retrain.mode == "off":
        _check_without_retrained(c)
    _check_outside(c)
    require(c.unlearn.from_seed in (-1, *c.seeds), c, "unlearn.from_seed",
            f"-1, or one of seeds {tuple(c.seeds)}")
    require(c.train.class_weights == "none" or c.data.task == "classification", c,
            "train.class_weights", "'none' for data.task='regression'")
    require(c.train.keep == "best" or not c.train.patience, c, "train.patience",
            "0 for train.keep='last': stopping early goes by the best epoch")
    given = is_given(c.data)
    for key, shares in (("data.split", () if given else c.data.split),
                        ("data.split_shares", c.data.split_shares)):
        require(not shares or abs(sum(shares) - 1) < 1e-6 and min(shares) > 0, c, key,
                "three positive shares that add up to 1")
    default = KEYS["data.split_shares"].default
    require(given or c.data.split_shares == default, c, "data.split_shares",
            f"{default} unless data.split='given'; data.split has the shares")
    require(c.data.label_min < c.data.label_max, c, "data.label_min",
            f"below data.label_max ({c.data.label_max:g})")
    _check_groups(c)
    require(len(c.model.head_dropout) == len(c.model.head_widths), c, "model.head_dropout",
            "one rate for each of model.head_widths")
    require(all(p < 1 for p in c.model.head_dropout), c, "model.head_dropout", "rates below 1")
    require(c.unlearn.offset[0] <= c.unlearn.offset[1], c, "unlearn.offset",
            "(smallest, largest)")
    require(c.data.quality_brightness[0] < c.data.quality_brightness[1], c,
            "data.quality_brightness", "(darkest, brightest)")
    for section in ("train", "unlearn", "eval"):
        require(c[section].batch_size % c.parallel.batch == 0, c, f"{section}.batch_size",
                f"a multiple of parallel.batch ({c.parallel.batch})")
    losses = ("mae", "mse") if c.data.task == "regression" else ("cross_entropy",)
    require(c.train.loss in losses, c, "train.loss",
            f"one of {names(losses)} for data.task={c.data.task!r}")
    require(c.eval.alpha in c.eval.alphas, c, "eval.alpha",
            f"one of eval.alphas {tuple(c.eval.alphas)}")
    if c.data.task == "classification":
        require(max(c.eval.alphas) <= 1, c, "eval.alphas",
                "values up to 1 for data.task='classification', whose errors are from 0 to 1")
    elif c.model.output == "sigmoid":
        low, high = c.model.output_offset, c.model.output_offset + c.model.output_scale
        require(low <= c.data.label_min and c.data.label_max <= high, c, "model.output_scale",
                f"what covers the labels from {c.data.label_min:g} to {c.data.label_max:g}: with "
                f"model.output_offset={low:g} the sigmoid reaches from {low:g} to {high:g}")


def _check_without_retrained(c: ml_collections.ConfigDict) -> None:
    """Refuses what compares with M_R, in a run that has none."""
    found, off = find_method(c.unlearn.method), "for retrain.mode='off'"
    require(found.name != "retrain" and not found.method.scheme, c, "unlearn.method",
            f"methods that unlearn M_O, {off}: {found.name} trains or needs M_R")
    require(not c.compare.methods, c, "compare.methods",
            f"() {off}: a budget is a share of what retraining took")
    require(not c.thesis.arms, c, "thesis.arms", f"() {off}: the study compares with M_R")
    require(not c.retrain.path, c, "retrain.path", f"'' {off}")
    require(not c.eval.relearn_epochs, c, "eval.relearn_epochs",
            f"0 {off}: the time to relearn is compared with M_R's")
    alone = tuple(a for a in AUDITS if a not in AUDITS_OF_RETRAINED)
    require(set(c.eval.audits) <= set(alone), c, "eval.audits",
            f"a tuple of {names(alone)} {off}: the others compare with M_R")


def _check_outside(c: ml_collections.ConfigDict) -> None:
    """Refuses what cannot be known of M_O and M_R from files."""
    trained, given = "for original.path=''", "for retrain.path, whose cost is not known"
    if not c.original.path:
        require(not c.original.trained_on, c, "original.trained_on", f"'' {trained}")
        require(c.original.expected_test < 0, c, "original.expected_test", f"-1 {trained}")
    require("{forget_set}" not in c.original.path, c, "original.path",
            "a path without {forget_set}: M_O has none")
    if not c.retrain.path:
        return
    require(len(c.forget.sets) == 1 or "{forget_set}" in c.retrain.path, c, "retrain.path",
            f"a path with {{forget_set}} in it, or one forget set (there are {len(c.forget.sets)})")
    require(not c.compare.methods, c, "compare.methods", f"() {given}")
    require(not c.thesis.arms, c, "thesis.arms", f"() {given}")
    require(not find_method(c.unlearn.method).method.scheme, c, "unlearn.method",
            f"methods that unlearn M_O {given}")
    if len(c.seeds) > 1 and "{seed}" not in c.retrain.path:
        one = "for one M_R of all seeds: retrain.path has no {seed}"
        require(not set(c.eval.audits) & set(AUDITS_OF_RETRAINED), c, "eval.audits",
                f"audits without {names(AUDITS_OF_RETRAINED)} {one}")
        require(not c.eval.explain_samples, c, "eval.explain_samples", f"0 {one}")


def _check_groups(c: ml_collections.ConfigDict) -> None:
    groups = c.data.groups
    if groups:
        require(c.data.task == "classification", c, "data.groups",
                "() for data.task='regression'")
        require(len(groups) > 1 and all(a < b for a, b in zip(groups, groups[1:])), c,
                "data.groups", "at least two lower ends, ascending")
        require(groups[0] == c.data.label_min and groups[-1] <= c.data.label_max, c,
                "data.groups", f"lower ends from data.label_min ({c.data.label_min:g}) up to at "
                f"most data.label_max ({c.data.label_max:g})")
