"""The data: numbers of images, forget sets, dropped images and labels."""

from unlearn_jax.report.figures import results
from unlearn_jax.report.output import Output
from unlearn_jax.report.render.document import Block, Cell, Section, Table, Text
from unlearn_jax.report.tables import origins
from unlearn_jax.report.tables.cells import count, decimal
from unlearn_jax.report.tables.inputs import DATA_SPLITS, Run

_COUNTS = {
    "all": "samples that were read",
    "used": "samples left after the steps of preparation",
    "train": "training set, without copies",
    "validation": "validation set: decides which weights are kept",
    "test": "test set: never trained on, decides nothing",
    "train_balanced": "training set with the augmented copies that even out the labels",
    "dropped": "samples listed in dropped.csv, each with its step and reason",
    "left_out": "samples outside the share and the range of labels that the config asks for",
}


def section(run: Run, output: Output) -> Section:
    """Counts of images, forget sets, dropped images, and histograms of labels."""
    data = run.data
    link = origins.data_link(run)
    trained = data["counts"]["train"] + data["counts"]["validation"]
    counts = Table(
        f"Images of {source(run)} (data fingerprint {data['fingerprint']}).",
        (("set", "as named in data.json"), ("images", "number of images"),
         ("what", "what they are for")),
        tuple((Cell(key), count(value, link), Cell(_COUNTS.get(key, "")))
              for key, value in data["counts"].items()), name="data")
    sets = Table(
        "Forget sets.",
        (("forget set", "its name in every file"), ("request", "as in the config"),
         ("training", "its images in the training set, without copies"),
         ("validation", "its images in the validation set"),
         ("share (%)", "its images as a share of training and validation images, in %")),
        tuple((Cell(name), Cell(e["request"]), count(e["train"], link),
               count(e["validation"], link),
               _share(e["train"] + e["validation"], trained, link))
              for name, e in data["forget_sets"].items()), name="forget-sets")
    reasons = data["dropped_reasons"]
    blocks: list[Block] = [*([Text(_given(run))] if run.given_splits else []), counts, sets]
    if reasons:
        blocks.append(Table(
            "Images listed in dropped.csv, by reason.",
            (("reason", "as in dropped.csv"), ("images", "number of images")),
            tuple((Cell(reason), count(n, link)) for reason, n in reasons.items()),
            name="dropped"))
    else:
        blocks.append(Text("dropped.csv lists no image."))
    if data["histograms"]:
        blocks += output.draw("labels-by-step", results.histograms, run)
    return Section("Data", tuple(blocks))


def source(run: Run) -> str:
    """The source of the data, with its path if the config has one."""
    path = run.run["config"].get("data", {}).get("path", "")
    return run.data["source"] + f" ({path})" * bool(path)


def _given(run: Run) -> str:
    """Which splits came with the data, and what that means for intervals."""
    own = run.given_splits
    drawn = [name for name in DATA_SPLITS if name not in own]
    text = f"The data came with the split{'s' * (len(own) > 1)} {_and(own)}"
    if drawn:
        text += f"; {_and(drawn)} {'was' if len(drawn) == 1 else 'were'} drawn from train"
    return (text + ". The splits are the same for all seeds: intervals over seeds are conditional "
            "on them.")


def _and(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _share(part: int, whole: int, link: str) -> Cell:
    return decimal(100 * part / whole if whole else None, 1, link)
