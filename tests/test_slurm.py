import pytest

from unlearn_jax.errors import ConfigError
from unlearn_jax.system.processes import Place
from unlearn_jax.system.slurm import find_place, first_host, tasks_of_node

# The second of two nodes with two tasks each; this is its second task.
STEP = {"SLURM_JOB_ID": "1000", "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
        "SLURM_STEP_NODELIST": "gpu[03-04]", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}


def test_flags_say_it_all():
    assert find_place("node1:80", 2, 1, {}) == Place("node1:80", 2, 1)
    assert find_place("node1:80", 2, 1, STEP) == Place("node1:80", 2, 1)


def test_several_tasks_of_a_step_are_one_program():
    port = 61440 + (1000 + 2 * 257) % 4096
    assert find_place("", 0, -1, STEP) == Place(f"gpu03:{port}", 4, 3)
    assert find_place("slurm", 0, -1, STEP) == Place(f"gpu03:{port}", 4, 3)


@pytest.mark.parametrize("env", [
    {}, {**STEP, "SLURM_STEP_NUM_TASKS": "1"},
    # A script of a job with four tasks that calls Python without srun.
    {"SLURM_JOB_ID": "1000", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},
])
def test_a_single_task_stays_alone(env):
    assert find_place("", 0, -1, env) is None


def test_slurm_can_be_ignored():
    assert find_place("none", 0, -1, STEP) is None


@pytest.mark.parametrize("given, env, words", [
    (("slurm", 0, -1), {}, "SLURM has not set SLURM_STEP_NUM_TASKS"),
    (("", 0, -1), {**STEP, "SLURM_PROCID": "x"}, "SLURM_PROCID to 'x'"),
    (("", 2, 0), {}, "need --coordinator="),
    (("none", 2, -1), {}, "need --coordinator="),
    (("node1:80", 0, 0), {}, "needs --processes"),
    (("node1:80", 2, -1), {}, "--process_id \\(it is -1\\)"),
])
def test_contradictions_are_refused(given, env, words):
    with pytest.raises(ConfigError, match=words):
        find_place(*given, env)


@pytest.mark.parametrize("nodes, first", [
    ("n1", "n1"), ("n1,n2", "n1"), ("node[003-007,9]", "node003"), ("node[5,7],x", "node5"),
    ("r[1-2]n[3-4]", "r1n3"), ("gpu-a[1-2]-ib,b", "gpu-a1-ib"),
])
def test_the_first_host(nodes, first):
    assert first_host(nodes) == first


def test_tasks_of_a_node():
    assert [tasks_of_node("2(x3),1", n) for n in range(4)] == [2, 2, 2, 1]


@pytest.mark.parametrize("more, gpus", [
    ({}, None),
    ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_GPUS_ON_NODE": "4"}, (2, 3)),
    # Bound by SLURM: each task sees its own alone.
    ({"CUDA_VISIBLE_DEVICES": "0", "SLURM_GPUS_ON_NODE": "2"}, None),
    ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_PER_TASK": "2"}, None),
    ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_PER_TASK": "a100:2"}, None),
    # Given to the tasks, and not bound: each sees those of all.
    ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_GPUS_ON_NODE": "4", "SLURM_GPUS_PER_TASK": "2"},
     (2, 3)),
    ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_GPUS_ON_NODE": "4",
      "SLURM_GPUS_PER_TASK": "gpu:a100:1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}, (1,)),
    # One task on the node has them all.
    ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_STEP_TASKS_PER_NODE": "1(x4)"}, None),
])
def test_tasks_share_the_gpus_of_their_node(more, gpus):
    assert find_place("", 0, -1, {**STEP, **more}).gpus == gpus


def test_gpus_that_cannot_be_shared_are_refused():
    with pytest.raises(ConfigError, match="2 tasks on a node share 3 GPUs"):
        find_place("", 0, -1, {**STEP, "CUDA_VISIBLE_DEVICES": "0,1,2", "SLURM_GPUS_ON_NODE": "3"})
