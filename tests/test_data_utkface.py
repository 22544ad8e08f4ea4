"""UTKFace from folders and archives, good and hostile, and its TFDS builder."""

import io
import multiprocessing
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unlearn_jax import data
from unlearn_jax.config import default_config
from unlearn_jax.data import cache, quality, utkface
from unlearn_jax.data.utkface import Label, parse_name
from unlearn_jax.errors import InputError

GOOD = {
    "20_0_0_20170101000000000.jpg.chip.jpg": 20,
    "35_1_2_20170101000000001.jpg.chip.jpg": 35,
    "60_0_4_20170101000000002.jpg": 60,
}


def jpeg(level: int, size: int = 40) -> bytes:
    """An encoded image whose left half is `level` and whose right half is black."""
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[:, :size // 2] = level
    f = io.BytesIO()
    Image.fromarray(pixels).save(f, "JPEG", quality=95)
    return f.getvalue()


def write_good(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, age in GOOD.items():
        (folder / name).write_bytes(jpeg(age * 4))
    return folder


def settings(path, **changes):
    c = default_config().data
    with c.unlocked():
        c.update(source="utkface", path=str(path), image_size=16, label_min=0, label_max=116)
        c.update(changes)
    return c


def load(path, cache_dir, **changes):
    return data.load(settings(path, **changes), cache_dir)


def reasons(dataset) -> dict[str, str]:
    return {d.id: d.reason for d in dataset.dropped}


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
    ("20_1_0_2017.png", None),
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
    assert (d.task, d.label_unit, d.num_classes, d.dropped) == ("regression", "years", 0, ())
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
        "33_0_0_2017.jpg": "undecodable",
        "34_0_0_2017.jpg": "undecodable",
        "36_0_0_2017.jpg": "unreadable file: No such file or directory",
    }
    assert {x.step for x in d.dropped} == {"read"}


def test_archives_equal_the_folder(tmp_path):
    folder = write_good(tmp_path / "faces")
    expected = load(folder, tmp_path / "cache")
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
    d = load(tmp_path / "faces", tmp_path / "cache")
    assert d.ids.tolist() == sorted(GOOD)
    assert reasons(d) == {f"crop_part1/{name}": "repeated: another folder has a file of this name"
                          for name in GOOD}


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
     r"holds no usable image; 1 were left out, such as '20_0_0_2017.jpg' \(undecodable\)"),
])
def test_wrong_paths_say_what_to_do(tmp_path, prepare, message):
    path = tmp_path / "faces"
    prepare(path)
    with pytest.raises(InputError, match=message):
        load(path, tmp_path / "cache")
    with pytest.raises(InputError, match="config.data.path is empty; give UTKFace's images"):
        load("", tmp_path / "cache")


def test_cached_reload_is_equal_and_decodes_nothing(tmp_path, monkeypatch):
    folder = write_good(tmp_path / "faces")
    (folder / "33_0_0_2017.jpg").write_bytes(b"no image at all")
    first = load(folder, tmp_path / "cache")

    def refuse(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(cache, "decode_image", refuse)
    monkeypatch.setattr(cache, "check_image", refuse)
    monkeypatch.setattr(utkface, "walk", refuse)
    again = load(folder, tmp_path / "cache")
    np.testing.assert_array_equal(again.images, first.images)
    np.testing.assert_array_equal(again.labels, first.labels)
    assert again.ids.tolist() == first.ids.tolist()
    assert again.dropped == first.dropped and len(again.dropped) == 1
    assert again.fingerprint == first.fingerprint and again.histograms == first.histograms


def test_only_the_chosen_images_are_decoded(tmp_path, monkeypatch):
    folder = tmp_path / "faces"
    folder.mkdir()
    for i in range(40):
        (folder / f"{20 + i // 10}_0_0_{i:02d}.jpg").write_bytes(jpeg(50 + i))
    decode, calls = cache.decode_image, []
    monkeypatch.setattr(cache, "decode_image", lambda *a: calls.append(1) or decode(*a))
    d = load(folder, tmp_path / "cache", fraction=0.5, label_max=22)
    assert len(calls) == len(d.ids) == 15
    assert len(np.load(next((tmp_path / "cache").glob("utkface-16-*/images.npy")))) == 15
    levels = np.array([int(i.split("_")[3][:2]) for i in d.ids]) + 50
    assert np.abs(d.images[:, :, :6].mean((1, 2, 3)) - levels).max() < 3
    # another choice decodes its own; the first one is still there
    load(folder, tmp_path / "cache", fraction=0.5, label_max=22, seed=1)
    assert len(calls) == 30
    load(folder, tmp_path / "cache", fraction=0.5, label_max=22)
    assert len(calls) == 30


@pytest.mark.parametrize("suffix", ["", ".tar"])
def test_quality_filter_is_kept_with_the_pixels(tmp_path, monkeypatch, suffix):
    folder = write_good(tmp_path / "faces")
    with tarfile.open(tmp_path / "faces.tar", "w") as t:
        for name in reversed(sorted(GOOD)):
            t.add(folder / name, name)
    path, calls = tmp_path / f"faces{suffix}", []

    def bright(images, settings):
        calls.append(len(images))
        return ["bright: x" if image.max() > 200 else "" for image in images]

    monkeypatch.setattr(quality, "quality_reasons", bright)
    first = load(path, tmp_path / "cache", quality="on")
    again = load(path, tmp_path / "cache", quality="on")
    assert sum(calls) == 3
    for d in (first, again):
        assert d.labels.tolist() == [20, 35]
        assert np.abs(d.images[:, :, :6].mean((1, 2, 3)) - [80, 140]).max() < 4
        assert reasons(d) == {sorted(GOOD)[2]: "bright: x"} and d.dropped[0].step == "quality"
        assert d.fingerprint == first.fingerprint
    # other bounds are another choice; with all refused nothing is left
    load(path, tmp_path / "cache", quality="on", quality_contrast=13.0)
    assert sum(calls) == 6
    monkeypatch.setattr(quality, "quality_reasons", lambda images, _: ["dark: x"] * len(images))
    with pytest.raises(InputError, match="config.data.quality='on' leaves no sample"):
        load(path, tmp_path / "cache", quality="on", quality_contrast=14.0)


def test_images_that_change_meanwhile_are_an_error(tmp_path, monkeypatch):
    folder = write_good(tmp_path / "faces")
    make = cache._build_pixels

    def vanish(*args):
        (folder / sorted(GOOD)[0]).unlink()
        make(*args)

    monkeypatch.setattr(cache, "_build_pixels", vanish)
    with pytest.raises(InputError, match="changed while they were read; run again"):
        load(folder, tmp_path / "cache")


def test_changed_files_and_sizes_are_decoded_anew(tmp_path):
    folder = write_good(tmp_path / "faces")
    first = load(folder, tmp_path / "cache")
    assert load(folder, tmp_path / "cache", image_size=8).images.shape == (3, 8, 8, 3)
    name = sorted(GOOD)[0]
    (folder / name).write_bytes(jpeg(250))
    changed = load(folder, tmp_path / "cache")
    assert changed.images[0, 8, 3, 0] > 240 > first.images[0, 8, 3, 0]
    assert changed.fingerprint != first.fingerprint
    (folder / name).unlink()
    assert len(load(folder, tmp_path / "cache").ids) == 2


@pytest.mark.parametrize("damage", [
    lambda f: f.write_bytes(f.read_bytes()[:-100]),
    lambda f: f.write_bytes(bytes(f.stat().st_size)),
    lambda f: f.write_bytes(f.read_bytes()[:128] + bytes(f.stat().st_size - 128)),
    lambda f: f.unlink(),
])
def test_damaged_cache_is_an_error(tmp_path, damage):
    folder = write_good(tmp_path / "faces")
    load(folder, tmp_path / "cache")
    damage(next((tmp_path / "cache").glob("*/images.npy")))
    with pytest.raises(InputError, match="are damaged .*; delete that folder"):
        load(folder, tmp_path / "cache")


_KILLED = """
import sys, time
from unlearn_jax.data import cache
real = cache.decode_image
def slow(*args):
    print("decoding", flush=True)
    time.sleep(60)
    return real(*args)
cache.decode_image = slow
from tests.test_data_utkface import load
load(sys.argv[1], sys.argv[2])
"""


def test_killed_build_leaves_nothing_that_looks_whole(tmp_path):
    folder = write_good(tmp_path / "faces")
    root = Path(__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", _KILLED, folder, tmp_path / "cache"],
                          stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout.readline() == b"decoding\n"
        process.kill()
    leftovers = list((tmp_path / "cache").glob("*.part-*"))
    assert leftovers
    assert len(load(folder, tmp_path / "cache").ids) == 3
    assert not list((tmp_path / "cache").glob("*.part-*"))


def _load_in_process(folder, cache_dir, log):
    real = cache.decode_image

    def logged(*args):
        with open(log, "a") as f:
            f.write("x")
        time.sleep(0.1)
        return real(*args)

    cache.decode_image = logged
    return load(folder, cache_dir).fingerprint


def test_processes_at_once_decode_once(tmp_path):
    folder = write_good(tmp_path / "faces")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        prints = pool.starmap(_load_in_process,
                              [(folder, tmp_path / "cache", tmp_path / "log")] * 2, chunksize=1)
    assert prints[0] == prints[1]
    assert len((tmp_path / "log").read_text()) == 3


def test_builder_works_without_tensorflow(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    from unlearn_jax.data.utkface_builder import UTKFace

    folder = write_good(tmp_path / "faces")
    (folder / "33_0_0_2017.jpg").write_bytes(jpeg(9)[:-200])
    (folder / "39_1_20170116174525125.jpg.chip.jpg").write_bytes(jpeg(9))

    def build():
        builder = UTKFace(data_dir=tmp_path / "tfds", file_format="array_record")
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=folder))
        return builder

    for builder in (build(), build()):  # the second one is read from disk
        source = builder.as_data_source("train")
        assert len(source) == 3
        records = {r["file_name"].decode(): r for r in source}
        assert {name: r["age"] for name, r in records.items()} == GOOD
        one = records["35_1_2_20170101000000001.jpg.chip.jpg"]
        assert (one["gender"], one["race"]) == (1, 2)
        assert one["image"].shape == (40, 40, 3) and abs(int(one["image"][5, 5, 0]) - 140) < 4
        assert builder.info.metadata["dropped"] == [
            ["33_0_0_2017.jpg", "truncated"],
            ["39_1_20170116174525125.jpg.chip.jpg",
             "malformed name: not [age]_[gender]_[race]_[date&time].jpg"]]
    assert "tensorflow" not in sys.modules


def test_builder_on_a_wrong_folder(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    from unlearn_jax.data.utkface_builder import UTKFace

    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "cat.jpg").write_bytes(jpeg(9))
    builder = UTKFace(data_dir=tmp_path / "tfds", file_format="array_record")
    with pytest.raises(InputError, match="no usable file of UTKFace"):
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / "faces"))


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
