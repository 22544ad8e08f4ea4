import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unlearn_jax.config import default_config
from unlearn_jax.errors import InputError
from unlearn_jax.stages import workdir
from unlearn_jax.storage import manifest
from unlearn_jax.system import disk


def claim(directory, **changes):
    c = default_config()
    with c.unlocked():
        c.train.update(changes)
    return workdir.claim(directory, c, "ft", "python -m unlearn_jax.main")


def record(directory):
    return json.loads((directory / "run.json").read_text())


def test_run_json_grows_with_the_stages(tmp_path):
    directory = tmp_path / "a" / "b"
    with claim(directory) as run:
        assert record(directory)["finished"] is False
        run.record_stage("data", "", "fingerprint", "computed", 2.0, 100)
        assert record(directory)["data_fingerprint"] == "fingerprint"
        run.record_stage("ft", "20-28", "key", "reused", 0.0, 100, 3, 2)
        run.record_start("ft", 1.23456, 4.00001)
        run.record_start("ft", 1.0, 9.0)
        run.record_start("rnd", 0.0, None)
    final = record(directory)
    assert final["finished"] is True
    assert [s["status"] for s in final["stages"]] == ["computed", "reused"]
    assert final["stages"][0]["images_per_s"] == 50 and final["stages"][1]["images_per_s"] is None
    assert final["config"]["train"]["epochs"] == default_config().train.epochs
    assert final["compile_seconds"] == {"ft": 2.235, "rnd": 0.0}
    assert final["first_step_seconds"] == {"ft": 4.0}
    assert "jax" in final["versions"] and "4 x cpu" in final["device"]


def test_a_run_from_before_a_key_existed_may_come_back_with_its_default(tmp_path):
    with claim(tmp_path) as run:
        run.record_stage("original", "", "key", "computed", 2.0, 100)
    earlier = record(tmp_path)
    del earlier["config"]["train"]["log"], earlier["config"]["original"]
    (tmp_path / "run.json").write_text(json.dumps(earlier))
    with pytest.raises(InputError, match="train.log: '' there, 'wandb' here"):
        with claim(tmp_path, log="wandb"):
            pass
    with claim(tmp_path):
        pass


def test_the_same_config_may_come_back(tmp_path):
    for _ in range(2):
        with claim(tmp_path):
            pass


def test_a_run_that_is_under_way_is_left_alone(tmp_path):
    with claim(tmp_path / "a") as run:
        run.record_stage("data", "", "f", "computed", 1.0, 10)
        before = (tmp_path / "a" / "run.json").read_bytes()
        with pytest.raises(InputError, match="a is in use: another process"):
            with claim(tmp_path / "a"):
                pass
        assert (tmp_path / "a" / "run.json").read_bytes() == before
        with claim(tmp_path / "b"):  # one process may have several
            pass
    with claim(tmp_path / "a"):
        pass


_KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_workdir import claim
with claim(Path(sys.argv[1])):
    print("claimed", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_waited_for_until_it_is_dead(tmp_path):
    with subprocess.Popen([sys.executable, "-c", _KILLED, tmp_path / "a"], text=True,
                          cwd=Path(__file__).parents[1], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "claimed\n"
        with pytest.raises(InputError, match="in use"):
            with claim(tmp_path / "a"):
                pass
        process.kill()
        process.wait()
        with claim(tmp_path / "a"):
            pass


def test_a_process_killed_before_its_first_record_blocks_nothing(tmp_path):
    (tmp_path / ".lock").touch()
    with claim(tmp_path):
        pass


def _cut(text):
    return text[:len(text) // 2]


@pytest.mark.parametrize("left", [".tmp-run.json-0123456789ab.ffffffff", ".run.json.tmp"])
def test_a_kill_in_the_first_record_blocks_nothing(tmp_path, left):
    (tmp_path / left).write_text("{")
    with claim(tmp_path):
        pass
    assert record(tmp_path)["finished"]
    # Of an earlier version, whose writers are dead where the work directory can be claimed.
    assert (tmp_path / left).exists() == left.startswith(".tmp-")


def test_what_a_killed_writer_left_goes_at_the_start(tmp_path):
    with claim(tmp_path):
        disk.write_file(tmp_path / "a", "")
    (tmp_path / "predictions").mkdir()
    left = []

    def killed(f):
        left.append(Path(os.readlink(f"/proc/self/fd/{f.fileno()}")))
        os.link(left[-1], tmp_path / "kept")  # survives what `write_file` removes
        raise KeyboardInterrupt

    for path in (tmp_path / "results.csv", tmp_path / "predictions" / "a.npz"):
        with pytest.raises(KeyboardInterrupt):
            disk.write_file(path, killed)
        (tmp_path / "kept").rename(left[-1])
    with claim(tmp_path):
        assert not any(path.exists() for path in left)


@pytest.mark.parametrize("damage", [lambda text: "", _cut, lambda text: "\0" * 4096,
                                    lambda text: _cut(text) + "\0" * 100])
@pytest.mark.parametrize("results", [False, True])
def test_a_record_that_a_power_cut_took_blocks_nothing(tmp_path, damage, results):
    with claim(tmp_path, epochs=3) as run:
        if results:
            run.write_table("results.csv", [], ("method",))
    (tmp_path / "run.json").write_text(damage((tmp_path / "run.json").read_text()))
    with claim(tmp_path, epochs=4):
        assert record(tmp_path)["config"]["train"]["epochs"] == 4
    # Whose results they are nothing says any more: they stand apart.
    assert not (tmp_path / "results.csv").exists()
    assert (tmp_path / "earlier-1" / "results.csv").exists() == results


def test_another_config_is_refused_and_named_and_nothing_is_touched(tmp_path):
    with claim(tmp_path, epochs=3) as run:
        run.record_stage("data", "", "f", "computed", 1.0, 10)
        run.record_stage("original", "", "k", "computed", 1.0, 10)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(InputError, match=r"train.epochs: 3 there, 4 here") as e:
        with claim(tmp_path, epochs=4):
            pass
    assert "another --workdir" in str(e.value) and len(str(e.value).splitlines()) <= 2
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_run_that_was_refused_at_its_data_blocks_nothing(tmp_path):
    with pytest.raises(InputError):
        with claim(tmp_path, epochs=3) as run:
            run.record_stage("data", "", "f", "computed", 1.0, 10)
            raise InputError("a forget set that nobody has")
    with claim(tmp_path, epochs=4):
        pass
    assert json.loads((tmp_path / "run.json").read_text())["config"]["train"]["epochs"] == 4


@pytest.mark.parametrize("status, finished, results, free", [
    ("reused", False, False, True), ("computed", False, False, False),
    ("resumed", False, False, False), ("reused", True, False, False),
    ("reused", False, True, False)])
def test_a_run_that_has_only_reused_models_blocks_nothing(tmp_path, status, finished, results,
                                                          free):
    with contextlib.suppress(RuntimeError), claim(tmp_path, epochs=3) as run:
        run.record_stage("data", "", "f", "computed", 1.0, 10)
        run.record_stage("original", "", "k", status, 1.0, 10)
        if results:
            run.write_table("results.csv", [], ("method",))
        if not finished:
            raise RuntimeError("a mistake in a method's file")
    refused = contextlib.nullcontext() if free else pytest.raises(InputError, match="another conf")
    with refused, claim(tmp_path, epochs=4):
        assert record(tmp_path)["config"]["train"]["epochs"] == 4


@pytest.mark.parametrize("content, words", [("notes.txt", "not empty and holds no run"),
                                            ("run.json", "cannot be read")])
def test_foreign_directories_are_refused(tmp_path, content, words):
    (tmp_path / content).write_text("mine")
    with pytest.raises(InputError, match=words):
        with claim(tmp_path):
            pass
    assert (tmp_path / content).read_text() == "mine"


def test_a_file_is_no_work_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        with claim(tmp_path / "file"):
            pass


def test_tensorboard_gets_a_run_per_member(tmp_path):
    row = {"stage": "ft", "forget_set": "20-28", "epoch": 1, "train_loss": 1.0,
           "validation_loss": 2.0, "learning_rate": 0.1}
    with claim(tmp_path) as run:
        run.write_tensorboard([{**row, "seed": 0}, {**row, "seed": 1},
                               {**row, "seed": 1, "epoch": 2}])
    runs = sorted(p.name for p in (tmp_path / "tensorboard").iterdir())
    assert runs == ["ft-20-28-seed0", "ft-20-28-seed1"]
    logs = [next(p.iterdir()).read_bytes() for p in sorted((tmp_path / "tensorboard").iterdir())]
    assert all(b"validation_loss" in log for log in logs)
    assert logs[1].count(b"validation_loss") == 2 * logs[0].count(b"validation_loss")


def test_tensorboard_of_a_run_that_is_repeated_has_its_curves_once(tmp_path):
    row = {"stage": "ft", "forget_set": "20-28", "epoch": 1, "train_loss": 1.0,
           "validation_loss": 2.0, "learning_rate": 0.1, "seed": 0}
    for seed in (7, 0, 0):
        with claim(tmp_path) as run:
            run.write_tensorboard([{**row, "seed": seed}])
    (member,) = (tmp_path / "tensorboard").iterdir()
    assert member.name == "ft-20-28-seed0" and len(list(member.iterdir())) == 1


def test_tables_have_exactly_their_columns(tmp_path):
    with claim(tmp_path) as run:
        run.write_table("t.csv", [{"a": 1, "b": float("nan")}, {"a": 2, "b": 0.1}], ("a", "b"))
        with pytest.raises(ValueError, match="c"):
            run.write_table("t.csv", [{"a": 1, "b": 2, "c": 3}], ("a", "b"))
    # the failed one left the good one alone
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,nan\n2,0.1\n"


def test_the_manifest_is_of_a_finished_run_alone(tmp_path):
    with claim(tmp_path) as run:
        run.write_table("t.csv", [], ("a",))
        assert not (tmp_path / "manifest.json").exists()
    assert set(manifest.read(tmp_path)) == {"run.json", "t.csv"}
    with claim(tmp_path):  # what it names is about to change
        assert not (tmp_path / "manifest.json").exists()
