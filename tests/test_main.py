"""The command line refuses what cannot work: one or two lines, exit code not 0, nothing done."""

import re
import subprocess
import sys

import pytest
import warm
from PIL import Image
from warm import ROOT

VECTOR = """
def vector(setting):
    def step(key, state, batch, rate, context):
        outputs, _ = setting.model.apply(state.variables, batch.images, train=True, key=key)
        return state, setting.loss.per_sample(outputs, batch.labels)

    return step
"""


def write_faces(folder):
    """one.csv: 60 images of the label 30."""
    lines = ["path,label"]
    for i in range(60):
        Image.new("RGB", (32, 32), (4 * i,) * 3).save(folder / f"{i}.png")
        lines.append(f"{i}.png,30")
    (folder / "one.csv").write_text("\n".join(lines))


def run(*flags, config="configs/ft.py", cwd=ROOT, workdir="w"):
    args = [sys.executable, "-m", "unlearn_jax.main", *([f"--config={config}"] if config else []),
            f"--workdir={workdir}", *flags]
    return warm.run(args, cwd=cwd)


@pytest.mark.parametrize("flags, words", [
    (["--config.train.epoch=3"], "config.train.epoch"),
    (["--config.train.epochs=many"], "many"),
    (["--config.train.epochs=0"], "config.train.epochs is 0; allowed: from 1 to"),
    (["--config.unlearn.method=scrap"], "'retrain', 'ft', 'rnd'"),
    (["--config.data.source=imagenet"], "synthetic"),
    (["--config.data.source=utkface", "--config.data.path=nowhere"], "nowhere"),
    (["--config.parallel.backend=gpu"], "finds no such device"),
    (["--config.forget.sets=('90-99',)"], "90-99"),
    (["--config.model.pretrained=none.h5"], "none.h5"),
    (["--store=file/store"], "file/store cannot be created"),
    (["--config.data.source=digits", "--config.data.task=classification",
      "--config.train.loss=cross_entropy", "--config.data.image_size=16",
      "--config.forget.sets=('class:3',)", "--config.eval.alphas=(0.25,)",
      "--config.eval.alpha=0.25", "--config.unlearn.method=rnd"], "classes allow 'uniform'"),
    (["extra"], "extra"),
    (["--config.data.size=10000000000"], "config.data.size is 10000000000; allowed: from 20 to"),
    (["--config.data.size=1000000000"], "config.data.size is 1000000000: so many images"),
    (["--config.train.learning_rate=inf"], "allowed: a finite number of at least 0"),
    (["--workdir=" + "w" * 300], "cannot be used: File name too long"),
    (["--store=" + "s" * 300], "cannot be created: File name too long"),
    (["--config.data.source=folder", "--config.data.path=" + "p" * 300], "does not exist"),
    (["--config.model.pretrained=" + "p" * 300], "no file that can be read"),
    (["--config.unlearn.method=ends.py:METHOD"], "the file calls sys.exit(0)"),
    (["--config=ends.py"], "calls sys.exit(0); it must return a config"),
    (["--store=taken"], "taken/original is a file"),
    (["--config.unlearn.method=vector.py:vector"], "returns the loss float32 [64]; allowed"),
    (["--config.data.source=folder", "--config.data.path=one.csv",
      "--config.forget.sets=('random:0.1',)"],
     "all 36 training samples of 'folder' have the label '30'"),
])
def test_mistakes_are_named_in_a_line_or_two(tmp_path, flags, words):
    (tmp_path / "file").write_text("")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "original").write_text("")
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "vector.py").write_text(VECTOR)
    write_faces(tmp_path)
    done = run(*flags, config=ROOT / "configs" / "ft.py", cwd=tmp_path)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    assert not any((tmp_path / "runs" / "store").glob("*/*/DONE.json"))
    said = [line for line in done.stderr.splitlines()
            if line and not re.match(r"\d\d:\d\d:\d\d ", line)]
    assert len(said) <= 4, done.stderr  # absl adds a line on where to find help


@pytest.mark.parametrize("config, words", [
    ("configs/none.py", "configs/none.py"),
    ("configs/ft.py:huge", "'utkface', 'utkface_small'"),
    (None, "--config"),
])
def test_wrong_config_files(config, words):
    done = run(config=config)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr, done.stderr[-2000:]


def test_a_foreign_work_directory_is_left_alone(tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "thesis.tex").write_text("years of work")
    done = run(config=ROOT / "configs" / "ft.py", cwd=tmp_path)
    assert done.returncode == 1 and "not empty and holds no run" in done.stderr
    assert [p.name for p in (tmp_path / "w").iterdir()] == ["thesis.tex"]


def test_help_explains_the_flags():
    done = run("--help")
    for word in ("--config", "--workdir", "--store"):
        assert word in done.stdout


def test_a_new_process_refuses_as_a_forked_one():
    args = [sys.executable, "-m", "unlearn_jax.main", "--config=configs/ft.py",
            "--config.train.epochs=0"]
    new = subprocess.run(args, cwd=ROOT, env=warm.ENV, capture_output=True, text=True, timeout=120)
    forked = warm.run(args)
    said, again = (re.sub(r"^\d\d:\d\d:\d\d ", "", done.stderr) for done in (new, forked))
    assert (new.returncode, new.stdout, said) == (forked.returncode, forked.stdout, again)
    assert said.startswith("unlearn_jax starts")
    assert new.returncode == 1 and "config.train.epochs is 0" in new.stderr


def test_a_forked_process_that_takes_too_long_is_killed():
    with pytest.raises(subprocess.TimeoutExpired):
        warm.run([sys.executable, "-m", "unlearn_jax.main", "--config=configs/ft.py"], timeout=0.3)
    # and the next is not
    assert warm.run([sys.executable, "-m", "unlearn_jax.inspect", "missing"]).returncode == 2
