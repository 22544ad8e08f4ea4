"""The tables and the JSON that `python -m unlearn_jax.inspect` prints."""

import json
import math
from typing import Any

from unlearn_jax.system.disk import human_bytes
from unlearn_jax.system.nested import flat

# More columns do not fit on a terminal; --members chooses others, --json has all.
_MOST_COLUMNS = 8
_SHOWN = ("stage", "forget_set", "epochs", "seeds", "config", "config_name", "data_fingerprint",
          "metric")


def text_of(report: dict[str, Any], config: bool = False) -> str:
    """The text of a report, for a terminal.

    Args:
      report: a report of the kind 'list', 'checkpoint' or 'diff'.
      config: print the whole config.
    """
    lines = {"list": _list, "checkpoint": _checkpoint, "diff": _diff}[report["kind"]](report)
    if config and report["kind"] == "checkpoint":
        lines += ["", "config"]
        lines += [f"  {key} = {json.dumps(value)}"
                  for key, value in flat(report["metadata"].get("config", {})).items()]
    return "\n".join(lines)


def json_of(report: dict[str, Any]) -> str:
    """The report as JSON. NaN and infinities become strings, because JSON does not have them."""
    return json.dumps(_finite(report), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _list(report: dict[str, Any]) -> list[str]:
    rows = []
    for c in report["checkpoints"]:
        if "error" in c:
            rows.append([c["path"], c["error"].replace("\n", " ")])
            continue
        m = c["metadata"]
        count = c["parameters"].get("params", sum(c["parameters"].values()))
        rows.append([
            c["path"], m.get("stage", "-"), m.get("forget_set") or "-", m.get("epochs", "-"),
            " ".join(map(str, m.get("seeds", []))) or "-", _metric(m),
            f"{count:,}", human_bytes(c["bytes"]), c["time"][:19].replace("T", " ")])
    head = ["checkpoint", "stage", "forget set", "epochs", "seeds", "metric", "parameters",
            "size", "written (UTC)"]
    whole = _table(head, [r for r in rows if len(r) > 2], "lllrllrrl")
    return whole + [f"{path}  {error}" for path, error in (r for r in rows if len(r) == 2)]


def _metric(user: dict[str, Any]) -> str:
    metric = user.get("metric") or {}
    for name, values in metric.items():
        values = values if isinstance(values, list) else [values]
        return f"{name} " + " ".join(_number(v) for v in values)
    return "-"


def _checkpoint(report: dict[str, Any]) -> list[str]:
    m = report["metadata"]
    facts = [("checkpoint", report["path"]), ("written", report["time"])]
    if report["stage"]:
        s = report["stage"]
        facts.append(("in the store", f"{s['stage']}/{s['key']}, finished {s['time']}, "
                                      f"took {s['seconds']:g} s"))
    for title, key in (("stage", "stage"), ("forget set", "forget_set"), ("epochs", "epochs"),
                       ("seeds", "seeds"), ("data", "data_fingerprint")):
        if key in m:
            facts.append((title, _plain(m[key])))
    if "config" in m or "config_name" in m:
        size = f" ({len(flat(m['config']))} values; --config prints them)" \
            if m.get("config") else ""
        facts.append(("config", str(m.get("config_name", "")) + size))
    facts += [(key, _plain(value)) for key, value in (m | (m.get("metric") or {})).items()
              if key not in _SHOWN and key not in _per_member(report)]
    if report["parameters"]:
        per = " per member" if report["members"] else ""
        facts.append(("parameters", ", ".join(f"{n:,} in {top}" for top, n in
                                           report["parameters"].items()) + per))
    facts.append(("size", human_bytes(report["bytes"])))
    width = max(len(title) for title, _ in facts)
    lines = [f"{title:{width}}  {value}" for title, value in facts]
    shown, note = _columns(report)
    lines += _members(report) + _norms(report, shown) + [""]
    head = ["leaf", "shape", "dtype", "per member", "size"]
    rows = [[r["path"], str(r["shape"]) if "shape" in r else f"{r['leaves']} leaves",
             r.get("dtype", ""), f"{r['parameters']:,}", human_bytes(r["bytes"])]
            + ([_number(r["norm"][i]) for i in shown] if "norm" in r else [])
            for r in report["rows"]]
    if "norm" in report:
        head += [f"norm {_title(report, i)}" for i in shown]
    return lines + _table(head, rows, "lllrr" + "r" * len(shown)) + note


def _members(report: dict[str, Any]) -> list[str]:
    """The metadata of each member."""
    if not report["members"]:
        return []
    columns = _per_member(report)
    rows = [[member["index"], member["seed"], member["forget_set"] or "-"]
            + [_plain(values[member["index"]]) for values in columns.values()]
            for member in report["members"]]
    return [""] + _table(["member", "seed", "forget set", *columns], rows,
                         "rrl" + "r" * len(columns))


def _per_member(report: dict[str, Any]) -> dict[str, list]:
    """The metadata that holds one number for each member, such as step."""
    m = report["metadata"]
    values = {key: v for key, v in m.items() if key != "seeds"} | (m.get("metric") or {})
    return {key: v for key, v in values.items()
            if isinstance(v, list) and len(v) == report["all_members"]
            and all(isinstance(x, int | float) for x in v)}


def _norms(report: dict[str, Any], shown: list[int]) -> list[str]:
    if "norm" not in report:
        return []
    rows = [[top] + [_number(values[i]) for i in shown] for top, values in report["norm"].items()]
    return [""] + _table(["norm"] + [_title(report, i) for i in shown], rows,
                         "l" + "r" * len(shown))


def _diff(report: dict[str, Any]) -> list[str]:
    lines = [f"from  {report['path']}", f"to    {report['other']}",
             "L2 distance |to - from| of each member, and relative to |from|"]
    for member in report["unmatched"]:
        lines.append(f"left out: seed {member['seed']} (member {member['index']} of "
                     f"{member['path']}) has no partner")
    shown, note = _columns(report)
    head = ["layer"] + [f"{what} {_title(report, i)}" for what in ("distance", "relative")
                        for i in shown]
    totals = [{"path": f"all {top}"} | row for top, row in report["total"].items()]
    rows = [[r["path"]] + [_number(r[what][i]) for what in ("distance", "relative")
                           for i in shown] for r in totals + report["rows"]]
    return lines + [""] + _table(head, rows, "l" + "r" * (2 * len(shown))) + note


def _columns(report: dict[str, Any]) -> tuple[list[int], list[str]]:
    """(members that have a column, a line about the others)."""
    count = max(len(report["members"]), 1)
    if count <= _MOST_COLUMNS:
        return list(range(count)), []
    return list(range(_MOST_COLUMNS)), [
        f"{count - _MOST_COLUMNS} more members: choose with --members, or see all with --json"]


def _title(report: dict[str, Any], i: int) -> str:
    if not report["members"]:
        return ""
    member = report["members"][i]
    seeds = [m["seed"] for m in report["members"]]
    name = member.get("other_forget_set") or member["forget_set"]
    return f"seed {member['seed']}" + (f" {name}" if seeds.count(member["seed"]) > 1 else "")


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, str):
        return value or "-"
    if isinstance(value, list):
        return " ".join(_plain(v) for v in value) or "-"
    return json.dumps(value)


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def _table(head: list[str], rows: list[list[Any]], align: str) -> list[str]:
    cells = [[str(cell).strip() for cell in row] for row in [head, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.rjust(w) if side == "r" else cell.ljust(w)
                      for cell, w, side in zip(row, widths, align, strict=False)).rstrip()
            for row in cells]
