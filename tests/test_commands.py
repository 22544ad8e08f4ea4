"""One name for all commands, what there is, and configs by name from any folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import warm

from unlearn_jax import __main__ as commands
from unlearn_jax import commandline, listing
from unlearn_jax.config import KEYS, default_config
from unlearn_jax.errors import InputError
from unlearn_jax.methods import METHODS
from unlearn_jax.system.nested import flat

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def ran(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """`unlearn-jax ...` from a folder that is not the checkout."""
    return subprocess.run([sys.executable, "-m", "unlearn_jax", *arguments], cwd=cwd, text=True,
                          capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.mark.parametrize("topic", listing.TOPICS)
def test_everything_there_is_has_a_name_and_a_sentence(topic, capsys):
    listing.main([topic])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(listing.TOPICS[topic]())
    assert all(len(line.split()) > 3 for line in lines)


def test_the_lists_are_those_of_the_code(capsys):
    assert list(listing.methods()) == list(METHODS)
    assert {"ft", "compare", "thesis"} <= set(listing.configs()) and "common" not in \
        listing.configs()
    assert list(listing.keys())[:len(KEYS)] == list(KEYS)
    assert listing.keys()["train.momentum"] == \
        "sgd: momentum [default: 0.9; allowed: from 0 to 1]"
    options = {key for key in flat(default_config().to_dict()) if key not in KEYS}
    assert set(listing.keys()) == {*KEYS, *options}
    with pytest.raises(InputError, match="list takes one of .*methods.*, not 'things'"):
        listing.main(["things"])


def test_every_command_is_explained_and_is_there(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["unlearn-jax"])
    assert commands.main() == 0
    told = capsys.readouterr().out
    assert all(f"\n    {name} " in told for name in commands.COMMANDS)


def test_the_help_of_list_explains_every_topic(capsys):
    listing.main(["--help"])
    told = capsys.readouterr().out
    assert all(f"\n    {topic} " in told for topic in listing.TOPICS)


def test_a_command_runs_from_any_folder_and_an_unknown_one_is_refused(tmp_path):
    done = ran("list", "networks", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.split()[0] == "resnet4", done.stderr
    done = warm.run([sys.executable, "-m", "unlearn_jax", "verify", str(tmp_path / "nothing")],
                    cwd=tmp_path)
    assert done.returncode in (1, 2) and str(tmp_path / "nothing") in done.stderr + done.stdout
    done = ran("train", cwd=tmp_path)
    assert done.returncode == 2 and "'train' is no command; allowed: run, sweep" in done.stderr


@pytest.mark.parametrize("given", ["ft", "ft.py", "configs/ft.py"])
def test_a_config_is_found_by_its_name_from_any_folder(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert commandline.find_config(f"{given}:utkface") == f"{ROOT / 'configs' / 'ft.py'}:utkface"
    assert commandline.read_config([f"--config={given}", "--config.seeds=(7,)"]).seeds == (7,)
    assert commandline.read_config(["--config", given]).unlearn.method == "ft"


def test_a_file_of_ones_own_comes_first_and_an_unknown_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    own = (ROOT / "configs" / "ft.py").read_text().replace('"""', '"""Own. ', 1)
    (tmp_path / "configs" / "ft.py").write_text(own)
    assert commandline.find_config("configs/ft.py") == "configs/ft.py"
    with pytest.raises(InputError, match="no file.*or a name: activation, .*thesis"):
        commandline.read_config(["--config=fine_tuning"])


def test_in_the_checkout_a_name_is_the_file_that_the_documents_name(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert commandline.find_config("ft:utkface") == "configs/ft.py:utkface"
