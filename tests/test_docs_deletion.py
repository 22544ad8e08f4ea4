"""The commands of docs/deletion.md, in their order, on images that the test writes."""

import csv
import re
import shlex
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import warm
from PIL import Image

from unlearn_jax.__main__ import COMMANDS
from unlearn_jax.storage import traces
from unlearn_jax.storage.store import Store, read_marker

PAGE = Path(__file__).parent.parent / "docs" / "deletion.md"
TINY = ["--config.data.image_size=8", "--config.model.width=2", "--config.model.name=resnet4",
        "--config.model.stem=small", "--config.train.epochs=1", "--config.train.batch_size=16",
        "--config.unlearn.batch_size=16", "--config.unlearn.epochs=(1,)", "--config.seeds=(0,1)",
        "--config.eval.batch_size=50", "--config.train.recalibrate_norms=off",
        "--config.forget.unknown=skip"]
OTHER = ["--config.forget.sets=('class:dog',)", "--workdir=runs/other"]
ACCENT = unicodedata.normalize("NFD", "cat/é.jpg")


def commands():
    """The lines of the page that call unlearn-jax, each with its arguments."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    found = [shlex.split(line) for line in lines]
    assert all(words[0] == "unlearn-jax" for words in found)
    return [words[1:] for words in found]


def ran(words, folder, code=0):
    name, *arguments = words
    if name in ("run", "list"):
        arguments = [*arguments, *(TINY if name == "run" else TINY[:1])]
    done = warm.run([sys.executable, "-m", COMMANDS[name], *arguments], cwd=folder, shared=True)
    assert done.returncode == code, (words, done.stdout[-2000:], done.stderr[-3000:])
    return done


def write_images(root):
    """Three classes of 16 noisy jpgs; cat/copy.jpg has the bytes of cat/3.jpg."""
    rng = np.random.default_rng(0)
    for i, name in enumerate(("cat", "dog", "owl")):
        (root / name).mkdir(parents=True)
        for k in range(16):
            own = ACCENT if (i, k) == (0, 5) else f"{name}/{k}.jpg"
            pixels = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8) // 2 + 40 * i
            Image.fromarray(pixels.astype(np.uint8)).save(root / own)
    (root / "cat" / "copy.jpg").write_bytes((root / "cat" / "3.jpg").read_bytes())


def read(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    """A folder where all commands of the page have run, and what each has printed."""
    folder = tmp_path_factory.mktemp("deletion")
    write_images(folder / "images")
    listed, run, report, export, dry, really, verified = commands()
    said = {"list": ran(listed, folder).stdout}
    with (folder / "ids.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    train = [r["id"] for r in rows if r["split"] == "train" and r["label"] == "cat"]
    composed = unicodedata.normalize("NFC", ACCENT)
    (folder / "requests.txt").write_text("\n".join(
        ["# a request", composed, "cat/3.jpg", "cat/3.jpg", "absent.jpg", *train[:2]]))
    ran(run, folder)
    ran(["run", *run[1:3], *OTHER], folder)  # another run of the same store: M_R saw the cats
    before = {p.name: p.read_bytes() for p in (folder / "runs/deletion/receipt").iterdir()}
    said["before"] = {"receipt": before, "ids": {r["id"]: r for r in rows}}
    page = before["receipt.md"].decode().replace("\\", "")
    named = re.search(r"unlearn-jax (export .*)", page)
    said["page"] = page
    if named:  # the command of the receipt, where the page has KEY
        assert named[1].split()[0] == export[0]
        ran(shlex.split(named[1]), folder)
    said["dry"] = ran(dry, folder, 1).stdout
    said["stages"] = stages(folder)
    with Store(folder / "runs/store").in_use():
        said["in use"] = ran(really, folder, 2).stderr
    assert stages(folder) == said["stages"]
    said["really"] = ran(really, folder).stdout
    said["again"] = ran(dry, folder).stdout
    ran(verified, folder)
    ran(report, folder)
    return folder, said


def stages(folder):
    return {p.relative_to(folder / "runs/store").as_posix()
            for p in (folder / "runs/store").glob("*/*/") if not p.name.startswith(".")}


def test_the_receipt_names_every_id(after):
    folder, said = after
    found = read(folder / "runs/deletion/receipt/receipt.csv")
    asked = found[found.asked != ""]
    by_id = asked.set_index("id")
    assert by_id.asked[ACCENT] == unicodedata.normalize("NFC", ACCENT)
    assert by_id.times["cat/3.jpg"] == "2" and by_id.equal_images["cat/3.jpg"] == "cat/copy.jpg"
    assert found["id"][found.asked == ""].tolist() == ["cat/copy.jpg"]
    assert asked.split[asked.asked == "absent.jpg"].tolist() == ["unknown"]
    for own, row in by_id.iterrows():
        if own:
            assert row.split == said["before"]["ids"][own]["split"]
            assert row.file == f"images/{own}" and (row.split == "train") == (
                row.trained_on == "yes")
            for model in ("original", "retrain", "ft@1"):
                assert np.isfinite(float(row[f"loss_{model}"]))
                assert 0 <= float(row[f"attack_{model}"]) <= 1


def test_the_receipt_says_what_was_skipped_and_the_report_too(after):
    folder, said = after
    words = "'absent.jpg'; they were skipped (config.forget.unknown)"
    assert words in (folder / "runs/deletion/report.md").read_text().replace("\\", "")
    assert "1 unknown, which the data do not have; skipped: absent.jpg" in said["page"]
    assert "cat/copy.jpg" in said["page"] and "What these tests cannot show" in said["page"]


def test_a_dry_run_says_all_and_removes_nothing(after):
    folder, said = after
    store = Store(folder / "runs/store")
    for stage in ("original", "predictions"):
        assert f"runs/store/{stage}/" in said["dry"]
    assert "To be removed: " in said["dry"] and "Nothing was removed: give --yes" in said["dry"]
    assert "Unknown in this store (2): '# a request', 'absent.jpg'" in said["dry"]
    assert "  file images/cat/3.jpg" in said["dry"]
    assert "work directory" in said["dry"] and "runs/deletion:" in said["dry"]
    assert "in use: a run" in said["in use"]
    assert store.keys(traces.SAMPLES)


def test_what_saw_them_is_gone_and_the_rest_is_there(after):
    folder, said = after
    store = Store(folder / "runs/store")
    gone = said["stages"] - stages(folder)
    assert {name.split("/")[0] for name in gone} == {"data", "original", "retrain", "ft",
                                                     "predictions"}
    run = pd.read_json(folder / "runs/deletion/run.json", typ="series")
    keys = {s["stage"]: s["key"] for s in run["stages"]}
    assert not store.complete("original", keys["original"])
    # M_R and the unlearned models of the request stay; those of the other forget set saw the cats.
    assert store.keys("retrain") == [keys["retrain"]] and store.keys("ft") == [keys["ft"]]
    models = {stage["key"] for stage in run["stages"]} & {keys["retrain"], keys["ft"]}
    assert {marker_model(store, key) for key in store.keys("predictions")} == models
    assert not list((folder / "runs/store/data").glob("*/"))
    assert "Nothing is left to remove" in said["again"]
    assert traces.find_traces(store.root, ["cat/3.jpg"])


def marker_model(store, key):
    return read_marker(store.path("predictions", key))["parts"]["model"]


def test_the_report_is_made_again_and_says_what_is_left_now(after):
    folder, said = after
    receipt = folder / "runs/deletion/receipt"
    assert (receipt / "receipt.csv").read_bytes() == said["before"]["receipt"]["receipt.csv"]
    kinds = set(read(receipt / "remains.csv").kind)
    assert {"unlearned models", "models trained without them", "data files"} <= kinds
    assert not {"models trained with them", "image caches"} & kinds
    before = said["before"]["receipt"]["remains.csv"].decode()
    assert "models trained with them" in before and "image caches" in before


def test_a_store_is_asked_for(tmp_path):
    (tmp_path / "ids.txt").write_text("a\n")
    done = warm.run([sys.executable, "-m", "unlearn_jax.forget_data", str(tmp_path),
                     f"--ids={tmp_path / 'ids.txt'}"])
    assert done.returncode == 2 and f"{tmp_path} is no store\n" in done.stderr
    assert len(done.stderr.strip().split("\n")) == 2
