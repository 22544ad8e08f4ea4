"""Deletions with SISA: the measured speed-up beside the nominal one:  python -m benchmarks.sisa

One sample, one per cent and one class (of the demo's ages: 20 to 28) are to be deleted from the
demo's synthetic faces and from scikit-learn's digits. Each deletion is a population of its own,
and so is each retraining that it is compared with: M_R, which plain training needs, and the whole
ensemble. The cost of a deletion depends on the sample's shard and slice. So `--samples` samples are
deleted one at a time, for each seed; each seed has its own shards.
"""

import argparse
import ast
import sys
import tempfile
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from benchmarks import measure
from configs import sisa as config_file
from unlearn_jax import data
from unlearn_jax.config import check_config
from unlearn_jax.data.splits import make_splits
from unlearn_jax.results import Outcome
from unlearn_jax.stages import sisa, workdir
from unlearn_jax.stages.evaluate import Models
from unlearn_jax.stages.graph import RunContext, original_stage, retrain_stage
from unlearn_jax.stages.loading import prepare
from unlearn_jax.stages.models import train_missing
from unlearn_jax.storage import checkpoints
from unlearn_jax.storage.store import Store

SCALES = {"synthetic": "", "digits": "digits"}
CLASSES = {"synthetic": "20-28", "digits": "class:3"}
COSTS = ("seconds", "images")


def main() -> None:
    """Prints the table; see `--help`."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=SCALES, default=[*SCALES], help="data sets")
    parser.add_argument("--samples", type=int, default=4, help="single samples, one at a time")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE",
                        help="keys of the config, such as unlearn.sisa.shards=10")
    parser.add_argument("--n", type=int, default=3, help="rounds, each from an empty store")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    rows = []
    for name in args.data:
        rounds = []
        for _ in range(args.n):
            with tempfile.TemporaryDirectory() as folder:
                rounds.append(_round(name, args, Path(folder)))
        rows += [_row(name, request, [r[request] for r in rounds]) for request in rounds[0]]
    measure.finish(args, rows)


def _round(name: str, args: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """Costs and speed-ups by request, each trained once."""
    c = config_file.get_config(SCALES[name])
    c.update_from_flattened_dict({key: _value(text) for key, _, text in
                                  (pair.partition("=") for pair in args.set)})
    check_config(c)
    store = Store(folder / "store")
    store.create()
    found = {}
    requests = {"one sample": [f"ids:{path}" for path in _single(c, store, folder, args.samples)],
                "one per cent": ["random:0.01"], "one class": [CLASSES[name]]}
    for title, sets in requests.items():
        deleted, retrained = [], None
        for i, request in enumerate(sets):
            with c.unlocked():
                c.forget.sets = (request,)
            directory = folder / f"{title}-{i}".replace(" ", "-")
            with workdir.claim(directory, c, "sisa", "python -m benchmarks.sisa") as run:
                study = prepare(c, "sisa", store, run, None)
                scheme = sisa.make_scheme(study, original_stage(study), c.unlearn.sisa)
                ensemble, models = scheme.run()
                # Retraining without one sample costs the same for every sample.
                retrained = retrained or _retrain(study)
            deleted.append(models)
        found[title] = _figures(ensemble, retrained, deleted)
        print(f"{name}, {title}: " + ", ".join(f"{k} {v:.4g}" for k, v in found[title].items()),
              file=sys.stderr, flush=True)
    return found


def _single(c: ml_collections.ConfigDict, store: Store, folder: Path, count: int) -> list[Path]:
    """Files that list one training sample each."""
    dataset = data.load(c.data, store.root / "data")
    train = make_splits(dataset, c.data, c.forget).train
    paths = []
    for row in np.random.default_rng(0).choice(train, count, replace=False):
        paths.append(folder / f"sample-{row}.txt")
        paths[-1].write_text(f"{dataset.ids[row]}\n")
    return paths


def _retrain(study: RunContext) -> Outcome:
    """The costs of M_R for all seeds; no predictions are made."""
    (forget_set,) = study.splits.forget_sets
    stage = retrain_stage(study, original_stage(study), forget_set)
    train_missing(study, [stage])
    described, _ = checkpoints.describe(stage.directory(study.store) / "checkpoint")
    return _outcome(stage.method, described, study.seeds)


def _outcome(method: str, described: dict[str, Any], seeds: tuple[int, ...]) -> Outcome:
    costs = {name: np.array(described[name])
             for name in ("images", "seconds", "epochs_trained", "failed", "flops")}
    return Outcome(method=method, forget_set="", epochs=0, stage="", seeds=seeds, outputs={},
                   steps=np.array(described["step"]), **costs)


def _figures(ensemble: Models, retrained: Outcome, deleted: list[Models]) -> dict[str, float]:
    """Costs summed over seeds and averaged over several deletions."""
    delete = {k: float(np.mean([np.sum(m.costs[k]) for m in deleted])) for k in COSTS}
    counted = deleted[0].measures(_outcome("sisa", deleted[0].costs, retrained.seeds), retrained)
    return {
        "retrain_s": float(retrained.seconds.sum()),
        "ensemble_s": float(np.sum(ensemble.costs["seconds"])), "delete_s": delete["seconds"],
        "time": float(retrained.seconds.sum()) / delete["seconds"],
        "time_ensemble": float(np.sum(ensemble.costs["seconds"])) / delete["seconds"],
        "images": float(retrained.images.sum()) / delete["images"],
        "expected": float(counted["sisa_speedup_expected"].mean()),
        "nominal": float(counted["sisa_speedup_nominal"].mean())}


def _row(name: str, request: str, rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Measured times with their spread over the rounds; counts are the same in all rounds."""
    spread = {k: measure.spread(np.array([r[k] for r in rounds])) for k in (
        "retrain_s", "ensemble_s", "delete_s", "time", "time_ensemble")}
    return {"data": name, "delete": request, **spread,
            **{k: rounds[0][k] for k in ("images", "expected", "nominal")}}


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


if __name__ == "__main__":
    main()
