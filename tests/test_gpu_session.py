import sys

import pytest

from benchmarks import gpu_session, population
from benchmarks.gpu_session import Run, plan, run_all
from unlearn_jax.errors import InputError


def test_the_plan_ends_in_ten_minutes_and_covers_what_is_asked():
    runs = plan()
    assert sum(run.seconds for run in runs) <= gpu_session.SECONDS < 600
    assert len({run.name for run in runs}) == len(runs)
    for graphs in (True, False):
        flags = [run.flags for run in runs if run.module == "versus_torch" and run.graphs is graphs]
        assert {f[0] for f in flags} == {"--network=resnet18", "--network=resnet50"}
    for network in ("resnet18", "resnet50"):
        mine = [run.flags for run in runs if run.flags[0] == f"--network={network}"]
        members = {m for f in mine for m in f[f.index("--members") + 1:]}
        assert members == {"1", "8", "32"} and all("--dtype=bfloat16" in f for f in mine)


@pytest.mark.parametrize("run", [run for run in plan() if run.module == "population"],
                         ids=lambda run: run.name)
def test_the_benchmarks_know_the_flags(run, tmp_path):
    args = population.arguments().parse_args(run.command(tmp_path)[3:])
    assert args.dtype == "bfloat16" and args.json == tmp_path / f"{run.name}.json"


def test_xlas_own_graphs_are_asked_for_by_flag(monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", "--xla_other=1")
    ours, xlas = (Run("a", 1, "population", (), graphs).environment(tmp_path)
                  for graphs in (True, False))
    assert "XLA_FLAGS" not in ours
    assert xlas["XLA_FLAGS"].startswith("--xla_other=1 --xla_gpu_enable_command_buffer=+")


def test_a_dry_run_prints_commands_alone(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["gpu_session", "--dry-run", f"--out={tmp_path / 'out'}"])
    gpu_session.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(plan()) and not (tmp_path / "out").exists()
    assert all("-m benchmarks." in line for line in lines[1::2])


class Sleeps(Run):
    """A command that sleeps, fails or writes."""

    def command(self, out):
        return [sys.executable, "-c", self.flags[0]]


def test_what_one_leaves_goes_to_the_next_and_no_more(tmp_path):
    runs = [Sleeps("quick", 30, "", ("print('| a table |')",)),
            Sleeps("broken", 0, "", ("raise SystemExit(3)",)),
            Sleeps("endless", -28, "", ("import time; time.sleep(60)",)),
            Sleeps("late", 0, "", ("print(1)",))]
    ended = run_all(runs, tmp_path, seconds=30)
    assert ended == {"quick": "ended", "broken": "failed", "endless": "out of time",
                     "late": "out of time"}
    assert (tmp_path / "quick.txt").read_text() == "| a table |\n"


def test_a_machine_without_a_gpu_and_a_full_folder_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(sys, "argv", ["gpu_session", f"--out={tmp_path}"])
    with pytest.raises(InputError, match="jax finds no GPU .its backend is cpu"):
        gpu_session.main()
    (tmp_path / "old.txt").write_text("figures")
    with pytest.raises(InputError, match="is not empty"):
        gpu_session.main()
