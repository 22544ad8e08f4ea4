"""The part of a report on the reference study: its tables, claims, conclusions and figures."""

import math

import pandas as pd

from unlearn_jax.report.output import Output
from unlearn_jax.report.render.document import Block, Cell, Items, Section, Table, Text
from unlearn_jax.report.tables.cells import NONE
from unlearn_jax.report.tables.inputs import Run
from unlearn_jax.report.tables.judgement import LEVEL
from unlearn_jax.report.tables.names import Metric, symbol
from unlearn_jax.report.thesis import figures, findings, latex
from unlearn_jax.report.thesis import tables as study_tables
from unlearn_jax.report.thesis.arms import is_study, random_arms
from unlearn_jax.report.thesis.claims import CLAIMS
from unlearn_jax.report.thesis.conclusions import conclusions
from unlearn_jax.report.thesis.published import ADDRESS, CITATION
from unlearn_jax.report.thesis.verdicts import ABSENT, FAILS, HOLDS, OPEN, Verdict, verdicts

_CHANGE = Metric(decimals=3)


def section(run: Run, output: Output) -> Section | None:
    """Tables 3 to 8, every claim with its verdict, what follows, and the study's figures.

    Writes tables/table3.csv and .tex to table8, and tables/claims.csv.

    Returns:
      None for a run that does not repeat the study (`arms.is_study`).
    """
    if not is_study(run):
        return None
    found, made = verdicts(run), study_tables.study_tables(run)
    for table in made:
        output.write(f"tables/table{table.number}.csv", study_tables.as_frame(run, table))
        output.write(f"tables/table{table.number}.tex", latex.render(run, table))
    output.write("tables/claims.csv", claims_frame(found))
    return Section("The reference study", (_explanation(run), Items(conclusions(run, found))), (
        Section("Tables 3 to 8", tuple(study_tables.as_block(run, t) for t in made)),
        Section("The same tables of the mean prediction", (
            Text("The study also speaks of averaging the predictions of its three models. Here "
                 f"those of all seeds ({len(run.seeds)}) are averaged first, and the mean is "
                 "measured as if it were one model, against the mean prediction of their M_Rs."),
            *(study_tables.as_block(run, t, averaged=True) for t in made))),
        Section("The study's claims", _claims(found)),
        *findings.sections(run),
        Section("The study's figures", (
            Text("The figures of the reference study, in its order and with its numbers, drawn "
                 "from this run. Those of each forget set below show what these hide: Forgetting "
                 "with its ceiling, errors by label, agreement with M_R, and utility against "
                 "Forgetting."),
            *figures.draw(run, output))),
    ))


def claims_frame(found: tuple[Verdict, ...]) -> pd.DataFrame:
    """claims.csv: one row for each claim and arm."""
    return pd.DataFrame([{
        "claim": v.claim.name, "section": v.claim.section, "table": v.claim.table or "",
        "arm": v.arm, "text": v.claim.text,
        "in_print": "" if v.in_print is None else v.in_print, "status": v.uncorrected,
        "seeds_held": v.held, "seeds": v.n, "comparisons": len(v.claim.comparisons),
        "weakest": v.where, "difference": v.weakest.mean, "ci95_low": v.weakest.low,
        "ci95_high": v.weakest.high, "p": v.p, "p_holm": v.p_holm,
        "status_corrected": v.status} for v in found])


def _explanation(run: Run) -> Text:
    return Text(
        "This run repeats the three experiments of the reference study with fine-tuning M_FT and "
        f"{len(random_arms(run))} kinds of random labels. Its M_RND stands beside "
        "M_RND_OFFSET, which is what its text describes, and beside M_RND_UNITS, which is what its "
        f"code did. Data: {run.data['source']}, {run.run['config']['data']['image_size']} pixels; "
        f"network: {run.run['config']['model']['name']}. Numbers of another scale need not agree "
        "with the printed ones; the claims are about orders and signs. The statements here are "
        f"computed from the verdicts below. The study: {CITATION}, {ADDRESS}.",
        links=(("the study", ADDRESS),))


def _claims(found: tuple[Verdict, ...]) -> tuple[Block, ...]:
    rows = tuple((
        Cell(v.claim.text), Cell(v.claim.section), Cell(symbol(v.arm) if v.arm else "–"),
        Cell({True: "yes", False: "no", None: "–"}[v.in_print]), Cell(v.status),
        _p(v.p_holm), Cell("–" if v.uncorrected == v.status else v.uncorrected),
        Cell(f"{v.held} of {v.n}", sort=v.held / max(v.n, 1)), Cell(v.where or "–"),
        _interval(v)) for v in found)
    counts, before = (", ".join(f"{sum(s == status for status in statuses)} {s}"
                                for s in (HOLDS, FAILS, OPEN, ABSENT))
                      for statuses in ([v.status for v in found], [v.uncorrected for v in found]))
    tested = sum(math.isfinite(v.p) for v in found)
    text = (f"{len(CLAIMS)} claims, those about random labels for each arm of them: {counts}. A "
            "claim holds where every difference that it is made of is above 0, and is contradicted "
            "where one is below 0: by paired t-tests over seeds, with p below "
            f"{LEVEL} after one correction (Holm) for all {tested} claims that were tested; "
            "otherwise it is open. By 95 % intervals of each claim alone, without the correction: "
            f"{before}.")
    return Text(text), Table(
        "The study's claims, tested.",
        (("claim", "what the study says"), ("section", "of the study"),
         ("arm", "the random labels that stand for M_RND"),
         ("in print", "whether the study's own printed numbers satisfy it; “–”: it prints none"),
         ("here", "holds, contradicted, open, or not measured; after the correction"),
         ("p (Holm)", "of the claim, in the direction of its evidence, corrected for the number of "
          "claims"),
         ("alone", "what its own intervals say, where that is something else"),
         ("seeds", "in which every comparison of the claim holds"),
         ("weakest", "the comparison with the weakest evidence for the claim"),
         ("difference", "of that comparison within a seed: mean and 95 % interval over seeds")),
        rows, name="claims")


def _p(p: float) -> Cell:
    if math.isnan(p):
        return NONE
    return Cell("< 0.001" if p < 0.001 else _CHANGE.text(p), sort=p)


def _interval(v: Verdict) -> Cell:
    e = v.weakest
    if not e.n:
        return NONE
    if not e.has_interval:
        return Cell(_CHANGE.text(e.mean), f"(n={e.n}, no interval)", e.mean)
    return Cell(_CHANGE.text(e.mean), f"({_CHANGE.text(e.low)} to {_CHANGE.text(e.high)})", e.mean)
