"""The leaderboard's rows without a rank, its first method, budget and attack, by hand."""

import csv

import numpy as np
import pandas as pd
import pytest
from fake_workdir import write_comparison
from test_report_leaderboard import row, set_values

from unlearn_jax.config import check_config, default_config
from unlearn_jax.errors import ConfigError
from unlearn_jax.report.output import Output
from unlearn_jax.report.render import markdown
from unlearn_jax.report.sections import board_words, leaderboard_latex
from unlearn_jax.report.sections.page import build
from unlearn_jax.report.tables import baselines, leaderboard
from unlearn_jax.report.tables.files import write_table
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.report.tables.predictions import Prediction
from unlearn_jax.report.tables.stats import estimate, estimate_pairs, holm, paired_p

SET = "20-28"
AGES = np.array([20.0, 24.0, 28.0])


def prediction(outputs, labels=AGES):
    outputs = np.asarray(outputs, float)
    return Prediction(outputs, labels, np.array([str(i) for i in range(len(labels))]),
                      np.arange(len(outputs)))


def test_the_best_constant_of_ages():
    # A constant of 34 errs by 14, 10 and 6, exactly as this M_R does.
    reference = prediction([AGES + [14, -10, 6], AGES + [-14, 10, 6]])
    found = baselines.best_constant(prediction([AGES, AGES]), reference, 15.0)
    np.testing.assert_allclose(found.outputs, 34, atol=0.05)
    assert baselines.forgetting(found, reference, 15.0) == pytest.approx([1, 1], abs=0.01)


def test_the_best_constant_of_classes():
    labels = np.array([2, 2, 2])
    # M_R gives class 2 the probability 0.1
    logits = np.log([[[0.45, 0.45, 0.1]] * 3])
    found = baselines.best_constant(prediction(logits, labels), prediction(logits, labels), 0.25)
    # p is at least 1 / 3, so that class 2 stays the answer
    assert found.errors == pytest.approx(np.full((1, 3), 2 / 3), abs=1e-6)
    sure = np.log([[[0.1, 0.1, 0.8]] * 3])
    found = baselines.best_constant(prediction(sure, labels), prediction(sure, labels), 0.25)
    assert found.errors == pytest.approx(np.full((1, 3), 0.2), abs=0.004)


def test_the_original_is_shifted_to_the_error_of_the_retrained():
    before = prediction([AGES + 1, AGES - 2, [np.nan] * 3])
    reference = prediction([AGES + [7, 7, 7], AGES - [1, 5, 9], AGES])
    found = baselines.shifted_original(before, reference, 15.0)
    assert found.errors[:2].mean(1) == pytest.approx([7, 5])
    assert np.isnan(found.outputs[2]).all()
    # one shift for all samples of a seed
    moved = found.outputs[:2] - before.outputs[:2]
    np.testing.assert_allclose(moved, np.broadcast_to(moved[:, :1], moved.shape))


def test_where_no_shift_is_enough_the_error_is_the_least_one():
    before = prediction([AGES + [-6, 0, 6]])
    found = baselines.shifted_original(before, prediction([AGES + 1]), 15.0)
    np.testing.assert_allclose(found.outputs, before.outputs, atol=1e-6)


def test_of_classes_the_true_logit_is_shifted():
    labels = np.array([0, 1, 1])
    rng = np.random.default_rng(0)
    before = prediction(3 * np.eye(3)[labels][None] + rng.normal(0, 0.3, (2, 3, 3)), labels)
    reference = prediction(rng.normal(0, 1, (2, 3, 3)), labels)
    found = baselines.shifted_original(before, reference, 0.25)
    assert found.errors.mean(1) == pytest.approx(reference.errors.mean(1))
    change = found.outputs - before.outputs
    others = np.delete(change[:, 0], 0, axis=-1)
    assert np.all(others == 0) and np.all(change[:, 0, 0] < 0)


def test_auc_by_hand():
    assert baselines.auc(np.array([1.0, 2.0]), np.array([2.0, 3.0])) == (1 + 1 + 0.5 + 1) / 4
    assert np.isnan(baselines.auc(np.array([np.nan, 2.0]), np.array([2.0])))


def test_losses_of_classes_are_cross_entropies():
    found = prediction(np.log([[[0.2, 0.8], [0.5, 0.5]]]), np.array([1, 0]))
    assert found.losses == pytest.approx(-np.log([[0.8, 0.5]]))


def add(path, split, **arrays):
    """Adds arrays to all files of predictions of a split."""
    for file in path.glob(f"predictions/*.{split}.npz"):
        with np.load(file) as found:
            np.savez(file, **{**found, **arrays})


def test_both_answers_are_measured_like_models(tmp_path):
    path = write_comparison(tmp_path, samples=20)
    member = np.arange(20) < 15
    add(path, "forget", member=member.astype(np.int8))
    add(path, "test", peers=np.arange(3, 12))
    run = baselines.with_baselines(read_run(path))
    original = run.reference(SET, "original")
    before, test = (run.prediction(original, SET, s) for s in ("forget", "test"))
    reference = run.prediction(run.reference(SET, "retrain"), SET, "forget")
    for name in (baselines.CONSTANT, baselines.SHIFTED):
        model = leaderboard.model(run, name, SET)
        own = {m: run.values(model, SET, m).to_numpy() for m in (
            "mae_forget", "forgetting@15", "F@15", "utility", "mae_test", "mia_auc")}
        utility = run.values(original, SET, "utility").to_numpy()
        np.testing.assert_array_equal(own["utility"], utility)
        np.testing.assert_allclose(own["F@15"], utility * own["forgetting@15"])
        assert (own["forgetting@15"] > 0.5).all()
    np.testing.assert_allclose(own["mae_forget"], reference.errors.mean(1))  # shifted: the last
    answers = baselines.shifted_original(before, reference, 15.0)
    for m in range(3):
        mine, others = answers.errors[m, member], test.errors[m, 3:12]
        pairs = (mine[:, None] < others).mean()
        assert own["mia_auc"][m] == pytest.approx(pairs)
    # no run without predictions of the samples that the attack compares
    plain = baselines.with_baselines(read_run(write_comparison(tmp_path / "b", samples=5)))
    assert not len(plain.values(leaderboard.model(plain, baselines.CONSTANT, SET), SET, "mia_auc"))


FORGETTING = {"ft": (0.80, 0.81, 0.82), "rnd": (0.60, 0.62, 0.61), "scrub": (0.79, 0.82, 0.80),
              "retrain_short": (0.70, 0.70, 0.73)}


@pytest.fixture
def path(tmp_path):
    made = write_comparison(tmp_path, methods=("ft", "rnd", "scrub"), samples=20, short=True)
    set_values(made, {(m, SET, "forgetting@15"): v for m, v in FORGETTING.items()})
    return made


def near(found, wanted):
    """Asserts that two estimates are equal up to rounding."""
    assert (found.n, found.mean, found.low, found.high) == pytest.approx(
        (wanted.n, wanted.mean, wanted.low, wanted.high))


def words(path):
    run = read_run(path)
    return board_words.first(run, leaderboard.boards(run)[0])


def test_the_best_method_is_tested_against_each_other(path):
    (board,) = leaderboard.boards(read_run(path))
    scrub, rnd = (row((board,), SET, m) for m in ("scrub", "rnd"))
    # two other methods
    assert scrub.p_first == pytest.approx(min(1, 2 * paired_p([0.01, -0.01, 0.02])))
    assert rnd.p_first == pytest.approx(2 * paired_p([0.20, 0.19, 0.21]))
    assert np.isnan(row((board,), SET, "ft").p_first)
    said = words(path)
    assert "On 20-28 ft comes first: it has the highest Forgetting@15" in said
    assert said.count("\n") == 0 and (
        "not established: scrub is not shown to be worse (paired t-tests over 3 seeds at 5 %, "
        "corrected for the 3 methods" in said)
    set_values(path, {("scrub", SET, "forgetting@15"): (0.70, 0.715, 0.72)})
    assert "That it is better than each other method is established" in words(path)


def test_the_best_is_the_best_of_those_within_the_tolerance(path):
    text = (path / "trials.csv").read_text()
    beyond = text.replace(",6.5,True,", ",5.5,False,")

    def only(*methods):
        lines = zip(text.splitlines(keepends=True), beyond.splitlines(keepends=True))
        (path / "trials.csv").write_text("".join(a if a.startswith(methods) else b
                                                 for a, b in lines))
        return words(path)

    said = only("method", "rnd", "scrub")  # ft has the highest value
    assert "scrub comes first: it has the highest Forgetting@15 of the methods that kept" in said
    assert "is established" in said and "ft" not in said
    assert "No other method kept within the tolerance." in only("method", "rnd")
    said = only("method")
    assert "ft comes first: it has the highest Forgetting@15, 0.810. No method kept" in said


def test_equal_methods_a_single_one_and_no_values(tmp_path):
    path = write_comparison(tmp_path / "a", samples=10)
    set_values(path, {(m, SET, "forgetting@15"): (0.5, 0.6, 0.7) for m in ("ft", "rnd")})
    assert "ft and rnd share the first place by Forgetting@15 (0.600)" in words(path)
    set_values(path, {(m, SET, "forgetting@15"): ("nan",) * 3 for m in ("ft", "rnd")})
    assert "no method has a value" in words(path)
    path = write_comparison(tmp_path / "b", samples=10, methods=("ft",))
    assert "ft is the only method" in words(path)


def test_methods_are_held_to_short_retraining(path):
    run = read_run(path)
    (board,) = leaderboard.boards(run)
    assert [r.method for r in board.rows][4:] == [
        "retrain_short", "shifted_original", "best_constant", "original"]
    assert board.row("retrain_short").rank is None
    differences = {m: np.subtract(FORGETTING[m], FORGETTING["retrain_short"])
                   for m in ("ft", "rnd", "scrub")}
    corrected = dict(zip(differences, holm([paired_p(d) for d in differences.values()])))
    for method, by_seed in differences.items():
        mine = board.row(method)
        assert mine.p_short == pytest.approx(corrected[method])
        near(mine.short, estimate(by_seed))
        assert board.beats_short(mine) == (corrected[method] < 0.05 and by_seed.mean() > 0)
    assert board.beats_short(board.row("ft")) and not board.beats_short(board.row("rnd"))
    (text,) = board_words.on_short(run, board)
    assert "reaches a Forgetting@15 of 0.710" in text.text
    assert "Better than it: ft" in text.text and "Worse than it: rnd." in text.text
    page = markdown.render(build(run))
    assert "M_SHORT was trained like M_R, for 2 epochs" in page
    assert "short retraining M_SHORT" in page and "M_O, shifted" in page


def test_without_short_retraining_nothing_is_said_of_it(tmp_path):
    run = read_run(write_comparison(tmp_path, samples=10))
    (board,) = leaderboard.boards(run)
    assert not board.row("retrain_short") and not board_words.on_short(run, board)
    assert not [c for c in leaderboard.table(run, (board,)) if "short" in c]


def test_new_columns_of_the_file(path):
    text = (path / "results.csv").read_text()
    changed = text.replace("images_vs_retrain,0.16666666666666666", "images_vs_retrain,0.2625", 3)
    assert changed != text
    (path / "results.csv").write_text(changed)  # of ft: exactly 5 % above the budget
    set_values(path, {("rnd", SET, "images_vs_retrain"): (0.26, 0.26, 0.28)})
    run = read_run(path)
    found = leaderboard.boards(run)
    write_table(path / "leaderboard.csv", leaderboard.table(run, found))
    with (path / "leaderboard.csv").open() as file:
        rows = {r["method"]: r for r in csv.DictReader(file)}
    assert {m: r["over_budget"] for m, r in rows.items() if r["rank"]} == {
        "ft": "False", "rnd": "True", "scrub": "False"}
    assert float(rows["rnd"]["spent"]) == pytest.approx(0.8 / 3)
    assert rows["rnd"]["budget"] == "0.25" and rows["original"]["budget"] == ""
    assert rows["ft"]["beats_retrain_short"] == "True" and rows["original"][
        "beats_retrain_short"] == ""
    assert {r["verdict"] for m, r in rows.items() if m != "retrain"} <= {
        "forgotten", "not forgotten", "damaged", "undecided"} and rows["retrain"]["verdict"] == ""
    text = markdown.render(build(run))
    table = text[text.index("| rank | method |"):]
    assert table.startswith("| rank | method | Forgetting@15 | verdict | images (% of M_R) | "
                            "budget (% of M_R) | epochs |")
    assert "| 25, over |" in table and "| 25 |" in table
    assert r"$^\dagger$" in leaderboard_latex.render(run, found)


ATTACK = {"original": (0.80, 0.82, 0.84), "retrain": (0.50, 0.52, 0.48), "ft": (0.55, 0.55, 0.55),
          "rnd": (0.30, 0.33, 0.31), "scrub": (0.52, 0.53, 0.49)}


def test_ranks_by_the_attack(tmp_path):
    path = write_comparison(tmp_path, methods=("ft", "rnd", "scrub"), samples=10, rank_by="attack")
    table = pd.read_csv(path / "results.csv", keep_default_na=False, dtype=str)
    budgets = {"original": "0", "retrain": "12"}
    rows = [{"method": m, "forget_set": SET, "epochs": budgets.get(m, "2"),
             "seed": str(s), "metric": "mia_auc", "value": str(v), "stage": ""}
            for m, values in ATTACK.items() for s, v in enumerate(values)]
    # of the second attack scrub has the larger distance in one seed
    rows += [{**r, "metric": "mia_logistic_auc", "value": "0.9" if (r["method"], r["seed"]) == (
        "scrub", "0") else "0.5"} for r in rows if r["method"] in ("retrain", "scrub")]
    pd.concat([table, pd.DataFrame(rows)]).to_csv(path / "results.csv", index=False)
    run = read_run(path)
    (board,) = leaderboard.boards(run)
    assert (board.ranked, board.sign) == ("attack_gap", -1)
    assert [(r.method, r.rank) for r in board.contenders] == [("ft", 1), ("scrub", 2), ("rnd", 3)]
    near(board.row("ft").values["attack_gap"], estimate([0.05, 0.03, 0.07]))
    assert board.row("scrub").values["attack_gap"].mean == pytest.approx((0.4 + 0.01 + 0.01) / 3)
    # M_R against the M_Rs of the other seeds: 0.02 and 0.02; 0.02 and 0.04; 0.02 and 0.04
    near(board.row("retrain").values["attack_gap"], estimate_pairs([0.02, 0.03, 0.03]))
    assert board.row("ft").gain.mean > 0  # nearer to M_R than M_O is
    assert board.row("ft").mean_rank == pytest.approx((1 + 2 + 2) / 3)
    said = words(path)
    assert "the lowest attack, from M_R" in said
    assert "no method lies above M_O, untouched" in markdown.render(build(run))
    assert leaderboard.metrics(run)[0].name == "attack_gap"


def test_the_attack_must_be_run_to_rank_by_it():
    config = default_config()
    with config.unlocked():
        config.compare.methods = ("ft",)
        config.compare.rank_by = "attack"
        config.compare.trials = 1
    check_config(config)
    with config.unlocked():
        config.eval.audits = ("distances",)
    with pytest.raises(ConfigError, match="compare.rank_by is 'attack'.*lacks 'mia'"):
        check_config(config)


def test_the_worst_word_of_all_sets_stands_for_them(tmp_path, monkeypatch):
    sets = (SET, "random-0.02")
    run = read_run(write_comparison(tmp_path, sets=sets, samples=10))
    words_of = {SET: "forgotten", sets[1]: "undecided"}
    monkeypatch.setattr(leaderboard, "judge", lambda run, name, model: type(
        "J", (), {"word": words_of[name]}))
    boards = leaderboard.boards(run)
    assert [row(boards, b.name, "ft").verdict for b in boards] == [
        "undecided", "forgotten", "undecided"]
    assert build(run, Output()).sections[0].title == "Leaderboard"
