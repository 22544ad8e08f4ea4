"""UTKFace from folders and archives, good and hostile."""

import io
import os
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data_folder import HIDDEN, NO_IMAGE
from tiny_faces import GOOD, jpeg, load, reasons, write_good

from unlearn_jax.data.dataset import fingerprint
from unlearn_jax.data.files import walk
from unlearn_jax.data.utkface import Label, parse_name
from unlearn_jax.errors import InputError


@pytest.mark.parametrize("name, label", [
    ("24_0_1_20170116220224657.jpg.chip.jpg", Label(24, 0, 1)),
    ("116_1_4_2017.jpg", Label(116, 1, 4)),
    ("24_0_1_20170116220224657 .jpg.chip.jpg", Label(24, 0, 1)),
    ("39_1_20170116174525125.jpg.chip.jpg", None),  # a field is missing
    ("55_0_0_20170116232725357jpg.chip.jpg", None),  # a dot is missing
    ("61_3_0_20170109150557335.jpg", None),  # no such gender
    ("61_1_5_20170109150557335.jpg", None),  # no such race
    ("117_1_0_20170109150557335.jpg", None),  # older than the set's oldest
    ("-5_1_0_20170109150557335.jpg", None),
    ("20_1_0_.jpg", None),
    ("20_1_0_2017.png", Label(20, 1, 0)),  # saved anew
    ("20_1_0_2017.JPEG", Label(20, 1, 0)), ("20_1_0_2017.jpg.chip.png", Label(20, 1, 0)),
    ("20_1_0_2017.chip.jpg", None), ("20_1_0_2017.", None), ("20_1_0_2017", None),
    ("\u0662\u0660_1_0_2017.jpg", None),  # digits of another script
])
def test_parse_name(name, label):
    assert parse_name(name) == label


def test_folder_gives_sorted_labelled_images(tmp_path):
    folder = write_good(tmp_path / "faces")
    (folder / "README.txt").write_text("not an image")
    (folder / ".hidden.jpg").write_bytes(b"")
    d = load(folder, tmp_path / "cache")
    assert d.ids.tolist() == sorted(GOOD)
    assert d.labels.tolist() == [20, 35, 60] and d.labels.dtype == np.float32
    assert d.attributes["gender"].tolist() == [0, 1, 0]
    assert d.attributes["race"].tolist() == [0, 2, 4]
    assert (d.task, d.label_unit, d.num_classes) == ("regression", "years", 0)
    assert reasons(d) == {"README.txt": "not an image, by its name", ".hidden.jpg": HIDDEN}
    assert d.images.shape == (3, 16, 16, 3)
    # left halves show the level, right halves black; jpeg and resizing cost a few grey levels
    assert np.abs(d.images[:, :, :6].mean((1, 2, 3)) - [80, 140, 240]).max() < 4
    assert d.images[:, :, 10:].max() < 12


def test_unusable_files_are_listed_with_their_reasons(tmp_path):
    folder = write_good(tmp_path / "faces")
    whole = jpeg(200)
    (folder / "30_0_20170101000000000.jpg").write_bytes(whole)
    (folder / "31_0_0_2017.jpg").write_bytes(whole[:len(whole) * 2 // 3])
    (folder / "32_0_0_2017.jpg").write_bytes(jpeg(200, size=31))
    (folder / "33_0_0_2017.jpg").write_bytes(b"no image at all")
    (folder / "34_0_0_2017.jpg").write_bytes(b"")
    (folder / "36_0_0_2017.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "37_0_0_2017.jpg").write_bytes(jpeg(200, size=32))
    d = load(folder, tmp_path / "cache")
    assert d.ids.tolist() == sorted([*GOOD, "37_0_0_2017.jpg"])
    assert reasons(d) == {
        "30_0_20170101000000000.jpg": "malformed name: not [age]_[gender]_[race]_[date&time].jpg",
        "31_0_0_2017.jpg": "truncated",
        "32_0_0_2017.jpg": "smaller than 32 pixels",
        "33_0_0_2017.jpg": NO_IMAGE,
        "34_0_0_2017.jpg": NO_IMAGE,
        "36_0_0_2017.jpg": "unreadable file: No such file or directory",
    }
    assert {x.step for x in d.dropped} == {"read"}


def test_faces_saved_in_another_format_are_read(tmp_path):
    folder = tmp_path / "faces"
    folder.mkdir()
    ends = ["png", "jpeg", "jpg.chip.webp", "JPG", "bmp", "jfif"]
    for age, end in enumerate(ends, 20):
        with Image.open(io.BytesIO(jpeg(100))) as image:
            image.save(folder / f"{age}_0_0_2017.{end}")
    (folder / "30_0_0_2017.txt").write_text("no image")
    d = load(folder, tmp_path / "cache")
    assert d.labels.tolist() == [20, 21, 22, 23, 24, 25]
    assert reasons(d) == {"30_0_0_2017.txt": NO_IMAGE}


def test_of_a_face_in_two_formats_one_counts(tmp_path):
    folder = write_good(tmp_path / "faces")
    for name, level in (("60_0_4_20170101000000002.png", 9), ("35_1_2_20170101000000001.png", 9)):
        Image.new("RGB", (40, 40), (level,) * 3).save(folder / name)
    d = load(folder, tmp_path / "cache")
    assert d.ids.tolist() == sorted(GOOD)
    assert reasons(d) == {
        "60_0_4_20170101000000002.png": "another version: 60_0_4_20170101000000002.jpg is used",
        "35_1_2_20170101000000001.png":
            "another version: 35_1_2_20170101000000001.jpg.chip.jpg is used"}


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_what_an_archive_hides_is_listed(tmp_path, suffix):
    names = [*GOOD, "__MACOSX/UTKFace/._1.jpg", "__MACOSX/UTKFace/._2.jpg", "UTKFace/.DS_Store",
             "UTKFace/labels.txt"]
    folder = tmp_path / "faces"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(GOOD.get(name, 9)))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z, tarfile.open(tmp_path / "a.tar", "w") as t:
        t.add(folder / "__MACOSX", "__MACOSX")  # with entries of folders
        for name in names:
            z.write(folder / name, name)
            if "__MACOSX" not in name:
                t.add(folder / name, name)
    for path in (folder, tmp_path / f"a{suffix}"):
        d = load(path, tmp_path / "cache")
        assert d.ids.tolist() == sorted(GOOD)
        assert reasons(d) == {"__MACOSX/": HIDDEN, "UTKFace/.DS_Store": HIDDEN,
                              "UTKFace/labels.txt": "not an image, by its name"}


def test_archives_equal_the_folder(tmp_path):
    folder = write_good(tmp_path / "faces")
    expected = load(folder, tmp_path / "cache")
    assert expected.fingerprint == fingerprint(
        np.array(expected.images), expected.labels, expected.ids)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        for name in GOOD:
            z.write(folder / name, f"UTKFace/{name}")
    # another order than the folder's must not matter
    for suffix, mode in ((".tar", "w"), (".tar.gz", "w:gz"), (".tgz", "w:gz")):
        with tarfile.open(tmp_path / f"a{suffix}", mode) as t:
            for name in reversed(sorted(GOOD)):
                t.add(folder / name, f"UTKFace/{name}")
    for suffix in (".zip", ".tar", ".tar.gz", ".tgz"):
        d = load(tmp_path / f"a{suffix}", tmp_path / "cache")
        np.testing.assert_array_equal(d.images, expected.images)
        assert d.ids.tolist() == expected.ids.tolist()
        assert d.fingerprint == expected.fingerprint


def test_folder_with_only_the_archive_in_it(tmp_path):
    folder = write_good(tmp_path / "faces")
    (tmp_path / "download").mkdir()
    with zipfile.ZipFile(tmp_path / "download" / "archive.zip", "w") as z:
        for name in GOOD:
            z.write(folder / name, name)
    assert len(load(tmp_path / "download", tmp_path / "cache").ids) == 3


def test_a_name_in_two_folders_counts_once(tmp_path):
    write_good(tmp_path / "faces" / "UTKFace")
    write_good(tmp_path / "faces" / "crop_part1")
    (tmp_path / "faces" / "zz").symlink_to("UTKFace")
    d = load(tmp_path / "faces", tmp_path / "cache")
    assert d.ids.tolist() == sorted(GOOD)
    assert reasons(d) == {"zz/": "folder that is read already: as 'UTKFace/'"} | {
        f"crop_part1/{name}": "repeated: another folder has a file of this name" for name in GOOD}


@pytest.mark.parametrize("suffix", ["", ".tar"])
@pytest.mark.parametrize("wild", ["a", "z"])  # before the crops, and behind them
def test_of_a_photograph_and_its_crop_the_crop_counts(tmp_path, wild, suffix):
    faces = tmp_path / "faces"
    write_good(faces / "crops")
    (faces / wild).mkdir()
    for name in GOOD:
        (faces / wild / name.removesuffix(".chip.jpg")).write_bytes(jpeg(250, size=90))
    (faces / wild / "50_0_0_2017.jpg").write_bytes(jpeg(200))
    (faces / "crops" / "50_0_0_2017.jpg.chip.jpg").symlink_to("nowhere")  # no crop to be used
    with tarfile.open(tmp_path / "faces.tar", "w") as t:
        for path in sorted(faces.rglob("*.jpg")):
            t.add(path, path.relative_to(faces))
    d = load(tmp_path / f"faces{suffix}", tmp_path / "cache")
    assert d.ids.tolist() == sorted([*GOOD, "50_0_0_2017.jpg"])
    crops = [name for name in GOOD if name.endswith(".chip.jpg")]
    found = {k: v for k, v in reasons(d).items() if v.startswith("another")}
    assert found == {f"{wild}/{name.removesuffix('.chip.jpg')}": f"another version: {name} is used"
                     for name in crops}


def test_names_of_archives_that_are_not_utf8(tmp_path):
    folder, bad = write_good(tmp_path / "faces"), "30_0_0_2017\udce9.jpg"
    with tarfile.open(tmp_path / "faces.tar", "w") as t:
        for name in GOOD:
            t.add(folder / name, name)
        t.add(folder / name, bad)
    d = load(tmp_path / "faces.tar", tmp_path / "cache")
    assert d.ids.tolist() == sorted(GOOD)
    assert reasons(d) == {"30_0_0_2017\\xe9.jpg": "file name is not UTF-8"}
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as z:
        for name in (*GOOD, "30_0_0_2017\u00e9.jpg"):
            z.writestr(name, jpeg(9))
    content = (tmp_path / "faces.zip").read_bytes()
    (tmp_path / "faces.zip").write_bytes(content.replace(b"\xc3\xa9", b"\xe9\xe9"))
    with pytest.raises(InputError, match="damaged or incomplete .'utf-8' codec can't decode"):
        load(tmp_path / "faces.zip", tmp_path / "cache")


def _hostile_tar(path: Path) -> None:
    with tarfile.open(path, "w:gz") as t:
        def add(name, content=b"", **fields):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            t.addfile(info, io.BytesIO(content))

        for name, age in GOOD.items():
            add(name, jpeg(age * 4))
        add("../../40_0_0_2017.jpg", jpeg(9))
        add("/tmp/41_0_0_2017.jpg", jpeg(9))
        add("42_0_0_2017.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add("43_0_0_2017.jpg", type=tarfile.LNKTYPE, linkname="../../secret.jpg")
        add("44_0_0_2017.jpg", type=tarfile.CHRTYPE, devmajor=1, devminor=5)
        add("45_0_0_2017.jpg", type=tarfile.FIFOTYPE)


def _hostile_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as z:
        for name, age in GOOD.items():
            z.writestr(name, jpeg(age * 4))
        z.writestr("../../40_0_0_2017.jpg", jpeg(9))
        z.writestr("/tmp/41_0_0_2017.jpg", jpeg(9))
        for name, kind in (("42_0_0_2017.jpg", 0o120777), ("43_0_0_2017.jpg", 0o120777),
                           ("44_0_0_2017.jpg", 0o020666), ("45_0_0_2017.jpg", 0o010666)):
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, kind << 16
            z.writestr(info, "/etc/passwd")


def test_a_compression_that_python_does_not_know_is_an_error(tmp_path):
    path = tmp_path / "faces.zip"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("20_0_0_1.jpg", b"x")
    content = bytearray(path.read_bytes())
    for header, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = content.index(header) + offset
        content[at:at + 2] = (99).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged or incomplete .That compression method is not"):
        [file.read() for file in walk(path)]


@pytest.mark.parametrize("make, suffix", [(_hostile_tar, ".tar.gz"), (_hostile_zip, ".zip")])
def test_hostile_archive_touches_nothing(tmp_path, make, suffix):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    make(inner / f"faces{suffix}")
    before = {p for p in tmp_path.rglob("*")}
    d = load(inner / f"faces{suffix}", inner / "cache")
    assert d.ids.tolist() == sorted(GOOD)
    assert reasons(d) == {
        "40_0_0_2017.jpg": "path leads out of the archive",
        "41_0_0_2017.jpg": "path leads out of the archive",
        "42_0_0_2017.jpg": "link or device in the archive",
        "43_0_0_2017.jpg": "link or device in the archive",
        "44_0_0_2017.jpg": "link or device in the archive",
        "45_0_0_2017.jpg": "link or device in the archive",
    }
    written = {p for p in tmp_path.rglob("*")} - before
    assert all(inner / "cache" in (p, *p.parents) for p in written)
    assert not Path("/tmp/41_0_0_2017.jpg").exists()


def _cut_tar(folder: Path, mode: str, path: Path, keep) -> Path:
    with tarfile.open(path, mode) as t:
        for name in GOOD:
            t.add(folder / name, name)
    content = path.read_bytes()
    path.write_bytes(content[:keep(content)])
    return path


@pytest.mark.parametrize("mode, suffix, keep", [
    ("w:gz", ".tar.gz", lambda c: len(c) // 2),
    ("w:gz", ".tar.gz", lambda c: len(c) - 4),
    ("w", ".tar", lambda c: 1000),  # within the first image
    ("w", ".tar", lambda c: 512 + -(-len(jpeg(80)) // 512) * 512),  # between two members
])
def test_cut_off_archive_is_an_error(tmp_path, mode, suffix, keep):
    folder = write_good(tmp_path / "faces")
    path = _cut_tar(folder, mode, tmp_path / f"cut{suffix}", keep)
    with pytest.raises(InputError, match="damaged or incomplete.*download it again"):
        load(path, tmp_path / "cache")
    assert not [p for p in (tmp_path / "cache").iterdir() if p.suffix != ".lock"]


def test_what_is_no_archive_is_an_error(tmp_path):
    for suffix in (".zip", ".tar.gz"):
        path = tmp_path / f"page{suffix}"
        path.write_text("<html>quota exceeded</html>")
        with pytest.raises(InputError, match="damaged or incomplete"):
            load(path, tmp_path / "cache")


@pytest.mark.parametrize("prepare, message", [
    (lambda p: None, "does not exist"),
    (lambda p: p.mkdir(), "it is empty"),
    (lambda p: (p.mkdir(), (p / "cat.jpg").write_bytes(jpeg(9)), (p / "x.txt").write_text("")),
     r"no usable file of UTKFace.*it holds 'cat.jpg', 'x.txt'"),
    (lambda p: p.write_text("x"), "a file of another kind"),
    (lambda p: (p.mkdir(), (p / "20_0_0_2017.jpg").write_bytes(b"x")),
     rf"holds no usable image; left out: 1 {NO_IMAGE} \(such as '20_0_0_2017.jpg'\)"),
])
def test_wrong_paths_say_what_to_do(tmp_path, prepare, message):
    path = tmp_path / "faces"
    prepare(path)
    with pytest.raises(InputError, match=message):
        load(path, tmp_path / "cache")
    with pytest.raises(InputError, match="config.data.path is empty; give UTKFace's images"):
        load("", tmp_path / "cache")


@pytest.mark.skipif(not os.environ.get("UTKFACE"), reason="UTKFACE names no real data set")
def test_real_utkface(tmp_path):
    """The real set, where the environment variable UTKFACE names its folder or archive."""
    began = time.monotonic()
    d = load(os.environ["UTKFACE"], tmp_path / "cache", image_size=64)
    cold = time.monotonic() - began
    began = time.monotonic()
    again = load(os.environ["UTKFACE"], tmp_path / "cache", image_size=64)
    assert time.monotonic() - began < 1
    assert cold < 15
    assert again.fingerprint == d.fingerprint
    assert len(d.ids) > 20_000 and len(d.dropped) < 20
    assert set(np.unique(d.attributes["race"])) == {0, 1, 2, 3, 4}
