"""The commands of README.md and the pages follow one another: no two need the same folder."""

import re
import shlex
from pathlib import Path

import pytest

from unlearn_jax.commandline import read_config, run_name

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "BUILD.md", ROOT / "launch" / "README.md",
                *ROOT.glob("docs/*.md")])


def commands(page):
    """The words of each command in the blocks of code of a page."""
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield shlex.split(line, comments=True)


def folder(words):
    """The work directory of a command that runs a study or a sweep, with its flags; None: others.

    Flags that only tell processes of one study apart count as nothing.
    """
    kinds = {"unlearn_jax.main": "runs/", "launch.distributed": "runs/",
             "launch.sweep": "runs/sweep-"}
    found = [kinds[w] for w in words if w in kinds]
    flags = [w for w in words if w.startswith("--")]
    given = [w.removeprefix("--config=") for w in flags if w.startswith("--config=")]
    if not found or not given:
        return None
    own = [w.removeprefix("--workdir=") for w in flags if w.startswith("--workdir=")]
    changes = [w for w in flags if w.startswith("--config.")]
    name = run_name(given[0], read_config([f"--config={given[0]}", *changes]))
    swept = [value for flag, value in zip(words, words[1:]) if flag == "--sweep"]
    return own[0] if own else found[0] + name, (given[0], *changes, *swept)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_no_two_commands_put_different_runs_into_one_folder():
    users, count = {}, 0
    for page in PAGES:
        for words in commands(page):
            if (found := folder(words)) and "srun" not in words:
                count += 1
                first = users.setdefault(found[0], (found[1], page.name))
                assert first[0] == found[1], f"{found[0]}: {first} and {found[1]} in {page.name}"
    assert count > 25
    assert "runs/ft-anchored" in users and "runs/ft" in users
