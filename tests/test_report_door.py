"""Which runs have a section on the reference study."""

import pytest
from fake_workdir import change_json, text_report, write_thesis, write_workdir

from configs import thesis
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.report.thesis.arms import ARMS, OFFSET, is_study
from unlearn_jax.report.thesis.published import SETS

TITLE = "## The reference study"


def test_its_arms_are_those_of_its_config():
    config = thesis.get_config()
    assert ARMS == config.thesis.unlearn.to_dict() == thesis.ARMS
    assert list(config.unlearn.offset) == OFFSET and thesis.SETS == SETS


def test_a_run_of_the_study_has_its_section(tmp_path):
    path = write_thesis(tmp_path, samples=12, sets=("20-28",), budgets=(2,))
    assert is_study(read_run(path)) and TITLE in text_report(path)


def changed(path, change):
    write_thesis(path, samples=12, sets=("20-28",), budgets=(2,))
    change_json(path / "run.json", lambda run: change(run["config"]))
    return path


def arm(name, **settings):
    """Gives an arm other settings, or adds one of one's own."""
    def change(config):
        config["thesis"]["unlearn"][name] = {**config["thesis"]["unlearn"].get(name, {}),
                                             **settings}
        config["thesis"]["arms"] = list(dict.fromkeys([*config["thesis"]["arms"], name]))
    return change


def only(*names):
    return lambda config: config["thesis"].update(arms=list(names))


@pytest.mark.parametrize("change", [
    arm("mine", method="ft", learning_rate=0.01), arm("mine"), arm("ft", learning_rate=0.01),
    arm("rnd", labels="offset"), only("ft"), only("rnd"), only(),
    lambda config: config["unlearn"].update(offset=[1, 2]),
])
def test_variants_of_ones_own_have_none(tmp_path, change):
    path = changed(tmp_path, change)
    assert not is_study(read_run(path)) and TITLE not in text_report(path)
    assert not list(path.glob("tables/*"))


def test_fewer_kinds_of_random_labels_are_the_study_all_the_same(tmp_path):
    assert is_study(read_run(changed(tmp_path, only("ft", "rnd"))))


@pytest.mark.parametrize("change", [
    lambda data: data.update(label_unit="days"),
    lambda data: data["forget_sets"]["20-28"].update(request="ids.txt"),
])
def test_other_data_are_not_the_studys(tmp_path, change):
    path = write_thesis(tmp_path, samples=12, sets=("20-28",), budgets=(2,))
    change_json(path / "data.json", change)
    assert not is_study(read_run(path)) and TITLE not in text_report(path)


def test_other_forget_sets_and_runs_without_arms_have_none(tmp_path):
    path = write_thesis(tmp_path / "a", samples=12, sets=("young",), budgets=(2,))
    assert not is_study(read_run(path)) and TITLE not in text_report(path)
    assert TITLE not in text_report(write_workdir(tmp_path / "b", samples=12))
