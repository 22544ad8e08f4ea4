"""Pictures of explanations: maps are images, changes of channels are lines with their values."""

import numpy as np
import pytest
from fake_workdir import change_json, write_csv, write_workdir

from unlearn_jax.report.figures import explanations
from unlearn_jax.report.output import Output
from unlearn_jax.report.render.document import Figure
from unlearn_jax.report.sections import explained
from unlearn_jax.report.tables.inputs import read_run

pytestmark = pytest.mark.usefixtures("drawn_figures")

MODELS = (("original", 0), ("retrain", 12), ("ft", 2))


@pytest.fixture
def run(tmp_path):
    path = write_workdir(tmp_path, seeds=(0, 1), samples=12, history=False)
    (path / "explanations").mkdir()
    maps = np.ones((3, 2, 8, 8))
    np.savez(path / "explanations" / "20-28.npz", methods=[m for m, _ in MODELS],
             epochs=[e for _, e in MODELS], set_names=["forget", "retain"],
             sets=["forget", "retain"], images=np.zeros((2, 8, 8, 3)), labels=np.array([20, 40]),
             values=np.ones((3, 2)), ig=maps, gradcam=maps, mean_ig=maps, mean_gradcam=maps)
    write_csv(path / "channels.csv", explanations._CHANNELS, [
        (m, "20-28", e, s, name, "stage 4", c, (c + 1) * (2 if name == "forget" else 1), 2)
        for m, e in MODELS for s in (0, 1) for name in ("forget", "retain") for c in (0, 1)])
    change_json(path / "run.json", lambda r: r["config"]["eval"].update(explain_baseline="grey"))
    return read_run(path)


def test_changes_of_channels_can_be_pointed_at(run):
    write_csv(run.workdir / "explain.csv", explained._COLUMNS, [
        ("ft", "20-28", 2, 0, "forget", "ig", "unexplained", "", "", 0.1, 1)])
    found = explained.section(run, "20-28", Output(run.workdir))
    figures = {b.file: b.plot for b in found.blocks if isinstance(b, Figure)}
    assert len(figures) == 5
    assert [name for name, plot in figures.items() if plot] == ["explained-channels-20-28.png"]
    [panel] = figures["explained-channels-20-28.png"].panels
    assert panel.y == "change / floor"
    points = {s.name: [(p.x, p.y) for p in s.points] for s in panel.series}
    # largest first: changes 4 and 2 on D_f, 2 and 1 on D_r, over a floor of 2
    assert points["$M_\\mathrm{FT}$, 2 epochs, $D_f$"] == [("25", "2"), ("75", "1")]
    assert points["$M_\\mathrm{FT}$, 2 epochs, $D_r$"] == [("25", "1"), ("75", "0.5")]
