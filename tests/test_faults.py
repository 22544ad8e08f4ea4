"""Kills and changed bytes at random, the short form; the long one is `benchmarks.faults`."""

import collections
import os
import subprocess
import sys
from pathlib import Path

import pytest
import quick_compiler

from benchmarks import faults

ROOT = Path(__file__).parents[1]
UNDRAWN = """
import runpy, sys
sys.path.append("tests")
import undrawn
with undrawn.figures():
    runpy.run_module("benchmarks.faults", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_kills_and_changed_bytes_end_with_the_same_bits_or_a_refusal():
    # The cache of compiled programs lies in the store, as for users, and is changed, too.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    env["XLA_FLAGS"] = quick_compiler.FLAGS
    done = subprocess.run(
        [sys.executable, "-c", UNDRAWN, "--of=ft,report", "--kills=2", "--changes=3",
         "--seconds=20"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    last = done.stdout.splitlines()[-1]
    assert last.endswith("0 silent, 0 raw, 0 stuck, 0 left")
    assert int(last.split(" equal")[0]) >= 1


def test_faults_are_counted_and_told(tmp_path, capsys):
    trials = object.__new__(faults.Trials)
    trials.counts, trials.faults = {}, []
    for outcome in ("equal", "silent", "equal"):
        trials.note("ft", outcome, "byte 3 of x", "said")
    assert trials.counts == {"ft": collections.Counter(equal=2, silent=1)}
    assert trials.faults == ["silent: byte 3 of x\nsaid"]
    assert capsys.readouterr().out == ("equal: byte 3 of x\nsilent: byte 3 of x\nsaid\n"
                                       "equal: byte 3 of x\n")


_ENDS = """
import sys
what = sys.argv[1]
if what == "raises": raise KeyError("x")
if what == "refuses": sys.exit("error: in words")
for i in range(5): open(sys.argv[2] + f"/{i}", "w").close()
"""


@pytest.mark.parametrize("what, kill, code, raw, files", [
    ("writes", None, 0, False, 5), ("refuses", None, 1, False, 0), ("raises", None, 1, True, 0),
    ("writes", faults.Kill(operation=3), -9, True, 2),
    ("writes", faults.Kill(seconds=60.0), 0, False, 5)])
def test_how_a_program_ends_is_told_apart(tmp_path, what, kill, code, raw, files):
    (tmp_path / "below").mkdir()
    (tmp_path / "ends_somehow.py").write_text(_ENDS)
    script = (f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
              "from pathlib import Path; from benchmarks import faults\n"
              f"done = faults.run(['ends_somehow', {what!r}, {str(tmp_path / 'below')!r}],"
              f" Path({str(tmp_path / 'below')!r}), faults.{kill!r})\n"
              "print(done.code, done.raw)")
    done = subprocess.run([sys.executable, "-c", script.replace("faults.None", "None")], cwd=ROOT,
                          capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [str(code), str(raw)], done.stderr
    assert len(list((tmp_path / "below").glob("[0-9]"))) == files
