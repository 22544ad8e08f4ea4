"""The manifest of a work directory: what it names, and what refuses a file that is another one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import undrawn
from fake_workdir import write_workdir

from unlearn_jax.errors import InputError, ReportError
from unlearn_jax.explain.finished import read_finished
from unlearn_jax.report import write_report
from unlearn_jax.report.__main__ import main
from unlearn_jax.report.tables.merge import MergedRun, merge_runs
from unlearn_jax.storage import manifest
from unlearn_jax.system import disk

READ = ("results.csv", "data.json", "run.json", "history.csv",
        "predictions/ft.20-28.2.forget.npz", "manifest.json")


@pytest.fixture
def run(tmp_path):
    directory = write_workdir(tmp_path / "run")
    manifest.write(directory)
    return directory


def change(path, at=0.5):
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)


def test_what_is_named_is_what_a_run_wrote(run):
    (run / "notes.txt").write_text("mine")
    (run / ".lock").touch()
    (run / "predictions" / ".tmp-a").touch()
    (run / "explain").mkdir()
    (run / "explain" / "run.json").write_text("{}")  # a work directory of its own
    (run / "summary.csv").write_text("of a report")
    manifest.write(run)
    tops = {"results.csv", "history.csv", "dropped.csv", "data.json", "run.json"}
    assert {n for n in manifest.read(run) if "/" not in n} == tops
    assert {n.split("/")[0] for n in manifest.read(run) if "/" in n} == {"predictions"}


def test_a_report_takes_its_own_files_up(run, monkeypatch):
    before = manifest.read(run)
    write_report(run)
    named = manifest.read(run)
    assert before.items() <= named.items()
    assert {"report.md", "report.html", "summary.csv", "figures/labels-by-step.png"} <= set(named)
    whole = (run / "manifest.json").read_bytes()
    write_report(run)
    assert (run / "manifest.json").read_bytes() == whole

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("unlearn_jax.report.render.markdown.render", killed)
    with pytest.raises(KeyboardInterrupt):
        write_report(run)
    assert manifest.read(run) == before  # of files that may be half of one report, half of another


def test_a_report_removes_what_a_killed_one_left(run):
    for folder in (run, run / "predictions"):
        left = disk._begin(folder / "report.md")
        os.close(left[1])  # as a kill does
    with undrawn.none():
        write_report(run)
    assert not list(run.rglob(".tmp-*"))


@pytest.mark.parametrize("name", READ)
def test_a_changed_byte_is_refused_by_report_and_merge_with_its_file(run, name, tmp_path, capsys):
    for at in (0.01, 0.3, 0.9):
        content = (run / name).read_bytes()
        change(run / name, at)
        assert main([str(run)]) == 1
        said = capsys.readouterr().err
        assert str(run / name) in said and ("digest" in said or "is damaged" in said)
        with pytest.raises(ReportError):
            merge_runs([MergedRun(run)], tmp_path / "out")
        assert not (tmp_path / "out").exists()
        (run / name).write_bytes(content)
    with undrawn.none():
        assert main([str(run)]) == 0


@pytest.mark.parametrize("name", ["results.csv", "run.json"])
def test_explanations_refuse_a_changed_byte_too(run, name):
    with pytest.raises(InputError, match="has not finished"):
        read_finished(run)
    change(run / name)
    with pytest.raises(manifest.ManifestError, match=name):
        read_finished(run)


def test_a_merger_has_a_manifest(run, tmp_path):
    merge_runs([MergedRun(run)], tmp_path / "out")
    assert set(manifest.read(tmp_path / "out")) == set(manifest.read(run)) - {
        n for n in manifest.read(run) if manifest.is_of_report(n)}
    change(tmp_path / "out" / "results.csv")
    with pytest.raises(ReportError, match=r"out/results\.csv is not the file"):
        write_report(tmp_path / "out")


def test_work_directories_of_earlier_versions_are_read_without(run):
    manifest.remove(run)
    change(run / "dropped.csv")
    write_report(run)
    assert not (run / "manifest.json").exists()


def test_other_formats_are_named(run):
    content = json.loads((run / "manifest.json").read_text()) | {"format": 9}
    content["digest"] = manifest._digest(content)
    (run / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(manifest.ManifestError, match="has format 9; this version reads 1"):
        manifest.read(run)


def test_it_is_read_without_jax():
    code = "import sys; from unlearn_jax.storage import manifest; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code],
                          cwd=Path(__file__).parents[1]).returncode == 0
