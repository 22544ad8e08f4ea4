"""Two real processes against one, to the bit where members are divided; who writes; who refuses."""

import time
from pathlib import Path

import numpy as np
import pytest
import side_by_side
from toy import Memory, layout, members, train
from two_processes import results

from launch.distributed import free_port
from unlearn_jax.errors import ConfigError, InputError
from unlearn_jax.storage import checkpoints
from unlearn_jax.storage.store import read_marker
from unlearn_jax.system.processes import Place, joined, on_first_process, require_same

HERE = Path(__file__).parent


def run_both(script, *args):
    """Exit codes and what was said, of two processes."""
    address = f"localhost:{free_port()}"
    return side_by_side.run(*([str(script), str(i), address, *map(str, args)] for i in (0, 1)))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found, each, and their directory."""
    directory = tmp_path_factory.mktemp("two")
    codes, said = run_both(HERE / "two_processes.py", directory)
    assert codes == [0, 0], said[0][-3000:] + said[1][-3000:]
    found = []
    for i in (0, 1):
        with np.load(directory / f"process{i}.npz") as f:
            found.append(dict(f))
    return found, directory


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(two, tmp_path):
    (first, second), _ = two
    expected = results(tmp_path)
    assert expected.keys() == {k for k in first if not k.startswith("together/")}
    for name, x in expected.items():
        tolerance = 1e-5 if name.startswith("batch/") else 0  # gradients summed in another order
        np.testing.assert_allclose(first[name], x, rtol=tolerance, err_msg=name)
        np.testing.assert_array_equal(second[name], first[name], err_msg=name)
    # Otherwise nobody would have been moved.
    assert len(set(expected["stopping/8/images"] / [24, 17, 9, 20, 12, 8, 16])) > 1


@pytest.mark.slow
def test_one_process_goes_on_from_the_checkpoint_of_two(two):
    (found, _), directory = two
    left = sorted((directory / "progress").iterdir())
    assert [p.name for p in left] == ["00000001", "00000002"]
    where = layout(members=1, per_device=1)
    for saver in (Memory(directory / "progress", -1), None):
        mine = train(members(), where=where, saver=saver).snapshots[3].variables["params"]
        np.testing.assert_array_equal(mine["w"], found["resumed/3['params']['w']"])


@pytest.mark.slow
def test_the_first_process_decides_and_writes(two):
    (first, second), directory = two
    for found in (first, second):
        assert found["together/complete"].tolist() == [False, True]
        assert found["together/decided"] == 10 and found["together/lowest"] == 4
        np.testing.assert_array_equal(found["together/restored"], np.arange(8.0).reshape(4, 2))
        assert found["together/passed over"].tolist() == [1, 3]
        assert found["together/copies"] == 1  # of two
        assert found["together/few"].tolist() == [[0, 0]]  # one member on one device of each
    (stage,) = (p for p in (directory / "store" / "models").iterdir() if p.is_dir())
    assert (stage / "who").read_text() == "0" and read_marker(stage)["parts"] == {"x": 1}
    tree, metadata = checkpoints.restore(stage / "checkpoint")
    np.testing.assert_array_equal(tree["x"], np.arange(8.0).reshape(4, 2))
    assert metadata == {"epoch": 3}


@pytest.mark.slow
def test_mismatches_are_named(two):
    (first, _), _ = two
    data, three, one = first["together/refused"].tolist()
    assert "differ in the data, seed: process" in data and "size" not in data
    for text, count in ((three, 3), (one, 1)):
        assert f"config.parallel.members={count}" in text and "2 processes of 2 cpu" in text


FAILING = """
import sys
from pathlib import Path
from unlearn_jax.system import processes
from unlearn_jax.errors import InputError
with processes.joined(processes.Place(sys.argv[2], 2, int(sys.argv[1])), timeout=900):
    if sys.argv[1] == sys.argv[3]:
        raise InputError("the disk is full")
    processes.wait("somebody who never comes")
"""


@pytest.mark.slow
@pytest.mark.parametrize("fails", [0, 1])
def test_a_failure_ends_the_others_with_its_message(tmp_path, fails):
    (tmp_path / "failing.py").write_text(FAILING)
    began = time.monotonic()
    codes, said = run_both(tmp_path / "failing.py", fails)
    assert time.monotonic() - began < 120, "not only when JAX gives up waiting"
    assert codes == [1, 1]
    other = 1 - fails
    assert f"process {other} ends, as process {fails} ended: the disk is full" in said[other]
    assert "InputError: the disk is full" in said[fails]


@pytest.mark.parametrize("given, words", [
    (("node1", 2, 0), "'node1'; allowed: HOST:PORT"), (("node1:x", 2, 0), "HOST:PORT"),
    (("node1:80", 0, 0), "--processes is 0"),
    (("node1:80", 2, 2), "--process_id is 2.*from 0 to 1"),
])
def test_impossible_places_are_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        Place(*given)


ALL_LEAVE = """
import sys
from unlearn_jax.system import processes
from unlearn_jax.system.interrupt import leave
with processes.joined(processes.Place(sys.argv[2], 2, int(sys.argv[1])), timeout=900):
    processes.wait("both")
    leave()
"""


@pytest.mark.slow
def test_all_leave_together_with_the_same_exit_code(tmp_path):
    (tmp_path / "leave.py").write_text(ALL_LEAVE)
    began = time.monotonic()
    codes, said = run_both(tmp_path / "leave.py")
    assert codes == [75, 75], said
    assert time.monotonic() - began < 60


def test_one_process_needs_no_others():
    with joined(Place("nowhere:1", 1, 0)):
        assert on_first_process("a number", lambda: (3,)) == (3,)
        require_same("a number", (3,))
    with pytest.raises(InputError), joined(None):
        raise InputError("as it is")
