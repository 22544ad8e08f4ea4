import itertools
import json

import pytest

from launch.plan import family, make_plan
from launch.points import grid, make_points, parse_axis
from launch.taken import take
from unlearn_jax.commandline import read_config
from unlearn_jax.errors import InputError
from unlearn_jax.storage import manifest

FT = "configs/ft.py"
# ml_collections loads config files in a way that Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def plan(*axes, points=(), overrides=(), jobs=1, directory="sweep", path=None):
    wanted = [*(grid([parse_axis(a) for a in axes]) if axes else []), *points]
    return make_plan(make_points(wanted, FT, overrides), overrides, path or directory, "store",
                     jobs)


def cells(run):
    """(seed, forget set, budget) of every unlearned model of a run."""
    c = run.config
    return set(itertools.product(c.seeds, c.forget.sets, c.unlearn.epochs))


def test_seeds_forget_sets_and_budgets_are_one_population():
    made = plan("unlearn.epochs=4,1,2", "forget.sets=20-28,28-36", "seeds=0,1,2")
    ((run,),) = [job.runs for job in made.jobs]
    assert run.config.unlearn.epochs == (1, 2, 4) and run.config.seeds == (0, 1, 2)
    assert run.config.forget.sets == ("20-28", "28-36") and run.members == 18
    assert run.points == tuple(range(1, 19)) and run.label == "" and run.name == "all"


def test_alphas_are_joined_and_the_first_one_is_the_headline():
    ((run,),) = [job.runs for job in plan("eval.alpha=15.0,20.0").jobs]
    assert run.config.eval.alpha == 15.0 and {15.0, 20.0} <= set(run.config.eval.alphas)


def test_a_key_that_only_some_config_files_have():
    key = "compare.unlearn.ft.learning_rate"
    points = make_points([{"config": "configs/compare.py", key: 1e-3}, {"config": FT}], FT, ())
    first, second = make_plan(points, (), "sweep", "store").runs
    assert (first.keys[key], second.keys[key]) == (1e-3, "")
    assert first.config.compare.unlearn.ft.learning_rate == 1e-3
    assert "learning_rate-1e-3" in first.name and "learning_rate-none" in second.name


def test_points_whose_alpha_is_no_headline_are_told():
    assert plan("eval.alpha=15.0,20.0", "seeds=0,1").other_headlines == [3, 4]
    assert plan("seeds=0,1").other_headlines == []


def test_a_comparison_ranks_by_the_alpha_of_its_point():
    points = make_points([{"eval.alpha": alpha} for alpha in (5.0, 15.0)], "configs/compare.py", ())
    made = make_plan(points, (), "sweep", "store")
    assert [(r.config.eval.alpha, r.points) for r in made.runs] == [(5.0, (1,)), (15.0, (2,))]
    assert made.other_headlines == [] and len(set(map(family, made.runs))) == 2
    assert [r.name for r in made.runs] == ["alpha-5", "alpha-15"]
    assert [read_config(list(r.flags)) for r in made.runs] == [r.config for r in made.runs]


def test_points_that_are_no_product_are_not_made_one():
    asked = [(0, "20-28", 2), (0, "28-36", 2), (1, "20-28", 2), (1, "20-28", 4)]
    made = plan(points=[{"seeds": s, "forget.sets": f, "unlearn.epochs": e} for s, f, e in asked])
    found = [cell for run in made.runs for cell in cells(run)]
    assert sorted(found) == sorted(asked), "each once, and nothing that nobody asked for"
    assert len({run.name for run in made.runs}) == len(made.runs) == 3


def test_learning_rates_and_methods_share_a_process_and_widths_do_not():
    made = plan("unlearn.learning_rate=1e-3,0.0025", "unlearn.method=ft,rnd")
    (job,) = made.jobs
    assert [r.label for r in job.runs] == [
        "learning_rate-1e-3", "learning_rate-1e-3", "learning_rate-25e-4", "learning_rate-25e-4"]
    assert [r.name for r in job.runs][:2] == ["learning_rate-1e-3_method-ft",
                                              "learning_rate-1e-3_method-rnd"]
    made = plan("model.width=8,16", "unlearn.epochs=2,4")
    assert [[r.label for r in job.runs] for job in made.jobs] == [["width-8"], ["width-16"]]


def test_schemes_and_comparisons_are_processes_of_their_own():
    made = plan(points=[{"config": "configs/sisa.py"}, {"unlearn.learning_rate": "1e-3"},
                        {"unlearn.learning_rate": "2e-3"}])
    assert [len(job.runs) for job in made.jobs] == [1, 2]


def test_the_forget_sets_of_a_study_are_no_axis():
    points = make_points([{"forget.sets": f, "seeds": seed} for f in ("20-28", "28-36")
                          for seed in (0, 1)], "configs/thesis.py:demo", ())
    made = make_plan(points, (), "sweep", "store", jobs=4)
    assert [(r.config.forget.sets, r.config.seeds) for r in made.runs] == [
        (("20-28",), (0, 1)), (("28-36",), (0, 1))]
    (whole,) = make_plan(make_points([{"forget.sets": ("20-28", "28-36"), "seeds": 0}],
                                     "configs/thesis.py:demo", ()), (), "s", "t", jobs=2).jobs
    assert whole.runs[0].config.forget.sets == ("20-28", "28-36"), "its first set has all budgets"


def test_the_seeds_of_a_comparison_are_no_axis():
    points = make_points([{"seeds": seed, "forget.sets": f} for seed in (0, 1)
                          for f in ("20-28", "28-36")], "configs/compare.py", ())
    made = make_plan(points, (), "sweep", "store")
    assert [(r.config.forget.sets, r.config.seeds) for r in made.runs] == [
        (("20-28", "28-36"), (0,)), (("20-28", "28-36"), (1,))]


def test_runs_whose_words_are_the_same_are_numbered(tmp_path):
    made = plan("unlearn.from_seed=-1,1")
    assert [r.label for r in made.runs] == ["from_seed--1", "from_seed-1"]
    (tmp_path / "ft.py").write_text("from configs.ft import get_config as own\n"
                                    "def get_config(scale=''):\n    config = own(scale)\n"
                                    "    config.unlearn.epochs = (3,)\n    return config\n")
    made = plan(f"config={FT},{tmp_path / 'ft.py'}", "unlearn.learning_rate=1e-3,2e-3")
    assert [r.label for r in made.runs] == ["learning_rate-1e-3", "learning_rate-2e-3",
                                            "learning_rate-1e-3-2", "learning_rate-2e-3-2"]
    long = plan(points=[{"data.path": c * 300, "model.width": w} for c in "ab" for w in (2, 4)])
    assert len({r.name for r in long.runs}) == 4
    assert all(len(name) <= 84 for r in long.runs for name in (r.name, r.label))


def test_each_table_has_its_own_headline():
    made = plan(f"config={FT},{FT}:digits")
    assert [r.config.eval.alpha for r in made.runs] == [
        read_config([f"--config={FT}{scale}"]).eval.alpha for scale in ("", ":digits")]
    assert made.runs[0].config.eval.alpha > 1 > made.runs[1].config.eval.alpha


@pytest.mark.parametrize("key", ["relearn_epochs=3,9", "relearn_rate=1e-3,1e-1",
                                 "challenge_bins=13,14", "challenge_narrow=0.0,0.01"])
def test_settings_that_change_what_the_retrained_model_is_given_make_two_tables(key):
    made = plan(f"eval.{key}")
    assert [len(job.runs) for job in made.jobs] == [2], "one process: the models are the same"
    assert len(set(map(family, made.runs))) == 2
    assert len(set(map(family, plan("eval.layers=true,false").runs))) == 1


def test_alphas_can_be_swept():
    (run,) = plan("eval.alphas=5,10").runs
    assert run.config.eval.alphas == (5, 10, 15) and run.config.eval.alpha == 15


def test_a_sweep_can_be_divided_without_losing_or_doubling_a_model():
    axes = "unlearn.epochs=1,2", "forget.sets=20-28,28-36,36-44", "unlearn.learning_rate=1e-3,2e-3"
    whole = plan(*axes)
    assert len(whole.jobs) == 1
    for jobs in (2, 3, 5):
        divided = plan(*axes, jobs=jobs)
        assert len(divided.jobs) == jobs
        for rate in (1e-3, 2e-3):
            found = [c for r in divided.runs if r.config.unlearn.learning_rate == rate
                     for c in cells(r)]
            assert len(found) == len(set(found)) == 18
        for run in divided.runs:
            for number in run.points:
                (set_,) = divided.points[number - 1].config.forget.sets
                assert set_ in run.config.forget.sets
    assert len(plan(*axes, jobs=100).jobs) == 6, "seeds and budgets stay together"


def test_the_flags_of_a_run_give_its_config():
    made = plan("unlearn.learning_rate=1e-3,2e-3", "forget.sets=20-28,('28-36','gender:1')",
                "train.epochs=3,4",
                overrides=("--config.unlearn.epochs=(1,)", "--config.model.width=8"))
    for run in made.runs:
        assert read_config(list(run.flags)) == run.config
        assert run.config.unlearn.epochs == (1,) and run.config.model.width == 8


def test_impossible_values_are_refused_with_the_point():
    with pytest.raises(InputError, match="point 2 of the sweep: config.unlearn.epochs is .-1,."):
        plan("unlearn.epochs=1,-1")
    with pytest.raises(InputError, match="point 1 .*config.unlearn.method|'scrap'"):
        plan("unlearn.method=scrap")


def test_a_directory_belongs_to_one_sweep(tmp_path):
    plan("seeds=0,1", path=tmp_path / "s").write()
    plan("seeds=0,1", path=tmp_path / "s").write()  # again: goes on
    with pytest.raises(InputError,
                       match=r"another sweep \(points.2.seeds: \[1\] there, \[2\] here"):
        plan("seeds=0,2", path=tmp_path / "s").write()
    with pytest.raises(InputError, match=r"\(jobs: 1 there, 2 here"):
        plan("seeds=0,1", "forget.sets=20-28,28-36", path=tmp_path / "u").write()
        plan("seeds=0,1", "forget.sets=20-28,28-36", path=tmp_path / "u", jobs=2).write()
    (tmp_path / "s" / "plan.json").write_text("[]")
    with pytest.raises(InputError, match="plan.json is no plan"):
        plan("seeds=0,1", path=tmp_path / "s").write()
    for bad in (tmp_path / "s" / "plan.json", "/proc/x"):
        with pytest.raises(InputError, match="cannot be used"):
            plan("seeds=0,1", path=bad).write()
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds no sweep"):
        plan("seeds=0,1", path=tmp_path / "t").write()


@pytest.mark.parametrize("left", [".tmp-plan.json-0123456789ab.ffffffff", ".plan.json.123",
                                  "logs", "plan.json"])
@pytest.mark.parametrize("text", ["", '{\n "sweep"', "\0" * 100])
def test_a_kill_before_the_plan_was_whole_blocks_nothing(tmp_path, left, text):
    (tmp_path / "logs").mkdir()
    if left != "logs":
        (tmp_path / left).write_text(text)
    content = {"sweep": 1}
    for _ in range(2):
        take(tmp_path, "plan.json", content)
    assert json.loads((tmp_path / "plan.json").read_text()) == content


@pytest.mark.parametrize("name, words", [("plan.json", "is no plan"), ("notes", "not empty"),
                                         ("logs/mine", "not empty")])
def test_what_is_of_no_sweep_is_left_alone(tmp_path, name, words):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=words):
        take(tmp_path, "plan.json", {"sweep": 1})
    assert (tmp_path / name).read_text() == "mine"


def test_results_of_changed_code_are_not_mixed(tmp_path):
    file = tmp_path / "own.py"
    text = ("from unlearn_jax.methods import METHODS\n"
            "METHOD = METHODS['ft']\n")
    for more in ("", "# changed\n"):
        file.write_text(text + more)
        again = plan("seeds=0,1", points=(), overrides=[f"--config.unlearn.method={file}:METHOD"],
                     path=tmp_path / "s")
        if not more:
            again.write()
    with pytest.raises(InputError, match="another sweep .*code"):
        again.write()


def test_only_a_complete_run_of_the_same_config_is_finished(tmp_path):
    made = plan("unlearn.learning_rate=1e-3,2e-3", path=tmp_path)
    (job,) = made.jobs
    first, second = job.runs
    directory = made.workdir(first)
    directory.mkdir(parents=True)
    record = {"finished": True, "config": json.loads(json.dumps(first.config.to_dict()))}
    (directory / "run.json").write_text(json.dumps(record))
    assert not made.finished(first), "no report"
    (directory / "report.html").write_text("")
    assert made.finished(first)
    assert [job.runs for job in made.unfinished()] == [(second,)]
    manifest.write(directory)  # killed before the report was whole
    assert not made.finished(first)
    manifest.end_report(directory)
    assert made.finished(first)
    for damage in (b"", b"\xff", b"[]"):
        (directory / "manifest.json").write_bytes(damage)
        assert not made.finished(first)
    manifest.remove(directory)
    for damage in (b"", b"\xff", b"[]", b"{}"):
        (directory / "run.json").write_bytes(damage)
        assert not made.finished(first)
    (directory / "run.json").write_text(json.dumps({**record, "finished": False}))
    assert not made.finished(first)
    record["config"]["train"]["epochs"] = 99
    (directory / "run.json").write_text(json.dumps(record))
    assert not made.finished(first)
