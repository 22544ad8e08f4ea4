"""Class folders and CSV files."""

import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_faces import reasons

from unlearn_jax import data
from unlearn_jax.config import default_config
from unlearn_jax.errors import InputError


def write_image(path, level, size=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (level,) * 3).save(path)


NO_IMAGE = "undecodable: not an image of a format that is read"
HIDDEN = "hidden: its name begins with a dot, or is __MACOSX"


def load(path, tmp_path, **changes):
    c = default_config().data
    with c.unlocked():
        c.update(source="folder", path=str(path), image_size=16, label_min=-1000, label_max=1000)
        c.update(changes)
    return data.load(c, tmp_path / "cache")


@pytest.fixture
def classes(tmp_path):
    root = tmp_path / "pets"
    write_image(root / "dog" / "1.jpg", 100)
    write_image(root / "dog" / "more" / "2.png", 150)
    write_image(root / "cat" / "1.jpg", 200)
    return root


def test_class_folders(classes, tmp_path):
    (classes / "empty").mkdir()
    (classes / "cat" / "notes.txt").write_text("")
    (classes / "cat" / "broken.png").write_bytes(b"x")
    write_image(classes / "loose.jpg", 9)
    write_image(classes / "dog" / "tiny.png", 9, size=15)
    d = load(classes, tmp_path, task="classification")
    assert d.ids.tolist() == ["cat/1.jpg", "dog/1.jpg", "dog/more/2.png"]
    assert d.class_names == ("cat", "dog") and d.labels.tolist() == [0, 1, 1]
    assert np.abs(d.images.mean((1, 2, 3)) - [200, 100, 150]).max() < 2
    assert {x.id: x.reason for x in d.dropped} == {
        "cat/broken.png": NO_IMAGE, "cat/notes.txt": NO_IMAGE,
        "loose.jpg": "not in a class folder", "dog/tiny.png": "smaller than 16 pixels"}
    again = load(classes, tmp_path, task="classification")
    assert again.fingerprint == d.fingerprint and again.dropped == d.dropped


def test_images_of_all_formats_are_read_and_all_else_is_listed(classes, tmp_path):
    for i, kind in enumerate(("webp", "bmp", "tif", "jfif", "tiff", "gif", "JPG", "avif")):
        write_image(classes / "dog" / f"{i}.{kind}", 100)
    write_image(classes / "cat" / "saved.png", 100)
    (classes / "cat" / "saved.png").rename(classes / "cat" / "without an end")
    (classes / "cat" / ".DS_Store").write_bytes(b"x")
    write_image(classes / ".thumbs" / "cat" / "1.png", 100)
    (classes / "README.md").write_text("pets")
    (classes / "labels.csv").write_text("path,label")
    (classes / "dog" / "empty.webp").write_bytes(b"")
    d = load(classes, tmp_path, task="classification")
    assert len(d.ids) == 12 and d.class_names == ("cat", "dog")
    assert reasons(d) == {
        "cat/.DS_Store": HIDDEN, ".thumbs/": HIDDEN, "README.md": "not in a class folder",
        "labels.csv": "not in a class folder", "dog/empty.webp": NO_IMAGE}
    every = {str(p.relative_to(classes)) for p in classes.rglob("*") if p.is_file()}
    listed = reasons(d).keys() | set(d.ids.tolist())
    assert {p for p in every if not p.startswith(".thumbs/")} == listed - {".thumbs/"}
    (classes / "dog" / ".hidden").write_bytes(b"x")  # the cache does not hide what came later
    assert "dog/.hidden" in reasons(load(classes, tmp_path, task="classification"))


def test_images_without_the_name_of_one_are_read(tmp_path):
    for i, level in enumerate((50, 150)):
        write_image(tmp_path / "root" / "ab"[i] / "1.png", level)
        (tmp_path / "root" / "ab"[i] / "1.png").rename(tmp_path / "root" / "ab"[i] / "0001")
    assert load(tmp_path / "root", tmp_path, task="classification").ids.tolist() == [
        "a/0001", "b/0001"]


def test_linked_class_folders_are_followed_and_cycles_are_not(classes, tmp_path):
    write_image(tmp_path / "elsewhere" / "1.jpg", 50)
    (classes / "bird").symlink_to(tmp_path / "elsewhere")
    (classes / "cat" / "loop").symlink_to(classes)
    d = load(classes, tmp_path, task="classification")
    assert d.ids.tolist() == ["bird/1.jpg", "cat/1.jpg", "dog/1.jpg", "dog/more/2.png"]
    assert reasons(d) == {"cat/loop/": "folder that is read already: as './'"}


def test_a_folder_is_read_under_its_own_name_rather_than_a_links(classes, tmp_path):
    (classes / "ape").symlink_to(classes / "dog")
    (classes / "bird").symlink_to(classes / ".store")
    (classes / "crow").symlink_to(classes / ".store")
    write_image(classes / ".store" / "1.jpg", 50)
    d = load(classes, tmp_path, task="classification")
    assert d.ids.tolist() == ["bird/1.jpg", "cat/1.jpg", "dog/1.jpg", "dog/more/2.png"]
    assert d.class_names == ("bird", "cat", "dog") and d.labels.tolist() == [0, 1, 2, 2]
    assert reasons(d) == {"ape/": "folder that is read already: as 'dog/'", ".store/": HIDDEN,
                          "crow/": "folder that is read already: as 'bird/'"}
    (classes / "fox").symlink_to(classes / "cat")
    assert "fox/" in reasons(load(classes, tmp_path, task="classification"))


def test_names_that_are_not_utf8_are_left_out(classes, tmp_path):
    os.rename(classes / "cat" / "1.jpg", os.fsencode(classes / "cat") + b"/caf\xe9.jpg")
    write_image(classes / "cat" / "caf\u00e9.jpg", 60)
    write_image(classes / "hen" / "1.jpg", 60)
    os.rename(classes / "hen", os.fsencode(classes) + b"/h\xe9n")
    d = load(classes, tmp_path, task="classification")
    assert d.ids.tolist() == ["cat/caf\u00e9.jpg", "dog/1.jpg", "dog/more/2.png"]
    assert d.class_names == ("cat", "dog")
    assert reasons(d) == {"cat/caf\\xe9.jpg": "file name is not UTF-8",
                          "h\\xe9n/1.jpg": "file name is not UTF-8"}


def test_a_class_without_a_usable_image_is_none(classes, tmp_path, caplog):
    (classes / "bad").mkdir()
    (classes / "bad" / "1.png").write_bytes(b"x")
    (classes / "cow").mkdir()
    (classes / "cow" / "1.gif").write_bytes(b"x")
    for _ in range(2):  # the second is from the cache
        caplog.clear()
        d = load(classes, tmp_path, task="classification")
        assert d.class_names == ("cat", "dog") and d.labels.tolist() == [0, 1, 1]
        assert "with no usable image, and so no class: 'bad', 'cow'" in caplog.text
    write_image(classes / "cow" / "2.png", 9)
    assert load(classes, tmp_path, task="classification").class_names == ("cat", "cow", "dog")


@pytest.mark.parametrize("names", [["train", "test"], ["Train", "VALID", "test"], ["validation"]])
def test_splits_are_no_classes(classes, tmp_path, names):
    for name in names:
        shutil.copytree(classes, tmp_path / "root" / name)
    with pytest.raises(InputError, match=f"holds {', '.join(map(repr, sorted(names)))}, which are "
                                         "splits and no classes; give one of them as config.data"):
        load(tmp_path / "root", tmp_path, task="classification")
    write_image(tmp_path / "root" / "horse" / "1.png", 9)
    assert "horse" in load(tmp_path / "root", tmp_path, task="classification").class_names


def test_a_renamed_class_is_seen(classes, tmp_path):
    assert load(classes, tmp_path, task="classification").class_names == ("cat", "dog")
    (classes / "cat").rename(classes / "hen")
    assert load(classes, tmp_path, task="classification").class_names == ("dog", "hen")


def write_csv(tmp_path, text):
    for i, level in enumerate((40, 80, 120)):
        write_image(tmp_path / "images" / f"{i}.png", level)
    path = tmp_path / "list.csv"
    path.write_text(text)
    return path


def test_csv_regression_with_attributes(tmp_path):
    path = write_csv(tmp_path, "\ufefflabel, path,sex,site\n"
                               "30.5,images/1.png,1,-7\n\n"
                               "-2,images/0.png,0,12\n"
                               "1e2,images/none.png,0,0\n")
    d = load(path, tmp_path)
    assert d.ids.tolist() == ["images/0.png", "images/1.png"]
    assert d.labels.tolist() == [-2.0, 30.5] and d.task == "regression"
    assert {k: v.tolist() for k, v in d.attributes.items()} == {"sex": [0, 1], "site": [12, -7]}
    assert np.abs(d.images.mean((1, 2, 3)) - [40, 80]).max() < 1
    assert [(x.id, x.step, x.reason) for x in d.dropped] == [
        ("images/none.png", "read", "unreadable file: No such file or directory")]


def test_csv_classification_sorts_numbers_as_numbers(tmp_path):
    path = write_csv(tmp_path, "path,label\nimages/0.png,10\nimages/1.png,2\nimages/2.png,old\n")
    d = load(path, tmp_path, task="classification")
    assert d.class_names == ("2", "10", "old") and d.labels.tolist() == [1, 0, 2]


def test_csv_class_without_a_usable_image_is_none(tmp_path, caplog):
    path = write_csv(tmp_path, "path,label\nimages/0.png,10\nimages/1.png,old\nimages/9.png,2\n")
    d = load(path, tmp_path, task="classification")
    assert d.class_names == ("10", "old") and d.labels.tolist() == [0, 1]
    assert "with no usable image, and so no class: '2'" in caplog.text


@pytest.mark.parametrize("one, other", [("1", "1.0"), ("01", "1"), ("1e3", "1000"), ("-0", "0")])
def test_csv_classes_of_one_number_are_spelled_alike(tmp_path, one, other):
    path = write_csv(tmp_path, f"path,label\nimages/0.png,{one}\nimages/1.png,x\n"
                               f"images/2.png,{other}\n")
    with pytest.raises(InputError, match=f"line 4 has the label '{other}', the number '{one}' of "
                                         "line 2 spelled otherwise"):
        load(path, tmp_path, task="classification")


def test_csv_classes_that_only_resemble_numbers(tmp_path):
    long = "10000000000000000"  # as floating-point numbers these two are one
    path = write_csv(tmp_path, f"path,label\nimages/0.png,{long}0\nimages/1.png,{long}1\n"
                               "images/2.png,nan\n")
    names = load(path, tmp_path, task="classification").class_names
    assert names == (f"{long}0", f"{long}1", "nan")


def test_csv_one_file_under_two_paths(tmp_path):
    for other in ("./images/0.png", "images/../images/0.png", str(tmp_path / "images" / "0.png"),
                  "link.png", "folder/0.png"):
        path = write_csv(tmp_path, f"path,label\nimages/0.png,1\nimages/1.png,1\n{other},2\n")
        for name, target in (("link.png", "images/0.png"), ("folder", "images")):
            if not (tmp_path / name).is_symlink():
                (tmp_path / name).symlink_to(target)
        with pytest.raises(InputError, match=f"line 4 holds {other!r}, the file of line 2, "
                                             "'images/0.png'; an image may have one line"):
            load(path, tmp_path)


def test_csv_and_task_changes_are_seen(tmp_path):
    path = write_csv(tmp_path, "path,label\nimages/0.png,1\nimages/1.png,5\n")
    assert load(path, tmp_path).labels.tolist() == [1, 5]
    assert load(path, tmp_path, task="classification").labels.tolist() == [0, 1]
    path.write_text("path,label\nimages/0.png,2\nimages/1.png,5\n")
    assert load(path, tmp_path).labels.tolist() == [2, 5]
    write_image(tmp_path / "images" / "0.png", 250)
    assert load(path, tmp_path).images[0, 0, 0, 0] == 250


@pytest.mark.parametrize("text, message", [
    ("", "must name the columns path and label"),
    ("file,label\nimages/0.png,1\n", "begins with 'file,label'; the first line must name"),
    ("path,label,label\n", "each further one once"),
    ("path,label,class\nimages/0.png,1,2\n", "has a column 'class', a name that forget sets use"),
    ("path,label\nimages/0.png,1,2\n", "line 2 has 3 fields; its header has 2"),
    ("path,label\nimages/0.png,1\nimages/0.png,2\n", "line 3 repeats the path 'images/0.png' of "
                                                     "line 2"),
    ("path,label\nimages/0.png,old\n", "line 2 has the label 'old', which is no number .*; for "
                                       "names of classes"),
    ("path,label\nimages/0.png,nan\n", "label 'nan', which is no number"),
    ("path,label\nimages/0.png,\n", "line 2 has an empty path or label"),
    ("path,label,sex\nimages/0.png,1,male\n", "line 2 has the sex 'male', which is no whole "
                                              "number"),
    ("path,label,sex\nimages/0.png,1,1.5\n", "sex '1.5', which is no whole number"),
    ("path,label,sex\nimages/0.png,1,9999999999\n", "sex '9999999999', which is no whole number"),
    ("path,label\n", "list.csv' has no rows: there is nothing below its header"),
    ("path,label\nimages/9.png,1\n", "none of the 1 images of '.*list.csv' is there, such as "
     "'/.*/images/9.png' .unreadable file: No such file or directory.; paths start at the folder"),
])
def test_csv_mistakes(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load(write_csv(tmp_path, text), tmp_path)


def test_small_images_are_used_where_as_few_pixels_are_asked_for(tmp_path):
    for i, size in enumerate((28, 28, 12, 40)):
        write_image(tmp_path / "root" / "a" / f"{i}.png", 90, size)
    root, words = tmp_path / "root", "smaller than"
    whole = [(16, 3, [f"{words} 16 pixels"]), (8, 4, []), (32, 1, [f"{words} 32 pixels"] * 3),
             (64, 1, [f"{words} 32 pixels"] * 3), (16, 3, [f"{words} 16 pixels"])]
    for size, used, why in whole:
        d = load(root, tmp_path, task="classification", image_size=size)
        assert (len(d.labels), [x.reason for x in d.dropped]) == (used, why)


def test_without_a_usable_image_the_reasons_are_counted(tmp_path):
    for i in range(3):
        write_image(tmp_path / "root" / "a" / f"{i}.png", 90, 20)
    (tmp_path / "root" / "a" / "0broken.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"left out: 3 smaller than 32 pixels \(such as 'a/0.png'\)"
                                         fr"; 1 {NO_IMAGE} \(such as 'a/0broken.png'\)"):
        load(tmp_path / "root", tmp_path, task="classification", image_size=32)
    with pytest.raises(InputError, match="config.data.path is empty; give a folder"):
        load("", tmp_path)


def test_csv_that_is_no_text(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes(b"path,label\n\xff\xfe\n")
    with pytest.raises(InputError, match="line 2 is no text in UTF-8"):
        load(path, tmp_path)


@pytest.mark.parametrize("prepare, changes, message", [
    (lambda p: None, {}, "which does not exist; give a folder of class folders or a .csv"),
    (lambda p: p.write_bytes(io.BytesIO().getvalue()), {}, "a file of another kind"),
    (lambda p: p.mkdir(), dict(task="classification"), "has no class folder with an image in it"),
    (lambda p: p.mkdir(), {}, "class folders are a classification, but config.data.task is "
                              "'regression'"),
])
def test_wrong_paths(tmp_path, prepare, changes, message):
    prepare(tmp_path / "x")
    with pytest.raises(InputError, match=message):
        load(tmp_path / "x", tmp_path, **changes)
