"""`unlearn-jax list ids`: all ids of a data set, as a request may name them."""

import csv
import io
import types
import unicodedata

import pytest
from tiny_faces import jpeg

from unlearn_jax import listing
from unlearn_jax.data.locations import location
from unlearn_jax.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
COMPOSED = unicodedata.normalize("NFC", "é.jpg")


def write_classes(root):
    """Two classes of ten images each, and a file that is no image."""
    for i, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for k in range(10):
            (root / name / f"{k}.jpg").write_bytes(jpeg(60 + 100 * i + 5 * k))
    (root / "cat" / COMPOSED).write_bytes(jpeg(33))
    (root / "cat" / "notes.txt").write_text("no image")
    return root


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def flags(root, store, *more):
    return ["ids", "--config=ft:classes", f"--config.data.path={root}",
            "--config.data.image_size=16", f"--store={store}", *more]


def test_all_ids_are_listed_with_split_label_and_file(tmp_path, capsys):
    root = write_classes(tmp_path / "images")
    # A request that is not written yet is no obstacle: the list is what it is made from.
    listing.main(flags(root, tmp_path / "store", "--config.forget.sets=('ids:not-yet.txt',)",
                       f"--out={tmp_path / 'ids.csv'}"))
    assert capsys.readouterr().out.strip() == str(tmp_path / "ids.csv")
    listing.main(flags(root, tmp_path / "store"))
    text = capsys.readouterr().out
    assert text == (tmp_path / "ids.csv").read_text()
    found = {r["id"]: r for r in rows(text)}
    assert set(found) == {str(p.relative_to(root)) for p in root.rglob("*.*")}
    assert found["cat/notes.txt"]["split"] == "dropped" and not found["cat/notes.txt"]["label"]
    used = [r for r in found.values() if r["split"] != "dropped"]
    assert {r["split"] for r in used} == {"train", "validation", "test"} and len(used) == 21
    assert all(r["label"] == r["id"].split("/")[0] for r in used)
    assert all(r["file"] == str(root / r["id"]) for r in found.values())


def test_samples_outside_the_range_are_listed_as_left_out(tmp_path, capsys):
    listing.main(["ids", "--config=ft", "--config.data.size=60", "--config.data.image_size=8",
                  "--config.data.label_max=40", f"--store={tmp_path}"])
    found = rows(capsys.readouterr().out)
    assert len(found) == 60 and not any(r["file"] for r in found)
    assert {r["split"] for r in found} == {"train", "validation", "test", "left out"}
    assert all(bool(r["label"]) != (r["split"] == "left out") for r in found)


def test_wrong_flags_are_refused(tmp_path):
    with pytest.raises(InputError, match="--config is missing"):
        listing.main(["ids"])
    with pytest.raises(InputError, match="config.data.image_size is 3"):
        listing.main(["ids", "--config=ft", "--config.data.image_size=3"])


@pytest.mark.parametrize("source, path, own, expected", [
    ("synthetic", "", "a", ""),
    ("digits", "", "digits-0001", "part of the package scikit-learn"),
    ("tfds:mnist", "", "train-000001", "tfds:mnist below ~/tensorflow_datasets"),
    ("folder", "table.csv", "x/a.jpg", "{root}/x/a.jpg"),
    ("utkface", "deep", "1[a].jpg", "{root}/deep/part/1[a].jpg"),
    ("utkface", "packed", "20_0.jpg", "20_0.jpg in {root}/packed/faces.zip"),
    ("utkface", "gone.zip", "20_0.jpg", "20_0.jpg in {root}/gone.zip"),
])
def test_where_a_file_lies(tmp_path, source, path, own, expected):
    (tmp_path / "deep" / "part").mkdir(parents=True)
    (tmp_path / "deep" / "part" / "1[a].jpg").write_text("")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "faces.zip").write_text("")
    settings = types.SimpleNamespace(source=source, path=str(tmp_path / path) if path else "")
    assert location(settings, own) == expected.format(root=tmp_path)
