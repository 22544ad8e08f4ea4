"""Work directories made with NumPy: the files of a run, without a run."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd

from unlearn_jax.report.render import markdown
from unlearn_jax.report.render.document import Document, Figure, Row
from unlearn_jax.report.sections.page import build
from unlearn_jax.report.tables.inputs import read_run

RANGE = (20, 28)
ORIGINAL = "0123456789abcdef"


def write_workdir(path: Path, *, task="regression", seeds=(0, 1, 2), sets=("20-28",),
                  methods=("ft",), budgets=(2,), samples=60, failed=(), history=True,
                  alphas=(2.0, 5.0, 15.0), steps=("all", "train", "balanced")) -> Path:
    """Writes results.csv, predictions/, history.csv, data.json, dropped.csv and run.json.

    Args:
      path: the folder, created if missing.
      failed: (method, seed) of members with NaN outputs.
      steps: histograms in data.json.
    """
    path.mkdir(parents=True, exist_ok=True)
    (path / "predictions").mkdir(exist_ok=True)
    rng = np.random.default_rng(7)
    rows = []
    for name in sets:
        labels = {s: _labels(rng, task, samples, s == "forget") for s in
                  ("test", "forget", "retain", "validation")}
        ids = {s: np.array([f"{s}-{i:05d}" for i in range(samples)]) for s in labels}
        models = [("original", 0, 0.0), ("retrain", 12, 1.0)]
        models += [(m, b, 0.3 + 0.3 * i / len(budgets)) for m in methods
                   for i, b in enumerate(budgets)]
        errors = {}
        for method, budget, pull in models:
            outputs = {s: _outputs(rng, task, labels[s], len(seeds), pull, s) for s in labels}
            for m, seed in enumerate(seeds):
                if (method, seed) in failed:
                    for array in outputs.values():
                        array[m] = np.nan
            for split, array in outputs.items():
                np.savez(path / "predictions" / f"{method}.{name}.{budget}.{split}.npz",
                         outputs=array, labels=labels[split], ids=ids[split],
                         seeds=np.array(seeds))
            errors[method, budget] = {s: _errors(outputs[s], labels[s]) for s in labels}
            errors[method, budget]["outputs"] = outputs
        rows += _rows(name, models, errors, labels, seeds, alphas, task)
    write_csv(path / "results.csv",
              ("method", "forget_set", "epochs", "seed", "metric", "value", "stage"), rows)
    if history:
        write_csv(path / "history.csv",
                  ("stage", "forget_set", "seed", "epoch", "steps", "train_loss",
                   "validation_loss", "best", "learning_rate", "images"),
                  _history(rng, sets, methods, budgets, seeds))
    write_csv(path / "dropped.csv", ("id", "step", "reason"), [("a.jpg", "read", "truncated")])
    write_json(path / "data.json", _data(rng, task, sets, samples, steps))
    loss = "mae" if task == "regression" else "cross_entropy"
    write_json(path / "run.json", {
        "config_name": "ft", "command": "python -m unlearn_jax.main --config=configs/ft.py",
        "config": {"seeds": list(seeds), "data": {"source": "synthetic"},
                   "train": {"epochs": 12, "loss": loss}, "eval": {"alpha": 15.0}},
        "versions": {"jax": "0.10.2", "numpy": "2.4.0"}, "device": "cpu: 2 cores",
        "data_fingerprint": "f00d", "started": "2025-01-01T10:00:00", "seconds": 61.5,
        "stages": [
            {"stage": "original", "forget_set": "", "epochs": 12, "key": ORIGINAL,
             "status": "computed", "seconds": 20.0, "members": len(seeds), "images": 36000,
             "images_per_s": 1800.0},
            {"stage": "predictions", "forget_set": "", "key": "fedcba9876543210",
             "status": "reused", "seconds": 0.1, "members": None, "images": None,
             "images_per_s": None},
            *({"stage": m, "forget_set": s, "epochs": b, "key": stage_key(m, s, b),
               "status": "computed", "seconds": 5.0, "members": len(seeds), "images": 2500 * b,
               "images_per_s": 500.0}
              for s in sets for m, b in (("retrain", 12), *((m, b) for m in methods
                                                            for b in budgets)))],
        "compile_seconds": {"train": 28.25}, "first_step_seconds": {"train": 30.5},
        "warnings": []})
    return path


def stage_key(method: str, forget_set: str, budget: int) -> str:
    """A text in place of the key of a model's stage."""
    return ORIGINAL if method == "original" else f"{method}-{forget_set}-{budget}"


def write_comparison(path: Path, *, methods=("ft", "rnd"), sets=("20-28",), trials=2,
                     rank_by="forgetting", budget=2, short=False, **options) -> Path:
    """The work directory of a comparison that chooses the last trial of each method.

    `short`: with the models of short retraining.
    """
    write_workdir(path, methods=(*methods, *(("retrain_short",) if short else ())), sets=sets,
                  budgets=(budget,), **options)
    rows = [(m, s, t + 1, 0.001 * (t + 1), "", "nan", budget, 5.0 + t, 6.5, True,
             t == trials - 1, 2500, 1.5, 1e9, "", f"stage-{m}-{t}",
             f"python -m unlearn_jax.main --config=configs/{m}.py --config.x={t}")
            for m in methods for s in sets for t in range(trials)]
    write_csv(path / "trials.csv",
              ("method", "forget_set", "trial", "learning_rate", "option", "strength", "epochs",
               "validation_error", "limit", "within", "chosen", "images", "seconds", "flops",
               "note", "stage", "command"), rows)
    run = json.loads((path / "run.json").read_text())
    run["config"]["compare"] = {"methods": list(methods), "budget": "images", "fraction": 0.25,
                                "trials": trials, "tolerance": 0.05, "rank_by": rank_by}
    write_json(path / "run.json", run)
    return path


def write_thesis(path: Path, *, sets=("20-28", "28-36", "36-44", "44-52", "52-60"),
                 alphas=(2.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0), budgets=(2, 4, 8, 16),
                 steps=("all", "fraction", "range", "quality", "train", "validation", "test",
                        "balanced"), **options) -> Path:
    """The work directory of a run of the reference study; every arm has all budgets on all sets."""
    arms = {"ft": {"method": "ft"},
            "rnd": {"method": "rnd", "labels": "uniform", "label_units": "years"},
            "rnd_offset": {"method": "rnd", "labels": "offset", "label_units": "years"},
            "rnd_units": {"method": "rnd", "labels": "offset", "label_units": "as_published"}}
    write_workdir(path, methods=tuple(arms), sets=sets, budgets=budgets, alphas=alphas,
                  steps=steps, **options)
    run = json.loads((path / "run.json").read_text())
    run["config_name"] = "thesis:demo"
    run["config"]["thesis"] = {"arms": list(arms), "unlearn": arms,
                               "elsewhere": {a: [8 if a == "ft" else 2] for a in arms}}
    run["config"]["unlearn"] = {"method": "ft", "offset": [3, 6], "epochs": list(budgets)}
    run["config"]["model"] = {
        "name": "resnet50", "stem": "imagenet", "width": 64, "projection": 512,
        "head_widths": [256, 128], "head_dropout": [0.5, 0.2], "output": "sigmoid",
        "output_scale": 60.0, "output_offset": 0.0, "pretrained": ""}
    run["config"]["data"] |= {"image_size": 224, "balance": 150}
    write_json(path / "run.json", run)
    return path


def write_csv(path: Path, columns, rows) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value))


def _labels(rng, task, n, forget):
    if task == "classification":
        return np.full(n, 3, np.int32) if forget else rng.integers(0, 5, n).astype(np.int32)
    low, high = RANGE if forget else (20, 60)
    return rng.integers(low, high + 1, n).astype(np.float32)


def _outputs(rng, task, labels, members, pull, split):
    """Outputs with larger errors on the forget set as `pull` goes from 0 (M_O) to 1 (M_R)."""
    n = len(labels)
    if task == "classification":
        logits = rng.normal(0, 1, (members, n, 5)) + 3 * np.eye(5)[labels]
        logits[..., 3] -= 5 * pull
        return logits.astype(np.float32)
    known = 0.7 * labels + 12
    unknown = np.maximum(known, 38 + 0.1 * (labels - 28))
    mean = np.where(labels <= RANGE[1], (1 - pull) * known + pull * unknown, known)
    noise = 3.0 if split in ("forget", "retain") else 4.5
    shared = rng.normal(0, noise, n)
    return (mean + shared + rng.normal(0, 1.5, (members, n))).astype(np.float32)


def _errors(outputs, labels):
    if outputs.ndim == 2:
        return np.abs(outputs - labels)
    p = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    return 1 - np.take_along_axis(p, labels[None, :, None].astype(int), -1)[..., 0]


def _mean(values):
    finite = values[np.isfinite(values)]
    return finite.mean() if len(finite) else np.nan


def _rows(name, models, errors, labels, seeds, alphas, task):
    rows = []
    reference = errors["retrain", 12]
    kind = "accuracy" if task == "classification" else "mae"

    def add(method, budget, metric, values, of=seeds):
        stage = "" if method == "median" else stage_key(method, name, budget)
        rows.extend((method, name, budget, seed, metric, float(v), stage)
                    for seed, v in zip(of, values, strict=True))

    def score(errs, split):
        if task == "regression":
            return errs[split].mean(axis=1)
        outputs = errs["outputs"][split]
        right = (outputs.argmax(-1) == labels[split]).mean(axis=1)
        return np.where(np.isfinite(outputs).all((1, 2)), right, np.nan)

    for method, budget, _ in models:
        mine = errors[method, budget]
        for split in labels:
            add(method, budget, f"{kind}_{split}", score(mine, split))
        ratio = score(reference, "test") / score(mine, "test")
        utility = 1 / ratio if task == "classification" else ratio
        add(method, budget, "utility", utility)
        for alpha in alphas:
            if method != "retrain":
                f = np.exp(-np.abs(reference["forget"] - mine["forget"]) / alpha).mean(axis=1)
                add(method, budget, f"forgetting@{alpha:g}", f)
                add(method, budget, f"F@{alpha:g}", f * utility)
                add(method, budget, f"averaged:forgetting@{alpha:g}", [_mean(f)], (-1,))
            if len(seeds) > 1:
                pairs = np.exp(-np.abs(mine["forget"][:, None] - reference["forget"][None])
                               / alpha).mean(-1)
                bad = ~np.isfinite(np.diag(pairs))
                pairs[bad], pairs[:, bad] = np.nan, np.nan
                np.fill_diagonal(pairs, np.nan)
                metric = "ceiling" if method == "retrain" else "forgetting_across"
                add(method, budget, f"{metric}@{alpha:g}", [
                    _mean(np.concatenate(both)) for both in zip(pairs, pairs.T)])
        add(method, budget, f"averaged:{kind}_test", [_mean(score(mine, "test"))], (-1,))
        cost = {"original": 36000, "retrain": 30000}.get(method, 2500 * budget)
        add(method, budget, "images", [cost] * len(seeds))
        add(method, budget, "wall_seconds", [cost / 1800 + 0.1 * s for s in seeds])
        if method != "original":
            add(method, budget, "images_vs_retrain", [cost / 30000] * len(seeds))
            add(method, budget, "wall_vs_retrain", [cost / 30000 + 0.001 * s for s in seeds])
            add(method, budget, "flops_vs_retrain", [cost / 29000] * len(seeds))
    for split in labels:
        constant = 0.2 if task == "classification" else np.abs(labels[split] - 34).mean()
        add("median", 0, f"{kind}_{split}", [constant] * len(seeds))
    return rows


def _history(rng, sets, methods, budgets, seeds):
    rows = []
    stages = [("original", "", 12)] + [("retrain", s, 12) for s in sets]
    stages += [(m, s, max(budgets)) for m in methods for s in sets]
    for stage, forget_set, epochs in stages:
        scratch = stage in ("original", "retrain")
        for seed in seeds:
            least = np.inf
            for epoch in range(1, epochs + 1):
                start = 11 * np.exp(-epoch / 4) if scratch else 0.5 / epoch
                train = start + 4 + rng.normal(0, 0.1)
                validation = start + 5.5 + 0.04 * epoch + rng.normal(0, 0.25) if scratch \
                    else np.nan
                best, least = validation < least, min(least, validation)
                rows.append((stage, forget_set, seed, epoch, 40 * epoch, train, validation,
                             bool(best), 1e-3, 2500 * epoch))
    return rows


def _data(rng, task, sets, samples, steps):
    histograms = {}
    for step in steps:
        if task == "classification":
            counts = {str(c): int(rng.integers(200, 300)) for c in range(5)}
        else:
            top = 101 if step in ("all", "fraction") else 61
            low = 1 if step in ("all", "fraction") else 20
            counts = {str(a): int(20 + 180 * np.exp(-((a - 26) / 12) ** 2) + rng.integers(0, 20))
                      for a in range(low, top)}
            if step == "balanced":
                counts = {a: max(n, 150) for a, n in counts.items()}
        histograms[step] = counts
    request = "class:3" if task == "classification" else "20-28"
    return {
        "source": "synthetic", "fingerprint": "f00d", "task": task,
        "label_unit": "class" if task == "classification" else "years",
        "num_classes": 5 if task == "classification" else 0,
        "class_names": list("12345") if task == "classification" else [],
        "counts": {"all": 5000, "used": 4990, "train": 2994, "validation": 998, "test": 998,
                   "train_balanced": 6150, "dropped": 10},
        "histograms": histograms,
        "forget_sets": {s: {"request": request if i == 0 else s, "train": 1500 + i,
                            "validation": 500, "share": 0.5} for i, s in enumerate(sets)},
        "dropped_reasons": {"truncated": 7, "age missing in the name": 3}}


def change_results(workdir: Path, changes: dict) -> None:
    """Sets values: {(method, metric): values by seed}; None removes the rows."""
    table = pd.read_csv(workdir / "results.csv", keep_default_na=False, dtype=str)
    for (method, metric), values in changes.items():
        at = (table.method == method) & (table.metric == metric)
        assert at.any(), (method, metric)
        if values is None:
            table = table[~at]
        else:
            table.loc[at, "value"] = [str(v) for v in values]
    table.to_csv(workdir / "results.csv", index=False)


def change_json(path: Path, change) -> None:
    """Calls `change` with the content of the file; `change` alters it."""
    value = json.loads(path.read_text())
    change(value)
    write_json(path, value)


def figures_of(document: Document) -> list[str]:
    """The files of a report's figures, in its order."""
    def of(sections):
        for s in sections:
            yield from of_blocks(s.blocks)
            yield from of(s.sections)

    def of_blocks(blocks):
        for block in blocks:
            figures = block.figures if isinstance(block, Row) else [block]
            yield from (f.file for f in figures if isinstance(f, Figure))

    return [*of_blocks(document.introduction), *of(document.sections)]


def text_report(workdir: Path) -> str:
    """The report in Markdown, without pictures."""
    return markdown.render(build(read_run(workdir)))
