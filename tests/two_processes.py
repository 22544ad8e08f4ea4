"""Computations in one process and in several, to be compared.

    python two_processes.py INDEX COORDINATOR DIRECTORY    one of two processes, two devices each
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from toy import MODEL, Memory, layout, members, recipe, resident, settings, streamed, train

from unlearn_jax.config import default_config
from unlearn_jax.engine.layout import make_layout
from unlearn_jax.engine.predict import make_predictor, predict
from unlearn_jax.engine.preparation import Preparation
from unlearn_jax.engine.recipe import init_members
from unlearn_jax.errors import InputError
from unlearn_jax.optim import make_optimizer
from unlearn_jax.storage import checkpoints
from unlearn_jax.storage.store import Store, stage_key
from unlearn_jax.system import arrays, processes
from unlearn_jax.train import make_loss, make_train_step

ROWS = [np.arange(*span, dtype=np.int32) for span in ((0, 7), (30, 40), (0, 1))]


def results(directory: Path) -> dict[str, np.ndarray]:
    """All results, by name; writes checkpoints and stages into the directory."""
    found = {}
    # Seven members in calls of four; some stop early, so that the rest moves together.
    many = members((24, 17, 9, 20, 12, 8, 16))
    stopping = recipe(epochs=8, patience=1, optimizer_settings=settings(learning_rate=1.0))
    _note(found, "stopping", train(many, stopping, layout(members=2, count=7, per_device=1)))
    # One member's batch over the devices of both processes, with images from the host.
    _note(found, "batch", train(members((24, 17)), where=layout(members=1, batch=4, per_device=2),
                                data=streamed()))
    chunks = layout(members=4, steps=2, per_device=1)
    _note(found, "chunks", train(members(), recipe(keep="last", snapshots=(1, 3)), chunks,
                                 data=streamed()))
    found |= _resumed(directory)
    where = layout(members=2, per_device=2)
    start = init_members(MODEL, where, [0, 1, 2])
    for m, outputs in enumerate(predict(make_predictor(MODEL, where), start, resident(), ROWS,
                                        4)):
        found[f"predictions/{m}"] = outputs
    return found | _prepared(where, start)


def _note(found, name, trained):
    for epochs, snapshot in trained.snapshots.items():
        for leaf, x in jax.tree_util.tree_leaves_with_path(snapshot.variables):
            found[f"{name}/{epochs}{jax.tree_util.keystr(leaf)}"] = np.asarray(x)
        found[f"{name}/{epochs}/loss"] = snapshot.validation_loss
        found[f"{name}/{epochs}/images"] = snapshot.images


def _resumed(directory: Path) -> dict[str, np.ndarray]:
    """A run that stops after an epoch, and continues."""
    found = {}
    where = layout(members=4, per_device=1)
    for last in (1, -1):
        try:
            _note(found, "resumed", train(members(), where=where,
                                          saver=Memory(directory / "progress", last)))
        except KeyboardInterrupt:
            assert last == 1
    return found


def _prepared(where, start) -> dict[str, np.ndarray]:
    """All that a method may do before its first step."""
    before = Preparation("toy", MODEL, where, resident(), members(), start,
                         make_loss("mse", 10.0), 4)
    sums = before.total("retain", lambda batch, v: jax.tree.map(
        lambda x: x * jnp.sum(batch.labels * batch.weights), v), start)
    drawn = before.each(lambda key, v: v["params"]["b"] + jax.random.normal(key, (2,)),
                        before.keys("noise"), start)
    optimizer = make_optimizer(settings())
    step = make_train_step(MODEL, optimizer, before.loss)
    taught = before.train("teacher", step, settings(), before.initial("fresh"), "retain", 2)
    return {"total": sums["params"]["w"], "each": drawn, "taught": taught["params"]["w"],
            "flops": before.flops, "images": before.images}


def _together(directory: Path) -> dict[str, np.ndarray]:
    """Checks for several processes: the process that decides, the one that writes, and refusals."""
    index = jax.process_index()
    store = Store(directory / "store")
    store.create()
    parts = {"x": 1}
    key = stage_key("models", parts)
    before = store.complete("models", key)
    with store.lock("models", key), store.write("models", key, parts) as place:
        (place / "who").write_text(str(index))
        divided = layout(members=4).shard_members(np.arange(8.0, dtype=np.float32).reshape(4, 2))
        checkpoints.save(place / "checkpoint", {"x": divided}, {"epoch": 3})
    read, _ = checkpoints.restore(store.path("models", key) / "checkpoint",
                                  sharding=layout(members=4).of_batches)
    refused = []
    for ask in (lambda: processes.require_same("the data", {"seed": index, "size": 3}),
                lambda: make_layout(_parallel(members=3), 3),
                lambda: make_layout(_parallel(members=1), 1)):
        try:
            ask()
        except InputError as e:
            refused.append(str(e))
    return {"passed over": _after_damage(directory / "damaged"),
            "complete": np.array([before, store.complete("models", key)]),
            "copies": _copies(),
            "restored": arrays.fetch(read["x"]),
            "decided": np.array(processes.on_first_process("a number", lambda: 10 + index)),
            "lowest": np.array(processes.lowest("a number", 5.0 - index)),
            "refused": np.array(refused),
            "few": np.array(make_layout(_parallel(), 1).groups(1))}


def _copies() -> np.ndarray:
    """The number of devices that get a new copy of an array which is already on one device."""
    lies = jax.device_put(np.arange(1000.0, dtype=np.float32), jax.local_devices()[0])
    shared = layout(members=4).replicate(lies)
    np.testing.assert_array_equal(arrays.fetch(shared), np.arange(1000))
    places = [s.data.unsafe_buffer_pointer() for s in shared.addressable_shards]
    return np.array(sum(place != lies.unsafe_buffer_pointer() for place in places))


def _after_damage(directory: Path) -> np.ndarray:
    """Steps of the restored checkpoints: first with the newest damaged, then with a newer one."""
    def save(step: int) -> None:
        checkpoints.save_progress(directory, step, {"x": np.full(1000, step, np.int32)},
                                  {"step": step})

    def damage() -> None:
        for file in (directory / "00000002").glob("arrays/**/d/*"):
            file.write_bytes(bytes(file.stat().st_size))

    for step in (1, 2):
        save(step)
    processes.on_first_process("damage", damage)
    first = checkpoints.restore_latest(directory)
    save(3)
    return np.array([found[1]["step"] for found in (first, checkpoints.restore_latest(directory))])


def _parallel(**changes):
    cfg = default_config().parallel
    with cfg.unlocked():
        cfg.update(changes)
    return cfg


def main(index: int, coordinator: str, directory: Path) -> None:
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    with processes.joined(processes.Place(coordinator, 2, index), timeout=900):
        found = results(directory)
        found |= {f"together/{name}": x for name, x in _together(directory).items()}
        np.savez(directory / f"process{index}.npz", **found)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
