"""The command itself: what it refuses before it does anything, and how it ends after Ctrl-C."""

import pytest

from launch import estimate, sweep
from unlearn_jax.errors import InputError
from unlearn_jax.system.interrupt import CTRL_C

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def command(tmp_path, *flags):
    return ["--config=configs/ft.py", "--sweep", "seeds=0,1", f"--workdir={tmp_path / 'sweep'}",
            f"--store={tmp_path / 'store'}", *flags]


def interrupted(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["make_points", "make_plan", "run_local", "gather"])
def test_ctrl_c_at_any_time_ends_with_a_line(monkeypatch, tmp_path, capsys, name):
    monkeypatch.setattr(sweep, "run_local", lambda plan, jobs, pack, say: {})
    monkeypatch.setattr(sweep.Plan, "finished", lambda plan, run: name == "gather")
    monkeypatch.setattr(sweep, name, interrupted)
    assert sweep.main(command(tmp_path)) == CTRL_C
    assert capsys.readouterr().out.endswith("interrupted; the same command goes on\n")


def test_points_that_are_in_no_headline_are_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sweep, "run_local", lambda plan, jobs, pack, say: {})
    sweep.main(command(tmp_path, "--sweep", "eval.alpha=5.0,10.0"))
    assert capsys.readouterr().out.startswith("points 2, 4: the report's headline is of the first")


def test_a_dry_run_has_the_devices_of_a_run(monkeypatch, tmp_path):
    called = []
    monkeypatch.setattr(estimate, "use_devices_of", lambda plan: called.append("devices"))
    monkeypatch.setattr(estimate, "describe", lambda plan, on, pack: called.append("plan"))
    assert sweep.main(command(tmp_path, "--dry-run")) == 0
    assert called == ["devices", "plan"]


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize("flags, words", [
    (["--time=soon"], "--time=soon"),
    (["--time=5", "--signal-seconds=300"], "--signal-seconds=300: allowed: less than .* 300 s"),
    (["--slurm-option=--exclusive"], "without --"), (["--slurm-option=nice="], "KEY=VALUE"),
    (["--slurm-option=array=0-3"], "array is set already"),
    (["--slurm-option=nice=1", "--slurm-option=nice=2"], "nice is set already"),
])
def test_what_slurm_cannot_take_is_refused_before_anything(tmp_path, dry, flags, words):
    with pytest.raises(InputError, match=words):
        sweep.main(command(tmp_path, "--on=slurm", *flags, *dry))
    assert not any(tmp_path.iterdir())


def test_options_of_sbatch_with_and_without_a_value(tmp_path):
    args, _ = sweep._parse(command(tmp_path, "--on=slurm", "--slurm-option=exclusive",
                                   "--slurm-option=nice=10"))
    assert sweep._slurm_options(args).parameters["additional_parameters"] == {
        "exclusive": True, "nice": "10"}
