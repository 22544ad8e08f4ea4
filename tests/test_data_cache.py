"""The cache of decoded images: reuse, choices, damage, killed and concurrent builds."""

import multiprocessing
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_faces import GOOD, jpeg, load, reasons, write_good

from unlearn_jax.data import cache, files, quality, utkface
from unlearn_jax.errors import InputError


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


@pytest.mark.parametrize("replaced", [False, True])
def test_a_changed_pixel_is_seen_where_name_size_and_time_are_kept(tmp_path, replaced):
    folder = write_good(tmp_path / "faces")
    first = load(folder, tmp_path / "cache")
    path = folder / sorted(GOOD)[0]
    status, content = path.stat(), jpeg(120)
    content += b"\0" * (path.stat().st_size - len(content))
    if replaced:
        other = tmp_path / "other"
        other.write_bytes(content)
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        other.replace(path)
    else:
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    changed = load(folder, tmp_path / "cache")
    assert changed.fingerprint != first.fingerprint
    assert abs(changed.images[0, 8, 3, 0] - 120.0) < 3


def test_files_that_were_just_changed_are_waited_for(tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(files.time, "sleep", slept.append)
    (tmp_path / "a").write_bytes(b"x")
    files.signature(tmp_path)
    (seconds,) = slept
    assert 0 < seconds <= 0.02
    now = 1_800_000_000
    monkeypatch.setattr(files.time, "time", lambda: now + 0.5)
    for changed, wait in ((now, 1.5), (now - 2, 0), (now + 0.49, 0.01), (now + 0.47, 0),
                          (now + 99.5, 0.02), (now + 100, 2.0)):
        assert files._unsettled(round(changed * 1000) * 10**6) == pytest.approx(wait, abs=1e-6)


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


@pytest.mark.parametrize("rows", [[1], [77, 78], [119]])
def test_an_image_that_lost_its_pixels_is_an_error(tmp_path, rows):
    folder = tmp_path / "faces"
    folder.mkdir()
    for i in range(120):
        (folder / f"{20 + i // 4}_0_0_{i:03d}.jpg").write_bytes(jpeg(50 + i))
    load(folder, tmp_path / "cache")
    images = np.load(next((tmp_path / "cache").glob("*/images.npy")), mmap_mode="r+")
    images[rows] = 0
    images.flush()
    with pytest.raises(InputError, match=f"are damaged .{len(rows)} of 120 images"):
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
sys.path.insert(0, "tests")
from tiny_faces import load
load(sys.argv[1], sys.argv[2])
"""


def test_killed_build_leaves_nothing_that_looks_whole(tmp_path):
    folder = write_good(tmp_path / "faces")
    root = Path(__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", _KILLED, folder, tmp_path / "cache"],
                          stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout.readline() == b"decoding\n"
        process.kill()
    leftovers = list((tmp_path / "cache").glob(".tmp-*"))
    assert leftovers
    assert len(load(folder, tmp_path / "cache").ids) == 3
    assert not list((tmp_path / "cache").glob(".tmp-*"))


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
