import pytest

from launch import points
from launch.points import grid, make_points, parse_axis, read_file, split_values
from unlearn_jax.config import KEYS
from unlearn_jax.config.records import Elements
from unlearn_jax.errors import InputError
from unlearn_jax.storage.store import canonical_json

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
    made = make_points(
        [{"seeds": "3", "forget.sets": "20-28", "unlearn.learning_rate": "1e-3"},
         {"seeds": "(0,1)", "forget.sets": "('20-28','gender:1')", "train.epochs": "3"}], FT, ())
    first, second = made
    assert first.values == {"seeds": (3,), "forget.sets": ("20-28",),
                            "unlearn.learning_rate": 0.001}
    assert second.config.forget.sets == ("20-28", "gender:1") and second.config.seeds == (0, 1)
    assert (first.config.train.epochs, second.config.train.epochs) == (12, 3)
    assert second.config.unlearn.epochs == (2, 8), "what no point names stays"


def test_every_tuple_of_text_takes_words():
    for key, record in KEYS.items():
        if isinstance(record.allowed, Elements) and record.allowed.kind is str:
            (made,) = make_points([{key: "ft"}], FT, ())
            assert made.values == {key: ("ft",)}


def test_quotes_are_no_part_of_a_text():
    for text in ("'a,b.csv',c.csv", '"a,b.csv",c.csv'):
        made = make_points(grid([parse_axis(f"data.path={text}")]), FT, ())
        assert [p.config.data.path for p in made] == ["a,b.csv", "c.csv"]
    made = make_points(grid([parse_axis("model.pretrained='',it's.h5's")]), FT, ())
    assert [p.config.model.pretrained for p in made] == ["", "it's.h5's"]


@pytest.mark.parametrize("own, overrides, words", [
    ({"train.epoch": "3"}, (), "train.epoch is not there; allowed in config.train: batch_size"),
    ({"unlearn.ssd.nope": "3"}, (), "unlearn.ssd.nope is not there; .* alpha, dampening"),
    ({"unlearn": "3"}, (), "config.unlearn is a section"),
    ({"seeds.x": "3"}, (), "config.seeds is a value"),
    ({"seeds": "0-4"}, (), "config.seeds: 0-4 is no number"),
    ({"seeds": "3"}, ("--config.unlearn.ssd.nope=3",), "ssd.nope is not there; .* dampening"),
    ({"train.epochs": "many"}, (), "config.train.epochs is .many.; allowed: a whole number"),
    ({"seeds": "(0,"}, (), "cannot be read"),
    ({"data.path": "'a'b'"}, (), "config.data.path: 'a'b' cannot be read; a text looks like"),
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
    made = make_points(read_file(path), FT, ())
    assert [p.config.unlearn.epochs for p in made[:4]] == [(2,), (2,), (4, 8), (4, 8)]
    assert made[4].config.unlearn.method == "rnd" and made[4].file == "configs/rnd.py"


@pytest.mark.parametrize("text, words", [
    ("seeds: [0, 1]", "'seeds' is not understood; allowed: grid and points"),
    ("gird: {seeds: [0]}", "'gird' is not understood"), ("seeds", "holds 'seeds'; allowed: a list"),
    ("", "holds None"), ("grid: {seeds: 0}", "grid: seeds is 0; allowed: a list"),
    ("grid: [0]", r"grid is \[0\]"), ("grid: {seeds: []}", r"seeds is \[\]"),
    ("points: 0", "points is 0"), ("- [1, 2]", r"point 1 is \[1, 2\]; allowed: {key: value}"),
    ("{a: [", "is not YAML"), (None, "cannot be read"), (b"- {a: \xff}", "is not UTF-8"),
    ("grid: {seeds: [0, 1], seeds: [2]}", r"seeds is there twice \(line 1\)"),
    ("- {seeds: 0}\n- {seeds: 0, seeds: 1}", r"seeds is there twice \(line 2\)"),
    ("- {seeds: 0, config.seeds: 1}", "point 1: seeds is there twice"),
    ("- unlearn: {epochs: 2}", "unlearn is a section; write unlearn.epochs: 2"),
    ("grid: {unlearn: [{epochs: 2}]}", "unlearn is a section; write unlearn.epochs: 2"),
    ("- {1: 2}", "point 1: 1 is no key"), ("grid: {1: [2]}", "grid: 1 is no key"),
    ("- {seeds: }", "point 1: seeds has no value"), ("- {a: 2024-13-01}", "value cannot be read"),
])
def test_files_that_hold_no_sweep(tmp_path, text, words):
    path = tmp_path / "sweep.yaml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=words) as e:
        read_file(path)
    assert f"--sweep-file={path}" in str(e.value)


def test_keys_of_files_may_be_written_as_flags_are(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("grid: {config.seeds: [0, 1]}\npoints: [{config.unlearn.epochs: 2}]\n")
    assert read_file(path) == [{"seeds": 0}, {"seeds": 1}, {"unlearn.epochs": 2}]


def test_points_are_not_compared_pair_by_pair(monkeypatch):
    counted = []
    monkeypatch.setattr(points, "canonical_json",
                        lambda value: counted.append(1) or canonical_json(value))
    made = make_points([{"seeds": str(i)} for i in range(40)], FT, ())
    assert len(made) == len(counted) == 40
