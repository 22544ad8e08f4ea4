import pytest

from unlearn_jax.errors import ConfigError
from unlearn_jax.methods import METHODS, find_method

FILE = """
from unlearn_jax.methods.method import Method
from unlearn_jax.train import make_train_step


def gentle(setting):
    return make_train_step(setting.model, setting.optimizer, setting.loss)


METHOD = Method(make_step=gentle, start="initial")
NUMBER = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my method.py"
    path.write_text(FILE)
    return path


def test_names_of_the_package():
    assert find_method("ft").method is METHODS["ft"] and find_method("ft").code == ""


def test_a_method_and_a_step_maker_of_ones_own(file):
    whole, step = find_method(f"{file}:METHOD"), find_method(f"{file}:gentle")
    assert (whole.name, whole.method.start) == ("my-method-METHOD", "initial")
    assert (step.name, step.method.start) == ("my-method-gentle", "original")
    assert step.method.make_step.__name__ == "gentle"


def test_another_text_is_another_method(file):
    before = find_method(f"{file}:METHOD").code
    file.write_text(FILE + "\n# changed\n")
    assert before and find_method(f"{file}:METHOD").code != before


@pytest.mark.parametrize("request_, words", [
    ("fft", "allowed: one of 'retrain', 'ft'"),
    ("{file}", "path/to/file.py:NAME"),
    ("{file}:missing", "the file has no 'missing'; its methods: METHOD"),
    ("{file}:NUMBER", "neither a Method nor a function"),
    ("nowhere.py:METHOD", "No such file"),
])
def test_what_cannot_be_used_is_named(file, request_, words):
    with pytest.raises(ConfigError, match="config.unlearn.method is") as e:
        find_method(request_.format(file=file))
    assert words in str(e.value)
