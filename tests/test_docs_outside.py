"""What a stranger brings, by the commands of the pages: a network; a trained model without M_R.

The commands run as they are written, on folders of small jpgs. Flags that make networks, images and
budgets small are added at their ends.
"""

import csv
import json
import shutil
import sys

import numpy as np
import pytest
import safetensors.numpy
import warm
from PIL import Image
from test_docs_commands import ROOT, commands
from test_docs_networks import example

from unlearn_jax.export.__main__ import main as export
from unlearn_jax.storage.store import Store

CLASSES = ("car", "cat", "dog")
SMALL = ("--config.data.image_size=8", "--config.train.epochs=2", "--config.seeds=(0,1)",
         "--config.train.batch_size=16", "--config.unlearn.batch_size=16",
         "--config.eval.batch_size=50", "--config.train.recalibrate_norms=off")


def command(page, *wanted):
    """The one command of a page that has all these words."""
    (found,) = [words for words in commands(ROOT / "docs" / page)
                if set(wanted) <= set(words)]
    return found


def run(words, cwd, *more):
    """Runs a command of a page in a folder of its own; the config files are those of the root."""
    python, *rest = [w.replace("--config=configs", f"--config={ROOT}/configs") for w in words]
    assert python == "python"
    done = warm.run([sys.executable, *rest, *more], cwd=cwd, shared=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def table(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with FOLDER/{train,test}/CLASS/*.jpg; the colour tells most of the class."""
    base, rng = tmp_path_factory.mktemp("stranger"), np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 12)):
        for number, name in enumerate(CLASSES):
            place = base / "FOLDER" / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.normal(128, 40, (8, 8, 3))
                pixels[..., number] += 60
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{i}.jpg")
    return base


def test_a_network_of_ones_own_on_given_splits_is_compared_under_four_methods(folder):
    (folder / "vit.py").write_text(example(width=8, depth=1))
    words = command("networks.md", "--workdir=runs/vit")
    run(words, folder, *SMALL, "--config.compare.trials=1", "--config.eval.audits=()")
    rows = table(folder / "runs/vit/leaderboard.csv")
    assert {"ft", "scrub", "ssd", "neggrad_plus"} <= {row["method"] for row in rows}
    with np.load(folder / "runs/vit/predictions/original.class-cat.0.test.npz") as file:
        assert all(i.startswith("test/") for i in file["ids"].tolist())
    assert {row["forget_set"] for row in table(folder / "runs/vit/verdict.csv")} == {"class-cat"}


def test_a_trained_model_is_unlearned_without_m_r_and_taken_out_again(folder, tmp_path):
    shutil.copytree(folder / "FOLDER/train", tmp_path / "FOLDER")
    folder = tmp_path
    size = ("--config.model.name=resnet4", "--config.model.width=2", "--config.model.stem=small",
            *SMALL)
    first = command("models_from_outside.md", "--workdir=runs/outside")
    second = command("models_from_outside.md", "--workdir=runs/outside-neggrad_plus")
    # The model is one of this package, with torchvision's names; `retrain` trains M_O alone too.
    own = [w for w in first if not w.startswith(("--config.original", "--workdir"))]
    run(own, folder, *size, "--config.unlearn.epochs=(1,)", "--config.eval.audits=()",
        "--workdir=runs/own", "--store=first")
    (key,) = Store(folder / "first").keys("original")
    assert export([str(folder / "first/original" / key), "--seed=0",
                   f"--to={folder / 'resnet18.safetensors'}"]) == 0
    (folder / "resnet18.json").unlink()  # a stranger's file comes alone
    values = [float(r["value"]) for r in table(folder / "runs/own/results.csv")
              if (r["method"], r["metric"], r["seed"]) == ("original", "accuracy_test", "0")]
    for words in (first, second):
        said = run([w.replace("=0.93", f"={values[0]}") for w in words], folder, *size,
                   "--config.unlearn.epochs=(1,)", "--config.eval.audits=('mia',)").stderr
        assert f"{values[0]:.4g}" in said.split("members")[0]  # before anything is trained
    judged = [table(folder / name / "verdict.csv") for name in (
        "runs/outside", "runs/outside-neggrad_plus")]
    assert {row["verdict"] for rows in judged for row in rows} <= {"not forgotten", "undecided"}
    record = json.loads((folder / "runs/outside/run.json").read_text())
    assert not [s for s in record["stages"] if s["stage"] == "retrain"]

    (key,) = Store(folder / "runs/store").keys("neggrad_plus")
    words = command("models_from_outside.md", "--to=forgot.safetensors")
    run([w.replace("KEY", key) for w in words], folder)
    found, given = (safetensors.numpy.load_file(folder / name) for name in (
        "forgot.safetensors", "resnet18.safetensors"))
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in given.items()}
    assert "layer1.0.bn1.running_mean" in found and "fc.weight" in found
    assert any((found[k] != given[k]).any() for k in found)
