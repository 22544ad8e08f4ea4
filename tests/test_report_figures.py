"""The report's pictures, and the predictions they are drawn from."""

import re

import numpy as np
import pytest
from fake_workdir import change_json, figures_of, write_workdir
from PIL import Image

from unlearn_jax.report import ReportError
from unlearn_jax.report.figures import classes, reference, samples
from unlearn_jax.report.figures.results import histograms
from unlearn_jax.report.figures.style import bars, look
from unlearn_jax.report.output import Output
from unlearn_jax.report.render import hover
from unlearn_jax.report.sections.page import build
from unlearn_jax.report.tables.inputs import ModelKey, read_run
from unlearn_jax.report.tables.predictions import Prediction
from unlearn_jax.report.tables.stats import estimate

pytestmark = pytest.mark.usefixtures("drawn_figures")

COMMON = {"standing-error", "standing-utility", "training", "forgetting", "plane", "balance",
          "sample-errors", "sorted-errors"}


@pytest.mark.parametrize("task, forget_set, kinds", [
    ("regression", "random-0.02", COMMON | {"predicted", "error-by-label", "agreement"}),
    ("classification", "class-3", COMMON | {"accuracy-by-class", "confusion"}),
])
def test_figures(tmp_path, task, forget_set, kinds):
    path = write_workdir(tmp_path, task=task, sets=(forget_set,), budgets=(2, 4), samples=300)
    drawn = figures_of(build(read_run(path), Output(path)))
    assert set(drawn) == {f"{k}-{forget_set}.png" for k in kinds} | {"labels-by-step.png"}
    assert {p.name for p in path.glob("figures/*")} == set(drawn)
    for name in drawn:
        file = path / "figures" / name
        image = np.asarray(Image.open(file).convert("RGB")).astype(float)
        least = 150 if name.startswith("standing") else 300
        assert min(image.shape[:2]) >= least and max(image.shape) <= 1300
        assert image.std() > 10, name  # not a blank page
        assert file.stat().st_size < 200_000


def test_the_palette_survives_in_the_files(tmp_path):
    path = write_workdir(tmp_path, samples=50)
    run = read_run(path)
    Output(path).draw("lines", samples.error_by_label, run, "20-28")
    image = np.asarray(Image.open(path / "figures" / "lines.png").convert("RGB"))
    for model in run.models("20-28")[1:]:
        color = np.array(look(run, model).color) * 255
        assert (np.abs(image - color).max(axis=-1) < 16).sum() > 100, model


def test_forgetting_stands_beside_the_ceiling_that_bounds_it(tmp_path):
    path = write_workdir(tmp_path, budgets=(2, 4), samples=12)
    run = read_run(path)
    figure, _, caption = reference.plane(run, "20-28")
    figure.canvas.draw()
    [panel] = hover.panels(figure)
    heights = {s.name.split(",")[0]: [float(p.y) for p in s.points] for s in panel.series}
    across, top = ([estimate(run.values(m, "20-28", f"{name}@15")).mean for m in models]
                   for name, models in (("forgetting_across", run.unlearned("20-28")),
                                        ("ceiling", [run.only("20-28", "retrain")])))
    assert heights[r"$M_\mathrm{FT}$"] == pytest.approx(across, rel=1e-3)
    assert heights[r"$M_\mathrm{R}$: ceiling"] == pytest.approx(top, rel=1e-3)
    assert panel.y.startswith("Forgetting@15 across seeds")
    # of one seed there are no pairs
    _, _, caption = reference.plane(
        read_run(write_workdir(tmp_path / "one", seeds=(3,), samples=12)), "20-28")
    assert "no ceiling is known" in caption and "mark" not in caption.split("beside the marks")[1]


def test_samples_are_counted_in_whole_numbers(tmp_path):
    run = read_run(write_workdir(tmp_path, samples=20))
    figure, *_ = samples.sample_errors(run, "20-28")
    figure.canvas.draw()
    shown = [t.get_text() for ax in figure.axes for t in ax.get_xticklabels()]
    assert shown and not [text for text in shown if "." in text]


def test_classes_have_their_names_in_pictures(tmp_path):
    path = write_workdir(tmp_path, task="classification", sets=("class-3",), samples=40)
    names = ["cat", "dog", "horse", "automobile on a road", "ship"]

    def name(data):
        data["class_names"] = names
        data["forget_sets"]["class-3"]["request"] = "class:automobile on a road"
        del data["histograms"]["train"]["1"]  # a step without dogs
        data["histograms"]["all"] = {"20": 5, "31": 8}  # ages, before they were grouped

    change_json(path / "data.json", name)
    run = read_run(path)
    shown = ["cat", "dog", "horse", "automobile on a…", "ship"]
    for made in (classes.accuracy_by_class, classes.confusion,
                 samples.balance):
        figure, *_ = made(run, "class-3")
        figure.canvas.draw()
        assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == shown
        points = [p for s in hover.panels(figure)[0].series for p in s.points]
        assert {p.x for p in points} == set(shown)
    assert [t.get_text() for t in classes.confusion(run, "class-3")[0]
            .axes[0].get_yticklabels()] == shown
    at, heights, _ = bars(run, run.data["histograms"]["train"])
    assert at.tolist() == [0, 2, 3, 4] and len(heights) == 4  # where the forget set is drawn
    figure, _, caption = histograms(run)
    figure.canvas.draw()
    ages, train = hover.panels(figure)[:2]
    assert [p.x for p in ages.series[0].points] == ["20", "31"]
    assert [p.x for p in train.series[0].points] == [shown[i] for i in at]
    assert "Before labels were grouped" in caption


@pytest.mark.parametrize("change, message", [
    (None, "original.20-28.0.forget.npz is missing"),
    (lambda a: a.pop("seeds"), "original.20-28.0.forget.npz: the array 'seeds' is missing"),
    (lambda a: a.update(outputs=a["outputs"][..., None]), "'outputs' has shape [3, 5, 1]"),
    (lambda a: a.update(ids=a["ids"][:2]), "the array 'ids' has shape [2]"),
    (lambda a: a.update(seeds=np.arange(7, 10)), "the array 'seeds' holds [7, 8, 9]"),
    (lambda a: a.update(ids=a["ids"].astype(object)), "cannot be read"),  # would unpickle
    (lambda a: a.update(ids=a["ids"][::-1]), "the array 'ids' differs"),
])
def test_bad_predictions_are_refused(tmp_path, change, message):
    path = write_workdir(tmp_path, samples=5)
    file = path / "predictions" / "original.20-28.0.forget.npz"
    arrays = dict(np.load(file))
    if change is None:
        file.unlink()
    else:
        change(arrays)
        np.savez(file, **arrays)
    run = read_run(path)
    with pytest.raises(ReportError, match=re.escape(message)):
        samples.sorted_errors(run, "20-28")


def test_sample_arithmetic_by_hand():
    ids = np.array(["a", "b"])
    p = Prediction(np.array([[1.0, 5.0], [np.nan, 5.0]]), np.array([3.0, 4.0]), ids,
                   np.array([0, 1]))
    assert p.finite.errors.tolist() == [[2, 1]] and p.finite.seeds.tolist() == [0]
    logits = np.log(np.array([[[0.2, 0.8], [0.6, 0.4]]]))
    p = Prediction(logits, np.array([1, 1]), ids, np.array([0]))
    np.testing.assert_allclose(p.errors, [[0.2, 0.6]])
    np.testing.assert_array_equal(classes.confusions(p), [[[np.nan] * 2, [0.5, 0.5]]])
    edges = samples.bin_edges(np.array([20.0, 60.0]))
    assert (edges[0], edges[1]) == (19.5, 21.5) and edges[-1] > 60
    labels, values = np.array([20, 21, 22, 60.0]), np.array([1, 3, 5, 7.0])
    mean = samples.binned(values, labels, edges)
    assert mean[:2].tolist() == [2, 5] and mean[-1] == 7 and np.isnan(mean[2])


def test_bars_reach_from_the_smallest_to_the_largest_and_never_backwards():
    found = classes.reach(np.array([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]]))
    np.testing.assert_allclose(found, [[2, 0], [3, 0]])
    equal = np.full((3, 1), 100 / 9)
    assert equal.mean(axis=0) < equal.min()  # which matplotlib refuses to draw
    assert classes.reach(equal).min() == 0


def test_the_drawn_samples_do_not_depend_on_their_order():
    ids = np.array([f"{i:04d}" for i in range(500)])
    shuffled = ids[np.random.default_rng(3).permutation(500)]
    drawn = ids[samples.chosen(ids)]
    assert len(set(drawn)) == 100
    assert drawn.tolist() == shuffled[samples.chosen(shuffled)].tolist()
    assert sorted(samples.chosen(ids[:7])) == list(range(7))


def test_models_look_different_and_the_same_everywhere(tmp_path):
    run = read_run(write_workdir(tmp_path, budgets=(2, 4), samples=5))
    assert [m.method for m in run.models("20-28")] == ["median", "original", "retrain", "ft", "ft"]
    looks = [look(run, m) for m in run.models("20-28")[1:]]
    assert len({each.color for each in looks}) == 4
    assert looks[2].marker == looks[3].marker
    assert sum(looks[2].color) > sum(looks[3].color)  # the smaller budget is paler
    assert look(run, ModelKey("ft", 4)) == looks[3]
