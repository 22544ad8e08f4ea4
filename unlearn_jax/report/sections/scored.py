"""What the report says first of predictions whose models were trained elsewhere."""

from unlearn_jax.report.tables.inputs import Run
from unlearn_jax.report.tables.names import symbol


def introduction(run: Run) -> str:
    """What was scored, and which models are missing."""
    scored = run.run["scored"]
    sets = [f"{name} ({entry['train'] + entry['validation']:,} images)"
            for name, entry in run.data["forget_sets"].items()]
    methods = {m.method: symbol(m.method) for fs in run.forget_sets for m in run.models(fs)
               if m.method != "median"}
    answer = (f"{len(run.data['class_names'])} classes" if run.classification
              else "labels" if run.unit == "label" else f"the {run.label} in {run.unit}")
    absent = sorted({m for fs in run.forget_sets for m in run.without(fs)})
    seeds = run.seeds
    return (f"This report scores predictions that were read from {scored['directory']}; no model "
            f"was trained for it and no image was read. They are of {answer}, on the forget "
            f"set{'s' * (len(sets) > 1)} {', '.join(sets)}, with {len(seeds)} "
            f"seed{'s' * (len(seeds) > 1)} ({', '.join(map(str, seeds))}). The models: "
            f"{', '.join(f'{name} (method {m})' for m, name in methods.items())}. M_O is the "
            "original model, trained on everything; M_R was trained without the forget set and is "
            "the reference. "
            + "".join(f"Predictions of {symbol(m)} are missing. " for m in absent)
            + "Every number is computed per seed, then averaged"
            + ("." if len(seeds) > 1 else ": with one seed there are no intervals.")
            + ("" if scored["training_known"] else " The size of the training set is not known: "
               "of its samples only those of the forget set are counted."))
