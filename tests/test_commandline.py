from pathlib import Path

import pytest

from unlearn_jax.commandline import of_the_study, read_config, run_name
from unlearn_jax.errors import InputError

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
@pytest.mark.parametrize("flag, message", [
    ("--config.unlearn.ssd.nope=3", "config.unlearn.ssd.nope is not there; allowed in "
                                    "config.unlearn.ssd: alpha, dampening"),
    ("--config.unlearn.nope.alpha=3", "config.unlearn.nope.alpha is not there; allowed in "
                                      "config.unlearn: activation, "),
    ("--config.train.epoch=3", "config.train.epoch is not there; allowed in config.train: "),
    ("--config.train=3", "config.train is a section; allowed: one of its keys, as in "),
    ("--config.train.epochs.x=3", "config.train.epochs is a value, and no section"),
    ("--config.train.epoch=3", " (did you mean 'epochs'?)"),
    ("--config.seeds[0]=1", "0 is not a valid index"),
])
def test_a_wrong_key_is_named_whole_with_what_is_allowed(flag, message):
    with pytest.raises(InputError) as e:
        read_config([f"--config={CONFIGS}/ssd.py", "--config.train.epochs=3", flag])
    assert message in str(e.value) and len(str(e.value).splitlines()) <= 2


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("flag, words", [
    ("train.epochs=two", "config.train.epochs is 'two'; allowed: a whole number"),
    ("train.epochs two", "config.train.epochs is 'two'; allowed: a whole number"),
    ("train.epochs=2.5", "config.train.epochs is '2.5'; allowed: a whole number"),
    ("train.learning_rate=fast", "config.train.learning_rate is 'fast'; allowed: a number"),
    ("model.name=resnet18 --config.train.tensorboard=maybe", "is 'maybe'; allowed: true or false"),
    ("forget.sets=('20-28',", "config.forget.sets is \"('20-28',\"; allowed: a tuple such as "
     "('20-28',), with its closing bracket"),
    ("eval.within=(5.0,", "a tuple such as (5.0,)"),
    ("data.groups=(5.0,", "a tuple such as (1, 2)"),
])
def test_a_wrong_value_is_named_with_what_is_allowed(flag, words):
    with pytest.raises(InputError) as e:
        read_config(["--config=configs/ft.py", "--config.eval.alpha=15",
                     *f"--config.{flag}".split()])
    assert words in str(e.value)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("flags", [(), ("--config.train.epochs=3",)])
def test_a_config_file_that_fails_is_told_in_its_own_words(tmp_path, flags):
    file = tmp_path / "mine.py"
    file.write_text("import ml_collections\n\n\ndef get_config():\n"
                    "    return ml_collections.ConfigDict().nothing.there\n")
    with pytest.raises(InputError, match="nothing"):
        read_config([f"--config={file}", *flags])


def test_the_command_of_a_study_says_nothing_of_its_processes():
    flags = ["--config=configs/ft.py", "--workdir", "w", "--config.seeds=(0,)"]
    assert of_the_study(["main", *flags]) == flags
    assert of_the_study(["main", "--coordinator=a:1", flags[0], "--processes=3", *flags[1:],
                         "--process_id=0"]) == flags
    assert of_the_study(["main", "--coordinator", "a:1", flags[0], "-processes", "3", *flags[1:],
                         "--process_id", "0", "--process_timeout", "9"]) == flags


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("given, change, expected", [
    ("configs/ft.py", "train.epochs=3", "ft"),
    ("configs/ft.py:digits", "train.epochs=3", "ft-digits"),
    ("configs/ft.py", "unlearn.method=ft", "ft"),  # the config's own
    ("configs/ft.py", "unlearn.method=rnd", "ft-rnd"),
    ("ft:digits", "unlearn.method=rnd", "ft-digits-rnd"),
    ("configs/ft.py", "unlearn.method=my/anchored.py:METHOD", "ft-anchored"),
    ("configs/ft.py", "unlearn.method=anchored.py:NEAR", "ft-anchored-NEAR"),
    ("configs/compare.py", "unlearn.method=rnd", "compare"),  # it compares methods of its own
    ("configs/thesis.py:demo", "unlearn.method=rnd", "thesis-demo"),
])
def test_the_default_folder_of_a_run_names_the_method_that_a_flag_chooses(given, change, expected):
    assert run_name(given, read_config([f"--config={given}", f"--config.{change}"])) == expected
