import pytest

from unlearn_jax.errors import ConfigError
from unlearn_jax.methods import METHODS, find_method
from unlearn_jax.startup import run

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


@pytest.mark.parametrize("text, error, call", [
    ("def f(setting):\n    def step(state):\n        return nothing\n    return step\n", NameError,
     lambda method: method.make_step(None)(None)),
    ("from unlearn_jax.members import Pass\nfrom unlearn_jax.methods.method import Method\n"
     "f = Method(passes=lambda setting, epoch: (Pass('retian'),))\n", ConfigError,
     lambda method: method.passes(None, 0)),
    ("import nothing_of_that_name\n", ImportError, None),
])
def test_mistakes_in_a_file_are_told_with_the_name_of_the_method(tmp_path, text, error, call):
    file = tmp_path / "own.py"
    file.write_text(text)
    with pytest.raises(error) as e:
        call(find_method(f"{file}:f").method)
    assert e.value.__notes__ == [f"in the method {file}:f (config.unlearn.method)"]


def test_a_mistake_that_can_be_mended_ends_with_the_name_of_the_method(tmp_path):
    (tmp_path / "own.py").write_text(
        "from unlearn_jax.errors import InputError\n\n\ndef f(setting):\n"
        "    raise InputError('pull is negative')\n")
    with pytest.raises(SystemExit) as e:
        run(lambda: find_method(f"{tmp_path}/own.py:f").method.make_step(None))
    assert str(e.value) == (f"unlearn_jax: in the method {tmp_path}/own.py:f "
                            "(config.unlearn.method): pull is negative")
