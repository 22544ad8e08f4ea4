"""The study's figures: all twelve of a run of it, none of another, and what they show."""

import json

import numpy as np
import pytest
from fake_workdir import write_json, write_thesis, write_workdir
from PIL import Image

from unlearn_jax import models
from unlearn_jax.report.figures import reference as reference_figures
from unlearn_jax.report.output import Output
from unlearn_jax.report.render import markdown, picture
from unlearn_jax.report.sections.page import build
from unlearn_jax.report.tables.inputs import ModelKey, read_run
from unlearn_jax.report.thesis import figures as study_figures
from unlearn_jax.report.thesis import network, section

pytestmark = pytest.mark.usefixtures("drawn_figures")

NAMES = ["01-model", "02-full", "03-reduced", "04-filtered", "05-split", "06-split-shares",
         "07-balanced", "08-balanced-split", "09-alpha", "10-groups", "11-errors-2-epochs",
         "12-errors-16-epochs"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = write_thesis(tmp_path_factory.mktemp("study"), samples=120, sets=("20-28", "28-36"),
                        budgets=(2, 16))
    return read_run(path)


def change(run, edit):
    path = run.workdir / "run.json"
    before = path.read_text()
    value = json.loads(before)
    edit(value)
    write_json(path, value)
    changed = read_run(run.workdir)
    path.write_text(before)
    return changed


@pytest.fixture(scope="module")
def drawn(run, drawn_figures):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picture, "DPI", 40)
        found = list(study_figures.draw(run, Output(run.workdir)))
    return {f.file.removeprefix("study-").removesuffix(".png"): f for f in found}


def values(figure, panel=0, series=0):
    return {p.x: p.y for p in figure.plot.panels[panel].series[series].points}


def test_all_twelve_are_drawn_and_stand_in_their_order(run, drawn):
    assert list(drawn) == NAMES
    for name, figure in drawn.items():
        image = np.asarray(Image.open(run.workdir / "figures" / figure.file).convert("RGB"))
        assert image.std() > 5, name
        assert figure.caption.startswith(f"Figure {int(name[:2])} of the study. ")
        assert all(p.x and p.y for p in figure.plot.panels), "every axis has a label"
    assert section.section(run, Output()).sections[-1].title == "The study's figures"


def test_histograms_are_those_of_the_data(run, drawn):
    steps = run.data["histograms"]
    for name, step in (("02-full", "all"), ("03-reduced", "fraction")):
        assert values(drawn[name]) == {a: f"{n:,}" for a, n in steps[step].items()}
    before, kept = drawn["04-filtered"].plot.panels[0].series
    assert {p.x: p.y for p in kept.points}["30"] == str(steps["quality"]["30"])
    assert {p.x: p.y for p in before.points}["30"] == str(steps["range"]["30"])
    for name, first in (("05-split", "train"), ("08-balanced-split", "balanced")):
        for panel, step in enumerate((first, "validation", "test")):
            assert values(drawn[name], panel) == {a: str(n) for a, n in steps[step].items()}
    copies = drawn["07-balanced"].plot.panels[0].series[0].points
    assert copies[-1].text == f"{steps['balanced']['60'] - steps['train']['60']:,} copies"
    shares = values(drawn["06-split-shares"])
    whole = sum(steps["train"].values())
    assert float(shares["20"]) == pytest.approx(100 * steps["train"]["20"] / whole, rel=1e-3)


def test_the_curves_and_the_groups(run, drawn):
    [panel] = drawn["09-alpha"].plot.panels
    assert [s.name for s in panel.series] == [f"α = {a}" for a in (2, 5, 10, 15, 20, 25, 30, 35)]
    at = {p.x: float(p.y) for p in panel.series[3].points}
    assert at["15"] == pytest.approx(np.exp(-1), rel=1e-3)
    train, validation = (values(drawn["10-groups"], 0, i) for i in (0, 1))
    assert train == {"20-28": "1,500", "28-36": "1,501"}
    assert validation == {"20-28": "500", "28-36": "500"}


def test_errors_are_those_of_the_predictions_in_the_order_of_the_reference(run, drawn):
    figure = drawn["12-errors-16-epochs"]
    panels = figure.plot.panels
    assert len(panels) == 2 * 5  # M_O and four arms; D_f and the test set
    for row, model in enumerate((ModelKey("original", 0), ModelKey("ft", 16), ModelKey("rnd", 16))):
        for column, split in enumerate(("forget", "test")):
            reference, own = panels[2 * row + column].series
            theirs = [float(p.y) for p in reference.points]
            assert theirs == sorted(theirs) and len(theirs) == 100
            p = run.prediction(model, "20-28", split)
            r = run.prediction(ModelKey("retrain", 12), "20-28", split)
            rows = study_figures.chosen(p.ids)
            order = np.argsort(r.errors.mean(axis=0)[rows], kind="stable")
            np.testing.assert_allclose([float(q.y) for q in own.points],
                                       p.errors.mean(axis=0)[rows][order], rtol=1e-3)


def test_steps_that_the_data_skipped_are_not_drawn(run, monkeypatch):
    monkeypatch.setattr(picture, "DPI", 40)
    for step in ("fraction", "quality", "validation"):
        run.data["histograms"][f"_{step}"] = run.data["histograms"].pop(step)
    try:
        names = [f.file.removesuffix(".png")
                 for f in study_figures.draw(run, Output(run.workdir))]
        skipped = {"03-reduced", "05-split", "06-split-shares", "08-balanced-split"}
        assert names == [f"study-{n}" for n in NAMES if n not in skipped]
    finally:
        for step in ("fraction", "quality", "validation"):
            run.data["histograms"][step] = run.data["histograms"].pop(f"_{step}")


def test_another_run_has_none(tmp_path):
    run = read_run(write_workdir(tmp_path, samples=20))
    assert run.arms == ()
    assert "The study's figures" not in markdown.render(build(run))


def test_the_model_is_that_of_the_config(run):
    assert network.BLOCKS == models.DEPTHS and network.STEMS == models.STEMS
    found = network.layers(run)
    assert [layer.shape for layer in found] == [
        "224×224×3", "112×112×64", "56×56×64", "56×56×256", "28×28×512", "14×14×1024",
        "7×7×2048", "2048", "512", "256", "128", "1", "age (years)"]
    assert found[-4].text == "dropout 0.5\ndense, ReLU" and found[-1].text == "60 · z"
    small = change(run, lambda r: r["config"]["model"].update(
        name="resnet10", stem="strided", width=16, projection=0, head_widths=[], head_dropout=[],
        output="linear", output_offset=20.0, output_scale=40.0))
    assert [layer.shape for layer in network.layers(small)] == [
        "224×224×3", "112×112×16", "112×112×16", "56×56×32", "28×28×64", "14×14×128", "128", "1",
        "age (years)"]
    assert network.layers(small)[-1].text == "20 + 40 · z"
    assert network.layers(change(run, lambda r: r["config"].pop("model"))) == []


def test_agreement_pairs_the_seeds(run):
    figure, _, caption = reference_figures.agreement(run, "20-28")
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert len(titles) == 6 and titles[-1] == r"$M_\mathrm{R}$ of another seed"
    r, o = (run.prediction(m, "20-28", "forget").outputs
            for m in (ModelKey("retrain", 12), ModelKey("original", 0)))
    apart = np.mean([np.abs(a - b).mean() for a, b in zip(r, o)])
    assert figure.axes[0].texts[0].get_text() == f"Δ {apart:.2f} years"
    apart = np.mean([np.abs(r[i] - r[(i + 1) % 3]).mean() for i in range(3)])
    assert figure.axes[5].texts[0].get_text() == f"Δ {apart:.2f} years"
    assert "which no method can be" in caption
