"""Audits that judge single samples name the number of seeds; the default has an attack."""

import pytest
from fake_workdir import change_json, write_workdir

from configs import thesis
from unlearn_jax.config import default_config
from unlearn_jax.metrics import catalogue
from unlearn_jax.report.render import markdown
from unlearn_jax.report.sections import headline
from unlearn_jax.report.sections.page import build
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.report.tables.judgement import ATTACKS


@pytest.fixture
def read(tmp_path):
    def read(audits, seeds=(0, 1, 2)):
        path = write_workdir(tmp_path / str(len(list(tmp_path.iterdir()))), samples=10, seeds=seeds)
        change_json(path / "run.json", lambda run: run["config"]["eval"].update(audits=audits))
        return read_run(path)

    return read


def test_few_seeds_are_named_and_what_they_mean(read):
    run = read(["mia", "lira", "challenge"])
    text = headline.few_seeds(run).text
    assert text.startswith("U-LiRA and the challenge's forgetting quality judge each sample")
    assert "here from 3 models of each kind" in text
    assert "1 with 1, and is computed from 8 seeds on." in text
    assert text in markdown.render(build(run))
    [alone] = [headline.few_seeds(read(["challenge"], seeds=tuple(range(9)))).text]
    assert alone.startswith("The challenge's forgetting quality judges") and "U-LiRA" not in alone
    assert "from 8 seeds on" not in headline.few_seeds(read(["lira"], seeds=tuple(range(9)))).text


def test_nothing_is_said_without_such_an_audit_or_with_many_seeds(read, monkeypatch):
    assert headline.few_seeds(read(["mia"])) is None
    run = read(["lira"])
    monkeypatch.setattr(headline, "MANY", 3)
    assert headline.few_seeds(run) is None


@pytest.mark.parametrize("config", [default_config(), thesis.get_config("demo")])
def test_the_audits_of_a_config_have_the_attacks_that_a_verdict_needs(config):
    assert {catalogue.find(name).audit for name in ATTACKS} <= set(config.eval.audits)
