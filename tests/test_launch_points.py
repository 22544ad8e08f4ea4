import pytest

from launch.points import grid, make_points, parse_axis, read_file, split_values
from unlearn_jax.errors import InputError

FT = "configs/ft.py"
# ml_collections loads config files in a way that Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.mark.parametrize("text, values", [
    ("2,4,8", ["2", "4", "8"]),
    ("('20-28','gender:1'),28-36", ["('20-28','gender:1')", "28-36"]),
    ("'a,b',(1,2),[3,(4,5)]", ["'a,b'", "(1,2)", "[3,(4,5)]"]),
])
def test_commas_within_brackets_and_quotes_do_not_separate(text, values):
    assert split_values(text) == values


@pytest.mark.parametrize("text, words", [
    ("(1,2", "not closed"), ("'a,b", "not closed"), ("1,,2", "empty value"), ("", "empty value"),
])
def test_values_that_cannot_be_told_apart(text, words):
    with pytest.raises(InputError, match=words):
        split_values(text)


@pytest.mark.parametrize("text, words", [
    ("unlearn.epochs", "KEY=VALUE"), ("=3", "KEY=VALUE"), ("seeds=1,2,1", "1 is there twice"),
])
def test_axes_that_are_none(text, words):
    with pytest.raises(InputError, match=words):
        parse_axis(text)


def test_several_axes_multiply():
    axes = [parse_axis("seeds=0,1"), parse_axis("config.unlearn.epochs=2,4")]
    assert grid(axes) == [
        {"seeds": "0", "unlearn.epochs": "2"}, {"seeds": "0", "unlearn.epochs": "4"},
        {"seeds": "1", "unlearn.epochs": "2"}, {"seeds": "1", "unlearn.epochs": "4"}]
    with pytest.raises(InputError, match="seeds is swept twice"):
        grid([*axes, ("seeds", ["3"])])


def test_points_hold_values_as_the_config_does():
    points = make_points(
        [{"seeds": "3", "forget.sets": "20-28", "unlearn.learning_rate": "1e-3"},
         {"seeds": "(0,1)", "forget.sets": "('20-28','gender:1')", "train.epochs": "3"}], FT, ())
    first, second = points
    assert first.values == {"seeds": (3,), "forget.sets": ("20-28",),
                            "unlearn.learning_rate": 0.001}
    assert second.config.forget.sets == ("20-28", "gender:1") and second.config.seeds == (0, 1)
    assert (first.config.train.epochs, second.config.train.epochs) == (12, 3)
    assert second.config.unlearn.epochs == (2, 8), "what no point names stays"


@pytest.mark.parametrize("own, overrides, words", [
    ({"train.epoch": "3"}, (), "config.train.epoch=3"),
    ({"train.epochs": "many"}, (), "config.train.epochs=many"),
    ({"seeds": "(0,"}, (), "cannot be read"),
    ({"config": "configs/none.py"}, (), "configs/none.py"),
    ({"train.epochs": "3"}, ("--config.train.epochs=2",), "config.train.epochs is swept"),
])
def test_mistakes_are_named_in_the_words_of_the_config(own, overrides, words):
    with pytest.raises(InputError, match=words):
        make_points([own], FT, overrides)


def test_a_point_that_is_there_twice_and_no_points():
    with pytest.raises(InputError, match="points 1 and 2 of the sweep are the same"):
        make_points([{"seeds": "0"}, {"seeds": "(0,)"}], FT, ())
    with pytest.raises(InputError, match="nothing to sweep"):
        make_points([], FT, ())


def test_yaml_points_and_grids(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("- {seeds: [0, 1], unlearn.learning_rate: 1e-3}\n- {forget.sets: gender:1}\n")
    first, second = make_points(read_file(path), FT, ())
    assert first.config.seeds == (0, 1) and first.config.unlearn.learning_rate == 1e-3
    assert second.config.forget.sets == ("gender:1",)
    path.write_text("grid:\n  unlearn.epochs: [2, [4, 8]]\n  seeds: [0, 1]\n"
                    "points:\n- {config: configs/rnd.py}\n")
    points = make_points(read_file(path), FT, ())
    assert [p.config.unlearn.epochs for p in points[:4]] == [(2,), (2,), (4, 8), (4, 8)]
    assert points[4].config.unlearn.method == "rnd" and points[4].file == "configs/rnd.py"


@pytest.mark.parametrize("text, words", [
    ("seeds: [0, 1]", "allowed: a list"), ("grid: {seeds: 0}", "allowed: a list"),
    ("- [1, 2]", "allowed: a list"), ("{a: [", "is not YAML"), (None, "cannot be read"),
])
def test_files_that_hold_no_sweep(tmp_path, text, words):
    path = tmp_path / "sweep.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_file(path)
