import json

import pytest

from unlearn_jax import workdir
from unlearn_jax.config import default_config
from unlearn_jax.errors import InputError


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


def test_the_same_config_may_come_back(tmp_path):
    for _ in range(2):
        with claim(tmp_path):
            pass


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


def test_tables_have_exactly_their_columns(tmp_path):
    with claim(tmp_path) as run:
        run.write_table("t.csv", [{"a": 1, "b": float("nan")}, {"a": 2, "b": 0.1}], ("a", "b"))
        with pytest.raises(ValueError, match="c"):
            run.write_table("t.csv", [{"a": 1, "b": 2, "c": 3}], ("a", "b"))
    # the failed one left the good one alone
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,nan\n2,0.1\n"
