"""Explanations of a run's models: explain.csv, channels.csv and explanations/FORGETSET.npz.

The explanations of a stage's models are a stage of their own in the store. Comparisons of models
are computed anew in each run.
"""

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from unlearn_jax.attribution import channels
from unlearn_jax.attribution.likeness import KINDS, finite_mean, likeness, unit_maps
from unlearn_jax.attribution.population import Explainer, ExplainSettings, Explanation
from unlearn_jax.data.resident import Streamed
from unlearn_jax.data.splits import ForgetSet
from unlearn_jax.engine.layout import make_layout
from unlearn_jax.stages.graph import RunContext, Stage, forget_parts
from unlearn_jax.storage import checkpoints, store
from unlearn_jax.storage.store import stage_key
from unlearn_jax.system import disk, interrupt, processes
from unlearn_jax.system.bars import tracked

EXPLAIN, CHANNELS, FOLDER = "explain.csv", "channels.csv", "explanations"
EXPLAIN_COLUMNS = ("method", "forget_set", "epochs", "seed", "set", "map", "measure", "against",
                   "seeds", "value", "samples", "stage")
CHANNEL_COLUMNS = ("method", "forget_set", "epochs", "seed", "set", "layer", "channel", "mean",
                   "from_original", "from_retrain", "floor")
OF_RETRAINED = ("from_retrain", "floor")  # columns that a run without M_R leaves out
SETS = ("forget", "retain")
REFERENCES = ("original", "retrain")
MAPS = {"ig": "pixels", "gradcam": "places"}  # as in explain.csv; of an `Explanation`
CONTRAST = "forget-retain"
_SHOWN = 4  # images of each set whose maps are kept for the pictures
_STREAM = 0  # seed of the draw of samples: equal in all runs, so that maps can be compared


@dataclasses.dataclass(frozen=True, eq=False)
class _Explained:
    """A stage and the explanations of its models."""

    stage: Stage
    found: Explanation


def explain_stages(study: RunContext, stages: Sequence[Stage], sets: Sequence[str] = SETS) -> None:
    """Explains models and writes how their explanations differ.

    Args:
      study: what the run shares; `eval.explain_*` says how.
      stages: M_O, M_R of the forget sets, unlearned models. If a name has several budgets, the
        largest is explained.
      sets: some of `SETS`: the sample sets to explain.

    Raises:
      Interrupted: a signal asked for it (interrupt.py); finished explanations are stored.
    """
    ordered = sorted(stages, key=lambda s: (s.epochs, s.name))
    largest = {(s.name, s.forget_name): s for s in ordered}
    layout = make_layout(study.config.parallel, len(study.seeds))
    settings = ExplainSettings.from_config(study.config.eval)
    rows_of = {f.name: _set_rows(study, f, sets) for f in study.splits.forget_sets}
    samples = {name: {s: choose(study.dataset.ids, rows, settings.samples)
                      for s, rows in mine.items()} for name, mine in rows_of.items()}
    explainer = Explainer(study.model, layout, study.resident, settings,
                          study.config.train.batch_size,
                          max(sum(map(len, mine.values())) for mine in samples.values()))
    study = dataclasses.replace(study, resident=explainer.feed.data)
    rows: list[dict[str, Any]] = []
    channel_rows: list[dict[str, Any]] = []
    folder = study.run.directory / FOLDER
    if processes.is_first_process():
        folder.mkdir(exist_ok=True)
    for forget_set in study.splits.forget_sets:
        whole, chosen = rows_of[forget_set.name], samples[forget_set.name]
        mine = [s for s in largest.values() if s.forget_name in ("", forget_set.name)]
        explained = [_explained(study, explainer, stage, forget_set, whole, chosen) for stage in
                     tracked(study.bar, mine, f"explanations, {forget_set.name}", "models")]
        if not processes.is_first_process():
            continue  # the first process does the rest
        rows += _map_rows(study, forget_set, explained, chosen)
        found, shares = _channel_rows(study, forget_set, explained, whole)
        rows += shares
        channel_rows += found
        disk.write_file(folder / f"{forget_set.name}.npz", functools.partial(
            np.savez_compressed, **_pictures(study, explained, chosen)))
    study.run.record_start("explain", explainer.compile_seconds, None)
    study.run.write_table(EXPLAIN, rows, EXPLAIN_COLUMNS)
    without = OF_RETRAINED if study.config.retrain.mode == "off" else ()
    columns = [c for c in CHANNEL_COLUMNS if c not in without]
    study.run.write_table(CHANNELS, ({c: row[c] for c in columns} for row in channel_rows), columns)


def choose(ids: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """`count` of the rows at random, or all if there are fewer. Equal ids give equal rows.

    Args:
      ids: `[N]` of the data set.
      rows: `[n]` data set rows.
    """
    ordered = rows[np.argsort(ids[rows], kind="stable")]
    if len(ordered) <= count:
        return ordered
    return ordered[np.random.default_rng(_STREAM).choice(len(ordered), count, replace=False)]


def _set_rows(study: RunContext, forget_set: ForgetSet,
              sets: Sequence[str]) -> dict[str, np.ndarray]:
    every = {"forget": study.splits.forget(forget_set),
             "retain": study.splits.retain_train(forget_set)}
    return {name: every[name] for name in sets}


def _explained(study: RunContext, explainer: Explainer, stage: Stage, forget_set: ForgetSet,
               rows_of: dict[str, np.ndarray], samples: dict[str, np.ndarray]) -> _Explained:
    """The explanation of a stage, from the store or computed."""
    matched = stage.method == "retrain"
    parts = {"model": stage.key, "forget": forget_parts(study, forget_set),
             "sets": tuple(rows_of), "settings": dataclasses.asdict(explainer.settings)}
    key = stage_key("explain", parts)
    status, began, compiled = "reused", time.monotonic(), explainer.compile_seconds
    chosen = np.concatenate(list(samples.values()))
    if not study.store.complete("explain", key):
        status = "computed"
        interrupt.leave_if_requested()
        variables, metadata = checkpoints.restore(stage.directory(study.store) / "checkpoint")
        explanation = explainer.explain(variables, chosen, rows_of, matched)
        with study.store.write("explain", key, parts) as directory:
            np.savez(directory / "explanation.npz", failed=np.array(metadata["failed"]),
                     **_flat(explanation))
    explanation = _without_failed(store.load_arrays(study.store.path("explain", key),
                                                    "explanation.npz"))
    seconds = time.monotonic() - began - (explainer.compile_seconds - compiled)
    logging.info("%s %s: %d images explained (%s, %.1f s)", stage.name, forget_set.name,
                 len(chosen), status, seconds)
    study.run.record_stage("explain", forget_set.name, key, status, seconds,
                           len(study.seeds) * len(chosen), len(study.seeds), stage.epochs)
    return _Explained(stage, explanation)


def _flat(found: Explanation) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(found):
        value = getattr(found, field.name)
        if isinstance(value, dict):
            flat |= {f"{field.name}/{name}/{layer}": array
                     for name, layers in value.items() for layer, array in layers.items()}
        else:
            flat[field.name] = value
    return flat


def _without_failed(found: dict[str, np.ndarray]) -> Explanation:
    """The stored explanation, with NaN for members that failed or whose outputs are not finite."""
    arrays: dict[str, Any] = {"channels": {}, "partners": {}}
    failed = found.pop("failed") | ~np.isfinite(found["values"]).all(1)
    for name, array in found.items():
        array[failed] = np.nan
        field, *path = name.split("/")
        if path:
            arrays[field].setdefault(path[0], {})[path[1]] = array
        else:
            arrays[field] = array
    return Explanation(**arrays)


def _slices(samples: dict[str, np.ndarray]) -> dict[str, slice]:
    ends = np.cumsum([0, *(len(rows) for rows in samples.values())])
    return {name: slice(a, b) for name, a, b in zip(samples, ends[:-1], ends[1:])}


def _map_rows(study: RunContext, forget_set: ForgetSet, explained: list[_Explained],
              samples: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """Rows of explain.csv: likeness of maps and of the difference D_f − D_r, and completeness."""
    where = _slices(samples)
    for map_name, field in MAPS.items():
        for kind in KINDS:
            of_set: dict[str, list[np.ndarray]] = {}
            for e in explained:
                maps = getattr(e.found, field)
                units = unit_maps(maps, kind)
                for name, rows in where.items():
                    of_set.setdefault(name, []).append(units[:, rows])
                if set(where) == set(SETS):
                    of_set.setdefault(CONTRAST, []).append(
                        unit_maps(_contrast(maps, where)[:, None], kind))
            for name, of_stages in of_set.items():
                yield from _likeness_rows(study, forget_set, explained, of_stages, name, map_name,
                                          kind)
    for e in explained:
        for name, rows in where.items():
            missing = np.abs(e.found.unexplained[:, rows])
            yield from _rows(study, forget_set, e.stage, missing.mean(1), missing.shape[1],
                             set=name, map="ig", measure="unexplained")


def _contrast(maps_MNHW: np.ndarray, where: dict[str, slice]) -> np.ndarray:
    """The mean map over D_f minus the mean map over D_r, `[M, H, W]`."""
    return (maps_MNHW[:, where["forget"]].mean(1, dtype=np.float64)
            - maps_MNHW[:, where["retain"]].mean(1, dtype=np.float64))


def _likeness_rows(study: RunContext, forget_set: ForgetSet, explained: list[_Explained],
                   units: list[np.ndarray], name: str, map_name: str,
                   kind: str) -> Iterator[dict[str, Any]]:
    for e, mine in zip(explained, units):
        for reference, theirs in zip(explained, units):
            if reference.stage.method not in REFERENCES:
                continue
            own = _own(study, e.stage, reference.stage.method)
            pairs = dict(zip(("same", "other"), likeness(mine, theirs, own)))
            for seeds, values_MN in pairs.items():
                if (seeds == "same" and reference is e) or (seeds == "other" and len(mine) < 2):
                    continue
                yield from _rows(study, forget_set, e.stage, finite_mean(values_MN, 1),
                                 np.isfinite(values_MN).sum(1), set=name, map=map_name,
                                 measure=kind, against=reference.stage.method, seeds=seeds)


def _channel_rows(study: RunContext, forget_set: ForgetSet, explained: list[_Explained],
                  rows_of: dict[str, np.ndarray]) -> tuple[list[dict], list[dict]]:
    """Rows of channels.csv, and for explain.csv the shares of channels that changed."""
    references = {e.stage.method: e.found for e in explained if e.stage.method in REFERENCES}
    retrained = references.get("retrain")
    rows, shares = [], []
    for e in explained:
        for name in rows_of:
            for layer, means in e.found.channels[name].items():
                floor = channels.noise_floor(retrained.channels[name][layer],
                                             retrained.partners[name][layer]
                                             ) if retrained else np.nan
                changes = {r: means - found.channels[name][layer][_own(study, e.stage, r)]
                           for r, found in references.items()}
                nothing = np.full_like(means, np.nan)
                rows += [{"method": e.stage.name, "forget_set": forget_set.name,
                          "epochs": e.stage.epochs, "seed": seed, "set": name, "layer": layer,
                          "channel": c, "mean": float(means[m, c]),
                          **{f"from_{r}": float(changes.get(r, nothing)[m, c])
                             for r in REFERENCES}, "floor": floor}
                         for m, seed in enumerate(study.seeds) for c in range(means.shape[1])]
                if study.config.retrain.mode == "off":
                    continue  # a share of changed channels needs the floor of M_Rs
                pairs = [(r, "same", change) for r, change in changes.items()
                         if r != e.stage.method]
                if e.stage.method == "retrain":
                    pairs.append(("retrain", "other", means - e.found.partners[name][layer]))
                for reference, seeds, change in pairs:
                    shares += _rows(
                        study, forget_set, e.stage, _share_above(change, floor),
                        len(rows_of[name]), set=name, map=layer, measure="changed_channels",
                        against=reference, seeds=seeds)
    return rows, shares


def _own(study: RunContext, stage: Stage, reference: str) -> np.ndarray:
    """`[M]`: the reference of each member: the M_O of its start, or its seed's M_R."""
    return stage.started(study.seeds) if reference == "original" else np.arange(len(study.seeds))


def _share_above(change_MC: np.ndarray, floor: float) -> np.ndarray:
    """Share `[M]` of channels that changed beyond the floor; NaN without one, or if it failed."""
    share = (np.abs(change_MC) > floor).mean(1)
    share[~np.isfinite(change_MC).all(1) | ~np.isfinite(floor)] = np.nan
    return share


def _rows(study: RunContext, forget_set: ForgetSet, stage: Stage, values_M: np.ndarray,
          samples: int | np.ndarray, **names: str) -> list[dict[str, Any]]:
    counts = np.broadcast_to(samples, values_M.shape)
    return [{"method": stage.name, "forget_set": forget_set.name, "epochs": stage.epochs,
             "seed": seed, "against": "", "seeds": "", **names, "value": float(value),
             "samples": int(count), "stage": stage.key}
            for seed, value, count in zip(study.seeds, values_M, counts, strict=True)]


def _pictures(study: RunContext, explained: list[_Explained],
              samples: dict[str, np.ndarray]) -> dict[str, Any]:
    """Arrays for the report's pictures: some images with their maps, and mean maps; seed means.

    Arrays: images `[n, H, W, 3]`, ids, labels, sets `[n]`; methods, epochs `[K]`; values `[K, n]`;
    set_names `[S]`; for each map MAP `[K, n, H', W']` and mean_MAP `[K, S, H', W']`.
    """
    where = _slices(samples)
    shown = np.concatenate([np.arange(s.start, min(s.stop, s.start + _SHOWN))
                            for s in where.values()])
    rows = np.concatenate(list(samples.values()))[shown]
    resident = study.resident
    if isinstance(resident, Streamed):
        images = resident.read(rows)
    else:
        assert resident.images is not None  # they are None only inside programs that stream
        # Each process has all images on its own devices.
        images = np.asarray(resident.images.addressable_data(0)[rows])
    arrays = {
        "images": images, "ids": study.dataset.ids[rows].astype(str),
        "labels": np.asarray(resident.labels.addressable_data(0))[rows],
        "sets": np.concatenate([[name] * min(_SHOWN, len(samples[name])) for name in where]),
        "methods": np.array([e.stage.name for e in explained]),
        "epochs": np.array([e.stage.epochs for e in explained]),
        "set_names": np.array(list(where)),
        "values": np.stack([finite_mean(e.found.values[:, shown], 0) for e in explained])}
    for name, field in MAPS.items():
        maps = [getattr(e.found, field) for e in explained]
        arrays[name] = np.stack([finite_mean(m[:, shown], 0) for m in maps])
        arrays[f"mean_{name}"] = np.stack([
            np.stack([finite_mean(m[:, rows].mean(1), 0) for rows in where.values()])
            for m in maps])
    return arrays
