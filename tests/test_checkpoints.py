import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from unlearn_jax.storage import checkpoints, metadata
from unlearn_jax.storage.checkpoints import CheckpointError, describe, restore, save
from unlearn_jax.system import disk


def population(seed: int = 0) -> dict:
    """Three members; incompressible, as trained weights are."""
    rng = np.random.default_rng(seed)
    return {
        "params": {"stem": {"kernel": rng.normal(size=(3, 5, 5, 3, 8)).astype(np.float32),
                            "bias": rng.normal(size=(3, 8)).astype(np.float32)}},
        "batch_stats": {},
    }


def assert_same(a, b) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


# --- save and restore ---

def test_round_trip_without_like(tmp_path):
    tree = population()
    save(tmp_path / "new" / "c", tree, {"seeds": (0, 1, 2), "metric": {"mae": [1.5, np.nan]}})
    back, metadata = restore(tmp_path / "new" / "c")
    assert_same(back, tree)
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(back))
    assert metadata["seeds"] == [0, 1, 2]
    assert metadata["metric"]["mae"][0] == 1.5 and np.isnan(metadata["metric"]["mae"][1])
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["c"]


class Pair(NamedTuple):
    left: jax.Array
    right: tuple


def test_dtypes_and_containers(tmp_path):
    tree = {
        "bf16": jnp.arange(6, dtype=jnp.bfloat16).reshape(3, 2),
        "bool": np.array([True, False, True]),
        "int64": np.array([2 ** 40, -1]),
        "scalar": np.float32(1.25),
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "with.dot and space": jnp.ones(2, jnp.uint8),
        "pair": Pair(jnp.ones(2), (jnp.zeros((), jnp.int32), {"x": jnp.full(3, jnp.nan)})),
    }
    save(tmp_path / "c", tree, {})
    _, leaves = describe(tmp_path / "c")
    assert leaves["bf16"] == ((3, 2), jnp.bfloat16) and leaves["int64"] == ((2,), np.int64)
    assert leaves["pair/right/1/x"] == ((3,), np.float32)
    back, _ = restore(tmp_path / "c", like=tree)
    assert isinstance(back["pair"], Pair) and isinstance(back["pair"].right, tuple)
    assert_same(back, tree)
    without, _ = restore(tmp_path / "c")
    assert np.isnan(without["pair"]["right"]["1"]["x"]).all()


def test_training_continues_identically(tmp_path):
    optimizer = optax.adam(1e-2)
    x = jax.random.normal(jax.random.key(1), (3, 16, 4))

    @jax.jit
    def step(state):
        def loss(params):
            noise = jax.random.normal(jax.random.fold_in(jax.random.key(2), state["step"]), (1, 4))
            return jnp.sum((jnp.einsum("mnd,md->mn", x, params["w"]) - params["b"]) ** 2) \
                + jnp.sum(noise * params["w"])
        updates, opt = optimizer.update(jax.grad(loss)(state["params"]), state["opt"])
        return {"params": optax.apply_updates(state["params"], updates), "opt": opt,
                "step": state["step"] + 1}

    params = {"w": jnp.ones((3, 4)), "b": jnp.zeros((3, 1))}
    state = {"params": params, "opt": optimizer.init(params), "step": jnp.zeros((), jnp.int32)}
    for _ in range(3):
        state = step(state)
    save(tmp_path / "c", state, {"step": 3})
    like = jax.eval_shape(lambda: state)
    resumed, metadata = restore(tmp_path / "c", like, SingleDeviceSharding(jax.devices()[0]))
    assert metadata == {"step": 3}
    for _ in range(3):
        state, resumed = step(state), step(resumed)
    assert_same(state, resumed)


def test_restores_onto_a_sharding(tmp_path):
    count = min(len(jax.devices()), 3)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), ("member",))
    sharding = NamedSharding(mesh, PartitionSpec("member"))
    members = {"w": np.arange(6 * count, dtype=np.float32).reshape(count, 6)}
    placed = jax.device_put(members, sharding)
    save(tmp_path / "c", placed, {})
    back, _ = restore(tmp_path / "c", like=members, sharding=sharding)
    assert back["w"].sharding == sharding
    assert_same(back, members)
    back, _ = restore(tmp_path / "c", sharding={"w": sharding})
    assert back["w"].sharding == sharding


def test_placing_never_casts(tmp_path):
    save(tmp_path / "c", {"a": {"n": np.array([2 ** 40])}}, {})
    with pytest.raises(CheckpointError, match="a/n is int64, which jax would cast to int32"):
        restore(tmp_path / "c", sharding=SingleDeviceSharding(jax.devices()[0]))


def test_tree_without_leaves(tmp_path):
    save(tmp_path / "c", {"batch_stats": {}, "params": {}}, {"seeds": []})
    assert restore(tmp_path / "c")[0] == {"batch_stats": {}, "params": {}}


def test_describe_and_restore_leaves(tmp_path):
    tree = population()
    save(tmp_path / "c", tree, {"stage": "original"})
    # The arrays are not read: their files may even be gone.
    leaves = checkpoints.restore_leaves(tmp_path / "c", ["params/stem/bias"])
    assert list(leaves) == ["params/stem/bias"]
    np.testing.assert_array_equal(leaves["params/stem/bias"], tree["params"]["stem"]["bias"])
    with pytest.raises(CheckpointError, match="no leaf 'params/x'; it has params/stem/bias"):
        checkpoints.restore_leaves(tmp_path / "c", ["params/x"])
    shutil.rmtree(tmp_path / "c" / "arrays" / "state")
    metadata, specs = describe(tmp_path / "c")
    assert metadata == {"stage": "original"}
    assert specs == {"params/stem/bias": ((3, 8), np.float32),
                     "params/stem/kernel": ((3, 5, 5, 3, 8), np.float32)}


def test_big_endian_comes_back_native(tmp_path):
    tree = {"w": np.array([1.5, 2.5], ">f4")}
    save(tmp_path / "c", tree, {})
    back, _ = restore(tmp_path / "c", like=tree)
    assert back["w"].dtype == np.dtype("float32") and back["w"].tolist() == [1.5, 2.5]


# --- what does not match ---

def _like(**changes):
    tree = {"params": {"w": jax.ShapeDtypeStruct((3, 4), jnp.float32),
                       "b": jax.ShapeDtypeStruct((3,), jnp.float32)}}
    tree["params"] = {k: v for k, v in (tree["params"] | changes).items() if v is not None}
    return tree


@pytest.mark.parametrize("like,message", [
    (_like(w=jax.ShapeDtypeStruct((3, 4), jnp.bfloat16)),
     r"params/w is float32\[3, 4\]; expected bfloat16\[3, 4\]"),
    (_like(w=jax.ShapeDtypeStruct((4, 3), jnp.float32)), r"params/w .*expected float32\[4, 3\]"),
    (_like(b=jax.ShapeDtypeStruct((1, 3), jnp.float32)), r"params/b is float32\[3\]; .*\[1, 3\]"),
    (_like(new=jax.ShapeDtypeStruct((3,), jnp.float32)), "lacks params/new"),
    (_like(w=None), "also has params/w"),
    (_like(b=None, c=jax.ShapeDtypeStruct((3,), jnp.float32)), "lacks params/c"),
])
def test_like_must_match(tmp_path, like, message):
    save(tmp_path / "c", {"params": {"w": jnp.ones((3, 4)), "b": jnp.ones(3)}}, {})
    restore(tmp_path / "c", like=_like())
    with pytest.raises(CheckpointError, match=message):
        restore(tmp_path / "c", like=like)


@pytest.mark.parametrize("make,message", [
    (lambda: {"k": jax.random.key(0)}, "k is a typed random key; store jax.random.key_data"),
    (lambda: {"a": {"n": 3}}, "a/n is a int; allowed: arrays"),
    (lambda: {"s": np.array("x")}, "s has dtype <U1"),
    (lambda: {"a": x} if (x := jnp.ones(3)).delete() is None else {}, "a was donated or deleted"),
    (lambda: {"a": np.zeros((0, 3))}, r"a has shape \(0, 3\)"),
    (lambda: {"a/b": np.ones(1)}, "a/b.* holds '/'"),
    (lambda: {"": np.ones(1)}, "key that is empty"),
    (lambda: {"a.b": np.ones(1), "a": {"b": np.ones(1)}}, "would share a file"),
    (lambda: np.ones(3), "holds a tree; this is a ndarray"),
])
def test_what_cannot_be_stored(tmp_path, make, message):
    with pytest.raises(CheckpointError, match=message):
        save(tmp_path / "c", make(), {})
    assert not list(tmp_path.iterdir())


def test_existing_checkpoint_is_kept_unless_told(tmp_path):
    save(tmp_path / "c", population(0), {"n": 0})
    with pytest.raises(CheckpointError, match="exists; choose another path"):
        save(tmp_path / "c", population(1), {"n": 1})
    assert restore(tmp_path / "c")[1] == {"n": 0}
    save(tmp_path / "c", population(1), {"n": 1}, overwrite=True)
    assert_same(restore(tmp_path / "c")[0], population(1))
    (tmp_path / "empty").mkdir()
    save(tmp_path / "empty", population(), {})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(CheckpointError, match="not a checkpoint; it is not overwritten"):
        save(tmp_path / "mine", population(), {}, overwrite=True)
    assert {p.name for p in tmp_path.iterdir()} == {"c", "empty", "mine"}
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"


def test_failed_overwrite_keeps_the_old(tmp_path, monkeypatch):
    save(tmp_path / "c", population(0), {"n": 0})

    def broken(*args, **kwargs):
        raise ValueError("broken")

    monkeypatch.setattr(ocp, "save", broken)
    with pytest.raises(ValueError, match="broken"):
        save(tmp_path / "c", population(1), {"n": 1}, overwrite=True)
    assert_same(restore(tmp_path / "c")[0], population(0))
    assert {p.name for p in tmp_path.iterdir()} == {"c"}


# --- damage ---

def test_flipped_bit_in_the_data_names_the_leaf(tmp_path):
    # Random bytes: Zstandard keeps them as they are, so that the flip is in an array's value.
    rng = np.random.default_rng(0)
    kernel = rng.integers(0, 2 ** 32, (3, 1000), np.uint32)
    save(tmp_path / "c", {"stem": {"kernel": kernel, "bias": np.ones(3)}}, {})
    data = max((tmp_path / "c").rglob("*"), key=lambda p: p.stat().st_size)
    content = bytearray(data.read_bytes())
    content[content.index(kernel.tobytes()[2000:2016])] ^= 1
    data.write_bytes(content)
    # Orbax alone sees nothing.
    back, _ = restore(tmp_path / "c", verify=False)
    assert np.argwhere(back["stem"]["kernel"] != kernel).tolist() == [[0, 500]]
    with pytest.raises(CheckpointError, match="leaf stem/kernel does not match its digest"):
        restore(tmp_path / "c")
    # The other leaf is still good.
    checkpoints.restore_leaves(tmp_path / "c", ["stem/bias"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_flip_anywhere_is_harmless_or_an_error(tmp_path):
    tree = {"params": {"w": np.zeros((3, 50), np.float32), "b": population()["params"]["stem"]}}
    save(tmp_path / "c", tree, {"seeds": [0, 1, 2]})
    errors = 0
    for file in [p for p in (tmp_path / "c").rglob("*") if p.stat().st_size and p.is_file()]:
        good = file.read_bytes()
        for place in np.linspace(0, len(good) - 1, 4).astype(int):
            bad = bytearray(good)
            bad[place] ^= 1 << (place % 7)
            file.write_bytes(bad)
            try:
                back, metadata = restore(tmp_path / "c", like=tree)
            except CheckpointError as e:
                errors += 1
                assert str(tmp_path / "c") in str(e) and "\n" not in str(e)
            else:
                assert_same(back, tree)
                assert metadata == {"seeds": [0, 1, 2]}
        file.write_bytes(good)
    assert errors > 10
    assert_same(restore(tmp_path / "c")[0], tree)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_truncated_or_missing_data(tmp_path, damage):
    save(tmp_path / "c", population(), {})
    data = max((tmp_path / "c").rglob("*"), key=lambda p: p.stat().st_size)
    if damage == "truncate":
        os.truncate(data, data.stat().st_size // 2)
    else:
        data.unlink()
    with pytest.raises(CheckpointError, match="the leaf params/stem/.* cannot be read"):
        restore(tmp_path / "c")


def test_not_a_checkpoint(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    save(tmp_path / "no-arrays", population(), {})
    shutil.rmtree(tmp_path / "no-arrays" / "arrays")
    save(tmp_path / "no-metadata", population(), {})
    (tmp_path / "no-metadata" / "metadata.json").unlink()
    for name, message in [("missing", "does not exist"), ("file", "not a directory"),
                          ("empty", "directory is empty"), ("no-arrays", "needs metadata.json"),
                          ("no-metadata", "needs metadata.json")]:
        for read in (restore, describe):
            with pytest.raises(CheckpointError, match=f"{name} is not a .*checkpoint.*{message}"):
                read(tmp_path / name)


# --- progress ---

@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_progress_keeps_two_and_latest_skips_broken(tmp_path, caplog):
    assert checkpoints.restore_latest(tmp_path / "missing") is None
    for step in (5, 20, 100, 3000):
        path = checkpoints.save_progress(tmp_path, step, population(step), {"step": step})
    assert {p.name for p in tmp_path.iterdir()} == {"00000100", "00003000"}
    assert checkpoints.restore_latest(tmp_path)[1] == {"step": 3000}
    # A copy that was interrupted, and an empty directory, which Orbax would take.
    data = max(path.rglob("*"), key=lambda p: p.stat().st_size)
    os.truncate(data, 10)
    (tmp_path / "00009999").mkdir()
    assert checkpoints.restore_latest(tmp_path)[1] == {"step": 100}
    assert "00003000" in caplog.text and "00009999" in caplog.text
    # The run goes on from there, and the broken ones go.
    checkpoints.save_progress(tmp_path, 200, population(200), {"step": 200})
    assert {p.name for p in tmp_path.iterdir()} == {"00000100", "00000200"}
    shutil.rmtree(tmp_path / "00000100")
    shutil.rmtree(tmp_path / "00000200")
    assert checkpoints.restore_latest(tmp_path) is None


def test_the_latest_of_use(tmp_path):
    def with_even_step(metadata):
        if metadata["step"] % 2:
            raise CheckpointError("odd")

    for step in (4, 5):
        checkpoints.save_progress(tmp_path, step, population(step), {"step": step})
    assert checkpoints.restore_latest(tmp_path, with_even_step)[1] == {"step": 4}


def test_restore_latest_passes_over_what_its_owner_removes_meanwhile(tmp_path, monkeypatch):
    for step in (1, 2):
        checkpoints.save_progress(tmp_path, step, {"x": np.arange(3)}, {"step": step})
    looks = metadata.is_checkpoint

    def remove_the_newest(path):
        found = looks(path)
        if Path(path).name == "00000002":
            shutil.rmtree(path)
        return found

    monkeypatch.setattr(metadata, "is_checkpoint", remove_the_newest)
    assert checkpoints.restore_latest(tmp_path)[1] == {"step": 1}


CHILD = """
import sys, time
import numpy as np
from orbax.checkpoint import v1 as ocp
from unlearn_jax.storage import checkpoints, metadata
from unlearn_jax.system import disk
directory, where = sys.argv[1:]
def hang(*args, **kwargs):
    print("hanging", flush=True)
    time.sleep(60)
def half(path, tree):
    save(path, tree)
    for file in [p for p in path.rglob("*") if p.is_file()][::2]:
        file.unlink()
    hang()
save = ocp.save
for step in range(100000):
    if step == 3 and where == "before the rename":
        disk.move_into_place = hang
    if step == 3 and where == "within Orbax":
        ocp.save = half
    tree = {"w": np.full((3, 200, 200), step, np.float32)}
    checkpoints.save_progress(directory, step, tree, {"step": step})
    if step == 3:
        print("running", flush=True)
"""


@pytest.mark.parametrize("where", ["before the rename", "within Orbax", "anywhere"])
def test_kill_during_a_save_leaves_the_previous_usable(tmp_path, where):
    with subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), where],
                          stdout=subprocess.PIPE, text=True,
                          env=os.environ | {"JAX_PLATFORMS": "cpu"},
                          cwd=Path(__file__).parents[1]) as child:
        word = child.stdout.readline()
        assert word == ("running\n" if where == "anywhere" else "hanging\n")
        if where == "anywhere":
            time.sleep(0.3)
        child.send_signal(signal.SIGKILL)
    tree, metadata = checkpoints.restore_latest(tmp_path)
    assert metadata["step"] == 2 or where == "anywhere"
    assert (tree["w"] == metadata["step"]).all()
    # The next save removes what the killed one left, but for a directory so young that it has no
    # lock yet by which to tell that its owner is dead.
    checkpoints.save_progress(tmp_path, metadata["step"] + 1, tree, {})
    left = [p for p in tmp_path.iterdir() if not p.name.isdecimal()]
    assert not [p for p in left if {q.name for q in p.iterdir()} - {".lock.new"}]


# --- a full disk ---

@pytest.fixture
def tiny_disk(tmp_path):
    """A real file system of 1 MB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("cannot mount a file system here")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("known", [True, False])
def test_full_disk(tiny_disk, monkeypatch, caplog, known):
    save(tiny_disk / "old", population(), {})
    if not known:  # the room is taken while Orbax writes
        monkeypatch.setattr(disk, "require_space", lambda path, size: None)
    large = {"w": np.random.default_rng(0).normal(size=(3, 100_000))}
    with pytest.raises(disk.DiskFullError) as e:
        save(tiny_disk / "new", large, {})
    assert "2.4 MB needed" in str(e.value) if known else "written so far" in str(e.value)
    assert str(e.value).count("\n") == 1
    # No traceback of Orbax' threads beside the message.
    assert "orbax" not in caplog.text
    assert {p.name for p in tiny_disk.iterdir()} == {"old"}
    assert_same(restore(tiny_disk / "old")[0], population())


def test_two_that_train_the_same_without_locks_do_not_end_each_other(tmp_path, monkeypatch):
    real, others = disk.move_into_place, []

    def move(temp, path, replace=False):
        if not others:  # the other one is a moment faster
            others.append(path)
            checkpoints.save_progress(tmp_path, 3, {"x": np.arange(3)}, {"by": "other"})
        real(temp, path, replace)

    checkpoints.save_progress(tmp_path, 1, {"x": np.arange(3)}, {})
    monkeypatch.setattr(disk, "move_into_place", move)
    path = checkpoints.save_progress(tmp_path, 3, {"x": np.arange(3)}, {"by": "this"})
    assert others == [path]
    assert checkpoints.restore(path)[1] == {"by": "other"}
    with pytest.raises(CheckpointError, match="was written by another process meanwhile"):
        others.clear()
        shutil.rmtree(path)
        checkpoints.save(path, {"x": np.arange(3)}, {})
