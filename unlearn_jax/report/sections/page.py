"""What the report says: the document that Markdown and HTML render."""

import json
import math
from typing import Any

from unlearn_jax.report.figures import explanations
from unlearn_jax.report.figures.results import MOST_SETS, STUDY
from unlearn_jax.report.figures.style import MOST_METHODS
from unlearn_jax.report.render.document import (
    Block,
    Cell,
    Code,
    Document,
    Figure,
    Items,
    Section,
    Table,
    Text,
)
from unlearn_jax.report.sections import (
    comparison,
    explained,
    headline,
    layers,
    summary,
    touched,
    verdict,
)
from unlearn_jax.report.tables import origins
from unlearn_jax.report.tables.files import ReportError
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.judgement import judge_all
from unlearn_jax.report.tables.names import ENSEMBLES, model_symbol, pretrained, symbol
from unlearn_jax.report.tables.predictions import parse_prediction_name
from unlearn_jax.report.thesis import figures as study_figures
from unlearn_jax.report.thesis import section as study
from unlearn_jax.system.nested import flat

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


def build(run: Run, figures: list[tuple[str | None, Figure]]) -> Document:
    """The whole report.

    Args:
      run: the work directory.
      figures: (forget set, or what `figures.draw_all` gives in its place) and the figure.
    """
    name = run.run["config_name"]
    sections = [comparison.section(run, [f for s, f in figures if s == ""])
                ] if run.trials is not None else []
    if run.arms:
        sections += [study.section(run),
                     study_figures.section([f for s, f in figures if s == STUDY])]
    sections += [Section("Did it work?", _verdict(run))]
    sections += [_forget_set(run, fs, [f for s, f in figures if s == fs])
                 for fs in run.forget_sets]
    sections += [
        Section("Warnings", _warnings(run)),
        Section("Data", _data(run, [f for s, f in figures if s is None])),
        Section("Stages", (_stages(run),)),
        Section("How to reproduce", _reproduce(run)),
        Section("Configuration", _configuration(run)),
    ]
    return Document(f"{name}: machine unlearning report", _introduction(run), tuple(sections))


def _introduction(run: Run) -> tuple[Block, ...]:
    counts = run.data["counts"]
    seeds = ", ".join(map(str, run.seeds))
    sets = [f"{name} ({entry['train'] + entry['validation']:,} images, request "
            f"“{entry['request']}”)" for name, entry in run.data["forget_sets"].items()]
    methods: dict[str, set[int]] = {}
    for forget_set in run.forget_sets:
        for model in run.unlearned(forget_set):
            methods.setdefault(model.method, set()).add(model.epochs)
    unlearned = "; ".join(
        f"{symbol(m)} (method {m}) for {_listed(sorted(budgets))} epoch"
        f"{'s' if budgets != {1} else ''}" for m, budgets in methods.items()
        if m not in ENSEMBLES)
    ensembles = ""
    if set(ENSEMBLES) & methods.keys():
        ensembles = ("M_SISA_O is an ensemble trained by SISA on everything, in shards and slices; "
                     "M_SISA is the same after the deletion, for which the touched shards were "
                     "trained again without the forget set. ")
    balanced = counts.get("train_balanced", counts["train"])
    copies = (f", {balanced:,} with augmented copies" if balanced != counts["train"] else "")
    what = "the class" if run.classification else f"the {run.label} in {run.unit}"
    text = (
        f"Models learned {what} from images of {_source(run)}: {counts['train']:,} for "
        f"training{copies}, {counts['validation']:,} for validation, {counts['test']:,} for "
        "testing. Then "
        + ("one group of images was" if len(sets) == 1 else f"{len(sets)} groups of images were")
        + f" to be forgotten: {'; '.join(sets)}. M_O is the original model, trained on everything; "
        "M_R was retrained from the same start without the forget set and is the reference. "
        + (f"M_O was unlearned as {unlearned}. " if unlearned else
           "" if ensembles else "Nothing was unlearned. ") + ensembles
        + (f"Each model was trained with {_many(len(run.seeds), 'seed')} ({seeds}), and every "
           if not _seeds_apart(run) else "Models were trained with different seeds (see Warnings), "
           "and every ") + "number is computed per seed, then averaged"
        + ("." if len(run.seeds) > 1 else ": with one seed there are no intervals.")
        + _start(run))
    blocks: list[Block] = [Text(text)]
    failed = headline.failed_members(run)
    notes = len(_notes(run))
    if failed:
        blocks.append(Text(f"{_many(len(failed), 'member')} failed and count in no mean: "
                           "see Warnings.", strong=True))
    elif notes:
        blocks.append(Text(f"There {'is' if notes == 1 else 'are'} {_many(notes, 'warning')}: "
                           "see Warnings.", strong=True))
    return tuple(blocks)


def _start(run: Run) -> str:
    """What all seeds have in common from the start, where they do."""
    if not pretrained(run):
        return ""
    return (f" The models of all seeds began with the weights of {pretrained(run)}: seeds differ "
            "in the layers of the head that the file lacks, in the order of the samples and in "
            "dropout. So M_Rs of different seeds, which the ceiling and all values across seeds "
            "compare, have nearly all starting weights in common, and resemble each other more "
            "than models of independent starts.")


def _source(run: Run) -> str:
    """The data's source, with the path where one was given."""
    path = run.run["config"].get("data", {}).get("path", "")
    return run.data["source"] + f" ({path})" * bool(path)


def _verdict(run: Run) -> tuple[Block, ...]:
    judged = summary.table(run, judge_all(run))
    blocks: list[Block] = [judged] if judged else []
    for forget_set in run.forget_sets:
        lead = f"Forget set {forget_set}. " if len(run.forget_sets) > 1 else ""
        references = [run.only(forget_set, m) for m in ("original", "retrain")]
        blocks.append(Text(lead + verdict.on_gap(run, forget_set),
                           links=_stage_links(run, references, forget_set)))
        models = run.unlearned(forget_set)
        if models:
            blocks.append(Items(tuple(
                Text(verdict.on_model(run, forget_set, m),
                     links=_stage_links(run, [m], forget_set)) for m in models)))
    table = verdict.table(run)
    return (*blocks, *([table] if table else []))


def _stage_links(run: Run, models: list[ModelKey], forget_set: str) -> tuple[tuple[str, str], ...]:
    return origins.stage_links(run, models, forget_set, verdict.error_metric(run))


def _forget_set(run: Run, forget_set: str, figures: list[Figure]) -> Section:
    by_alpha, averaged = headline.by_alpha(run, forget_set), headline.averaged(run, forget_set)
    others, speedups = headline.others(run, forget_set), headline.speedups(run, forget_set)
    blocks: list[Block] = [headline.headline(run, forget_set)]
    inner = []
    if speedups:
        inner.append(Section("Speed-up of the deletion", (speedups,)))
    if by_alpha:
        inner.append(Section("Forgetting against α", (
            by_alpha, *(f for f in figures if f.file.startswith("forgetting-")))))
    if averaged:
        inner.append(Section("Averaged prediction", (averaged,)))
    audits = headline.audits(run, forget_set)
    if audits:
        inner.append(Section("Audits", tuple(audits)))
    if others:
        inner.append(Section("Further measures", (others,)))
    chosen = touched.section(run, forget_set)
    if chosen:
        inner.append(chosen)
    further = [f"{kind}-" for kind in (layers.KIND, explanations.KIND)]
    weights, maps = (tuple(f for f in figures if f.file.startswith(start)) for start in further)
    inner += [s for s in (layers.section(run, forget_set, weights),
                          explained.section(run, forget_set, maps)) if s]
    rest = tuple(f for f in figures if not f.file.startswith(("forgetting-", *further)))
    if not rest:
        rest = (Text(f"Not drawn: figures are drawn for the first {MOST_SETS} forget sets "
                     f"({', '.join(run.forget_sets[:MOST_SETS])})."),)
    if len({m.method for m in run.unlearned(forget_set)}) > MOST_METHODS:
        rest = (Text(f"The pictures of samples and of training show the {MOST_METHODS} methods of "
                     "highest Forgetting; the tables show all."), *rest)
    if run.history is None:
        rest = (*rest, Text("No training curves: the work directory has no history.csv."))
    inner.append(Section("Figures", rest))
    return Section(f"Forget set {forget_set}", tuple(blocks), tuple(inner))


def _warnings(run: Run) -> tuple[Block, ...]:
    failed = headline.failures(run)
    notes = _notes(run)
    blocks: list[Block] = [failed] if failed else [Text("No member failed.")]
    blocks.append(Items(tuple(notes)) if notes else Text("There are no warnings."))
    return tuple(blocks)


def _notes(run: Run) -> list[str]:
    """The run's own warnings, and what in the work directory does not fit together."""
    notes = [str(w) for w in run.run["warnings"]]
    own, other = run.data["fingerprint"], run.run.get("data_fingerprint")
    if other is not None and other != own:
        notes.append(f"data.json is of data {own}, run.json of data {other}: the files are not "
                     "of one run")
    return notes + _seeds_apart(run) + _stray_predictions(run)


def _seeds_apart(run: Run) -> list[str]:
    """What differing seeds mean, where the models of a report do not share theirs."""
    notes = []
    for forget_set in run.forget_sets:
        groups: dict[tuple[int, ...], list[str]] = {}
        for model in run.models(forget_set):
            if seeds := run.seeds_of(model, forget_set):
                groups.setdefault(seeds, []).append(model_symbol(model))
        if len(groups) > 1:
            parts = "; ".join(f"{', '.join(names)}: {', '.join(map(str, seeds))}"
                              for seeds, names in groups.items())
            notes.append(f"forget set {forget_set}: the rows of its tables are means over "
                         f"different seeds ({parts}), so that they differ by their seeds as well")
    return notes


def _stray_predictions(run: Run) -> list[str]:
    """Files of predictions that no row of results.csv stands for."""
    known = {(m.method, fs, m.epochs) for fs in run.forget_sets for m in run.models(fs)}
    strays = []
    for path in sorted((run.workdir / "predictions").glob("*.npz")):
        try:
            stray = parse_prediction_name(path.name)[:3] not in known
        except ReportError as error:
            strays.append(str(error))
            continue
        if stray:
            strays.append(f"predictions/{path.name} belongs to no model of results.csv")
    return strays


def _data(run: Run, figures: list[Figure]) -> tuple[Block, ...]:
    data = run.data
    link = origins.data_link(run)
    trained = data["counts"]["train"] + data["counts"]["validation"]
    counts = Table(
        f"Images of {_source(run)} (data fingerprint {data['fingerprint']}).",
        (("set", "as named in data.json"), ("images", "number of images"),
         ("what", "what they are for")),
        tuple((Cell(key), _count(value, link), Cell(_COUNTS.get(key, "")))
              for key, value in data["counts"].items()))
    sets = Table(
        "Forget sets.",
        (("forget set", "its name in every file"), ("request", "as asked for in the config"),
         ("training", "its images in the training set, without copies"),
         ("validation", "its images in the validation set"),
         ("share (%)", "its images as a share of training and validation images, in %")),
        tuple((Cell(name), Cell(e["request"]), _count(e["train"], link),
               _count(e["validation"], link),
               _share(e["train"] + e["validation"], trained, link))
              for name, e in data["forget_sets"].items()))
    reasons = data["dropped_reasons"]
    blocks: list[Block] = [counts, sets]
    if reasons:
        blocks.append(Table(
            "Images listed in dropped.csv, by reason.",
            (("reason", "as in dropped.csv"), ("images", "number of images")),
            tuple((Cell(reason), _count(n, link)) for reason, n in reasons.items())))
    else:
        blocks.append(Text("dropped.csv lists no image."))
    return (*blocks, *figures)


def _stages(run: Run) -> Table:
    rows, anchors = [], set()
    for stage in run.run["stages"]:
        # of a stage that stands there twice, the first is where links lead
        anchor = origins.stage_anchor(stage["key"])
        first = anchor not in anchors
        anchors.add(anchor)
        rows.append((
            Cell(stage["stage"]), Cell(str(stage.get("forget_set") or "–")),
            _count(stage.get("epochs") or None),
            Cell(stage["key"], anchor=anchor if first else ""), Cell(stage["status"]),
            origins.config_links(run, stage["stage"]), _decimal(stage.get("seconds"), 1),
            _count(stage.get("members") or None),
            _count(stage.get("images")), _decimal(stage.get("images_per_s"), 0)))
    return Table(
        "What was computed in this run, and what came from the store.",
        (("stage", "step of the pipeline"), ("forget set", "“–”: all of them"),
         ("epochs", "the budget, in epochs, where there is one"),
         ("key", "hash of all that determines the stage; its folder in the store"),
         ("status", "computed, reused from the store, or resumed after an interruption"),
         ("config", "the sections of the config that decide it, besides the stages before it"),
         ("seconds", "wall time in s, compilation excluded"),
         ("members", "models trained at once, one per seed and forget set"),
         ("images", "images loaded, trained on or predicted, over all members and epochs"),
         ("images/s", "images per second of wall time")), tuple(rows))


def _reproduce(run: Run) -> tuple[Block, ...]:
    facts = [("device", run.run["device"]),
             ("data fingerprint", run.run.get("data_fingerprint", run.data["fingerprint"])),
             ("started", run.run.get("started")),
             ("whole run (s)", run.run.get("seconds"))]
    for key, what in (("compile_seconds", "compilation of"),
                      ("first_step_seconds", "until the first step of")):
        found = run.run.get(key)
        if isinstance(found, dict):
            facts += [(f"{what} {name} (s)", v) for name, v in found.items()]
    facts += [(f"version of {name}", v) for name, v in run.run["versions"].items()]
    table = Table("Where these numbers come from.",
                  (("fact", "what"), ("value", "as recorded in run.json")),
                  tuple((Cell(name), Cell(f"{value:.1f}" if isinstance(value, float)
                                          else str(value)))
                        for name, value in facts if value is not None))
    return (Code(run.run["command"]), table,
            Text("The report is written from the files of the work directory alone: "
                 "python -m unlearn_jax.report WORKDIR writes it again."))


def _configuration(run: Run) -> tuple[Block, ...]:
    """The config, section by section, as links lead to them."""
    config = run.run["config"]
    inner = {k: v for k, v in config.items() if isinstance(v, dict)}
    outer = {k: v for k, v in config.items() if k not in inner}
    blocks = [_code(outer, origins.config_anchor("seeds"))] if outer else []
    blocks += [_code(section, origins.config_anchor(name), f"{name}.")
               for name, section in inner.items() if section]
    merged = run.run.get("merged", [])
    if not merged:
        return Text("Every key of the config, as it was run."), *blocks
    text = f"Every key of the config, as {merged[0]['directory']} was run, the first of the merged."
    differing = _differing(merged)
    if not differing.rows:
        return Text(f"{text} All others have the same."), *blocks
    return Text(f"{text} The others differ from it in the keys of the table."), differing, *blocks


def _differing(merged: list[dict[str, Any]]) -> Table:
    """The keys of the config that merged runs do not agree in, with every value."""
    configs = [_lines(m["config"]) for m in merged]
    rows = []
    for key in dict.fromkeys(key for config in configs for key in config):
        runs: dict[str, list[str]] = {}
        for entry, config in zip(merged, configs):
            runs.setdefault(config.get(key, "–"), []).append(entry["label"] or entry["directory"])
        if len(runs) > 1:
            rows += [(Cell(key), Cell(value), Cell(", ".join(own))) for value, own in runs.items()]
    return Table("Keys of the config that differ between the merged runs.",
                 (("key", "of the config"), ("value", "“–”: the run has no such key"),
                  ("runs", "by label, or by directory where there is none")), tuple(rows))


def _lines(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """By dotted key, a value as text."""
    return {key: json.dumps(value, ensure_ascii=False)
            for key, value in flat(config, prefix).items()}


def _code(config: dict[str, Any], anchor: str, prefix: str = "") -> Code:
    lines = _lines(config, prefix).items()
    return Code("\n".join(f"{key} = {value}" for key, value in lines), anchor)


def _count(value: Any, link: str = "") -> Cell:
    return _decimal(value, 0, link)


def _decimal(value: Any, decimals: int, link: str = "") -> Cell:
    """A number of a JSON file, which may be absent or null where it has no meaning."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return headline.NONE
    return Cell(f"{value:,.{decimals}f}", sort=float(value), link=link)


def _share(part: int, whole: int, link: str) -> Cell:
    return _decimal(100 * part / whole if whole else None, 1, link)


def _many(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _listed(values: list[int]) -> str:
    return " and ".join([", ".join(map(str, values[:-1])), str(values[-1])]
                        if len(values) > 1 else map(str, values))
