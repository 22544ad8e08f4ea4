"""Values that members of one program may differ in, and how a step reads them."""

import dataclasses

import ml_collections
import pytest

from unlearn_jax.config import default_config
from unlearn_jax.methods import find_method
from unlearn_jax.methods.method import Setting
from unlearn_jax.stages import graph, models, variants


@dataclasses.dataclass
class _Config:
    config: ml_collections.ConfigDict


def variant(rate, code="", **options):
    c = default_config()
    with c.unlocked():
        c.unlearn.update(method="neggrad_plus", learning_rate=rate)
        c.unlearn.neggrad_plus.update(options)
    setting = Setting(None, None, None, None, c.unlearn, c.unlearn.neggrad_plus, c.train)
    found = dataclasses.replace(find_method("neggrad_plus"), code=code)
    return graph.Variant(_Config(c), [], graph.Unlearning(found, setting, lambda: None))


def rate_and_alpha(setting):
    def step(key, state, batch, learning_rate, context):
        return context, (setting.config.learning_rate, setting.options.alpha)

    return step


@pytest.mark.parametrize("code, traced", [("", {}), ("digest", {"config.learning_rate": 4e-3})])
def test_steps_of_outside_methods_may_read_the_rate_of_the_config(code, traced):
    (program,) = variants.programs([variant(1e-3, code), variant(4e-3, code)])
    assert program[1].traced_options == traced and program[1].name == "learning_rate=0.004"
    step = models.dialled(rate_and_alpha, program[0].unlearning.setting)
    own = step(None, None, None, 0.0, ("prepared", program[1].traced_options))
    alpha = program[0].unlearning.setting.options.alpha
    assert own == ("prepared", (traced.get("config.learning_rate", 1e-3), alpha))


def test_options_and_the_rate_are_read_together():
    (program,) = variants.programs([variant(1e-3, "digest", alpha=0.5),
                                    variant(2e-3, "digest", alpha=0.25)])
    step = models.dialled(rate_and_alpha, program[0].unlearning.setting)
    assert [step(None, None, None, 0.0, (None, v.traced_options))[1] for v in program] == [
        (1e-3, 0.5), (2e-3, 0.25)]


def test_variants_of_one_rate_keep_it_in_the_program():
    (program,) = variants.programs([variant(1e-3, "digest", alpha=0.5),
                                    variant(1e-3, "digest", alpha=0.25)])
    assert [v.traced_options for v in program] == [{"alpha": 0.5}, {"alpha": 0.25}]
