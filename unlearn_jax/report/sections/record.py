"""The record of a run: its stages, command, versions and config."""

import json
from typing import Any

from unlearn_jax.report.render.document import Block, Cell, Code, Items, Section, Table, Text
from unlearn_jax.report.tables import origins
from unlearn_jax.report.tables.cells import count, decimal
from unlearn_jax.report.tables.inputs import Run
from unlearn_jax.system.nested import flat


def stages(run: Run) -> Section:
    """What each stage cost, and whether it was computed."""
    rows, anchors = [], set()
    for stage in run.run["stages"]:
        # links lead to the first row of a stage that is listed twice
        anchor = origins.stage_anchor(stage["key"])
        first = anchor not in anchors
        anchors.add(anchor)
        rows.append((
            Cell(stage["stage"]), Cell(str(stage.get("forget_set") or "–")),
            count(stage.get("epochs") or None),
            Cell(stage["key"], anchor=anchor if first else ""), Cell(stage["status"]),
            origins.config_links(run, stage["stage"]), decimal(stage.get("seconds"), 1),
            count(stage.get("members") or None),
            count(stage.get("images")), decimal(stage.get("images_per_s"), 0)))
    return Section("Stages", (Table(
        "What was computed in this run, and what came from the store.",
        (("stage", "step of the pipeline"), ("forget set", "“–”: all of them"),
         ("epochs", "the budget, in epochs, where there is one"),
         ("key", "hash of all inputs of the stage; its folder in the store"),
         ("status", "computed, reused from the store, or resumed after an interruption"),
         ("config", "the sections of the config that decide it, besides the stages before it"),
         ("seconds", "wall time in s, compilation excluded"),
         ("members", "models trained at once, one per seed and forget set"),
         ("images", "images loaded, trained on or predicted, over all members and epochs"),
         ("images/s", "images per second of wall time")), tuple(rows), name="stages"),))


def reproduce(run: Run) -> Section:
    """The command, and where it ran."""
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
                        for name, value in facts if value is not None), name="versions")
    merged = tuple(f"merged from {m['directory']}"
                   + f" as +{m['label']}" * bool(m["label"]) + f": {m['command']}"
                   for m in run.run.get("merged", ()))
    return Section("How to reproduce", (
        Code(run.run["command"]), *([Items(merged)] if merged else []), table,
        Text("The report is written from the files of the work directory alone: "
             "python -m unlearn_jax.report WORKDIR writes it again.")))


def configuration(run: Run) -> Section:
    """The config, section by section, as links lead to them."""
    return Section("Configuration", _configuration(run))


def _configuration(run: Run) -> tuple[Block, ...]:
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
    """The keys of the config that differ between merged runs, with every value."""
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
                  ("runs", "by label, or by directory where there is none")), tuple(rows),
                 name="config-differences")


def _lines(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """By dotted key, a value as text."""
    return {key: json.dumps(value, ensure_ascii=False)
            for key, value in flat(config, prefix).items()}


def _code(config: dict[str, Any], anchor: str, prefix: str = "") -> Code:
    lines = _lines(config, prefix).items()
    return Code("\n".join(f"{key} = {value}" for key, value in lines), anchor)
