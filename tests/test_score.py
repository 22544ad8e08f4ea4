"""Predictions of any framework, scored: folders made with NumPy.

The equality with a run's own results.csv stands in test_score_runs.py.
"""

import csv
import json

import numpy as np
import pytest

from unlearn_jax.report.render import markdown
from unlearn_jax.report.sections.page import build
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.score.__main__ import main

SPLITS = {"test": 40, "forget": 30, "retain": 60}


def write_folder(path, task="classification", seeds=(0, 1, 2), models=(("original", 0),
                 ("ft", 2), ("retrain", 12)), splits=("test", "forget", "retain"), member=True,
                 forget_set="mine"):
    """Files as a stranger writes them; the models of a forget set know less and less of D_f."""
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    for split in splits:
        n = SPLITS[split]
        labels = rng.integers(0, 3, n) if task == "classification" else rng.uniform(20, 60, n)
        ids = np.array([f"{split}-{i}" for i in range(n)])
        seen = {"test": 0, "forget": 1, "retain": 1}[split]
        for k, (method, epochs) in enumerate(models):
            if task == "classification":
                outputs = rng.normal(0, 1, (len(seeds), n, 3)) + (3 - k) * np.eye(3)[labels]
            else:
                outputs = labels + rng.normal(0, 2 + k, (len(seeds), n))
            arrays = {"outputs": outputs.astype(np.float32), "labels": labels, "ids": ids,
                      "seeds": np.array(seeds)}
            if member:
                arrays["member"] = np.full(n, seen if method != "retrain" or split != "forget"
                                           else 0)
            np.savez(path / f"{method}.{forget_set}.{epochs}.{split}.npz", **arrays)
    return path


def change(path, **changes):
    with np.load(path) as file:
        arrays = {k: file[k] for k in file.files}
    arrays.update(changes)
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


def rows(out):
    with open(out / "results.csv", newline="") as file:
        return {(r["method"], r["forget_set"], int(r["epochs"]), int(r["seed"]), r["metric"]):
                float(r["value"]) for r in csv.DictReader(file)}


def report(out):
    return markdown.render(build(read_run(out)))


def fails(capsys, folder, *flags):
    out = folder.parent / "out"
    assert main([str(folder), f"--out={out}", *flags]) == 2
    assert not out.exists()
    said = capsys.readouterr().err
    assert said.startswith("error: ") and len(said.splitlines()) == 2, said
    return said


@pytest.fixture
def no_report(monkeypatch):
    """Figures take ten times as long as scores."""
    monkeypatch.setattr("unlearn_jax.report.write_report", lambda workdir, bar: read_run(workdir))


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_folder_of_files_becomes_a_work_directory(tmp_path, capsys, task):
    folder, out = write_folder(tmp_path / "in", task), tmp_path / "out"
    assert main([str(folder), f"--out={out}"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("scored 9 files of 3 models as " + task) and len(said) <= 13
    assert any(": undecided." in line or "forgotten." in line for line in said)
    assert said[-2].endswith("report.html") and "Models" not in said[-1]
    for name in ("results.csv", "summary.csv", "report.md", "report.html", "manifest.json"):
        assert (out / name).stat().st_size
    found = rows(out)
    with np.load(folder / "ft.mine.2.test.npz") as file:
        outputs, labels = file["outputs"], file["labels"]
    if task == "classification":
        expected = (outputs.argmax(-1) == labels).mean(1)
        assert found["ft", "mine", 2, 1, "accuracy_test"] == pytest.approx(expected[1])
    else:
        expected = np.abs(outputs - labels).mean(1)
        assert found["ft", "mine", 2, 1, "mae_test"] == pytest.approx(expected[1], rel=1e-5)
    metrics = {key[-1].partition("@")[0] for key in found}
    assert {"utility", "forgetting", "forgetting_across", "ceiling", "F", "mia_auc", "w1_forget",
            "population:challenge_quality"} <= metrics
    assert not metrics & {"images", "wall_seconds", "flops", "steps", "epochs_trained",
                          "images_vs_retrain"}
    assert not any(np.isnan(value) for value in found.values())
    assert "no times, images, FLOPs and steps" in report(out)


def test_npy_and_csv_say_the_same_as_npz(tmp_path, no_report):
    first = write_folder(tmp_path / "npz", splits=("test", "forget"), member=False)
    arrays, table = tmp_path / "npy", tmp_path / "csv"
    arrays.mkdir(), table.mkdir()
    for path in first.iterdir():
        with np.load(path) as file:
            found = {k: file[k] for k in file.files}
        np.save(arrays / f"{path.stem}.npy", found["outputs"])
        method, name, _, split = path.stem.split(".")
        with open(arrays / f"samples.{name}.{split}.csv", "w") as file:
            file.write("id,label\n" + "".join(f"{i},{y}\n" for i, y in
                                              zip(found["ids"], found["labels"])))
        with open(table / f"{path.stem}.csv", "w") as file:
            file.write("seed,id,label,logit_0,logit_1,logit_2\n")
            for m, seed in enumerate(found["seeds"]):
                for n, (i, y) in enumerate(zip(found["ids"], found["labels"])):
                    logits = ",".join(repr(float(v)) for v in found["outputs"][m, n])
                    file.write(f"{seed},{i},{y},{logits}\n")
    outs = []
    for folder in (first, arrays, table):
        outs.append(tmp_path / f"out-{folder.name}")
        assert main([str(folder), f"--out={outs[-1]}", "--audits=mia"]) == 0
    one, *others = (rows(out) for out in outs)
    assert len(one) > 50 and all(other == one for other in others)


def test_without_m_r_the_rest_is_measured_and_the_report_says_what_is_missing(tmp_path):
    folder, out = write_folder(tmp_path / "in", models=(("original", 0), ("ft", 2))), tmp_path / "o"
    assert main([str(folder), f"--out={out}"]) == 0
    metrics = {key[-1] for key in rows(out)}
    assert {"accuracy_test", "accuracy_forget", "mia_auc"} <= metrics
    assert not any(m.startswith(("forgetting", "F@", "ceiling")) for m in metrics)
    assert "utility" not in metrics and {"utility_vs_original", "change_forget"} <= metrics
    text = report(out)
    assert "Predictions of M_R are missing" in text
    assert "There are no predictions of M_R, so it is not known" in text
    assert "M_FT, 2 epochs cannot be judged without M_R" in text
    assert "there is no M_R (method 'retrain'), so there are no Forgetting" in text
    assert "it compares with M_R, and there is none" in text  # of each audit


def test_without_m_o_retain_or_a_second_seed_the_report_says_so(tmp_path):
    folder, out = write_folder(tmp_path / "in", models=(("ft", 2), ("retrain", 9)), seeds=(4,),
                               splits=("test", "forget"), member=False), tmp_path / "out"
    assert main([str(folder), f"--out={out}"]) == 0
    text = report(out)
    for words in ("there is no M_O", "no predictions on 'retain'", "there is one seed",
                  "no file has the array 'member'", "size of the training set is not known",
                  "no file has the array 'peers'"):
        assert words in text, words
    assert not any(key[0] == "median" for key in rows(out))


def test_attacks_judge_what_member_and_peers_name(tmp_path, no_report):
    folder, outs = write_folder(tmp_path / "in"), [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    seeds = np.ones((3, 30), int)
    seeds[1, 20:] = 2  # of seed 1 the last ten only chose the weights: no seed is judged by them
    change(folder / "original.mine.0.forget.npz", member=seeds)
    change(folder / "original.mine.0.test.npz", peers=np.arange(25))
    assert main([str(folder), f"--out={outs[0]}", "--audits=mia"]) == 0
    assert "10 samples of D_f were trained on in some seeds alone" in report(outs[0])
    change(folder / "original.mine.0.forget.npz", member=np.repeat([1, 2], [20, 10]))
    assert main([str(folder), f"--out={outs[1]}", "--audits=mia"]) == 0
    change(folder / "original.mine.0.forget.npz", member=np.ones(30, int))
    assert main([str(folder), f"--out={outs[2]}", "--audits=mia"]) == 0
    one, two, three = ({k: v for k, v in rows(out).items() if k[-1].startswith("mia")}
                       for out in outs)
    assert one and one == two and one != three
    from unlearn_jax.metrics import attacks, confidence

    losses = {}
    for split, n in (("forget", 20), ("test", 25)):
        with np.load(folder / f"ft.mine.2.{split}.npz") as file:
            losses[split] = np.asarray(confidence.cross_entropies(
                file["outputs"][:, :n], file["labels"][:n].astype(np.int32)))
    by_hand = attacks.mia(losses["forget"], losses["test"], seed=0).threshold.auc
    assert [one["ft", "mine", 2, s, "mia_auc"] for s in (0, 1, 2)] == by_hand.tolist()


def test_a_failed_member_is_left_out_and_named(tmp_path, no_report):
    folder, out = write_folder(tmp_path / "in"), tmp_path / "out"
    for path in folder.glob("ft.*"):
        with np.load(path) as file:
            outputs = file["outputs"]
        outputs[1] = np.nan
        change(path, outputs=outputs)
    assert main([str(folder), f"--out={out}"]) == 0
    assert "all outputs of seed 1 are nan" in report(out)
    assert np.isnan(rows(out)["ft", "mine", 2, 1, "accuracy_test"])


def test_seeds_may_stand_in_another_order(tmp_path, no_report):
    folder = write_folder(tmp_path / "in")
    assert main([str(folder), f"--out={tmp_path / 'a'}", "--audits=mia"]) == 0
    for path in folder.glob("ft.*"):
        with np.load(path) as file:
            change(path, outputs=file["outputs"][::-1], seeds=file["seeds"][::-1])
    assert main([str(folder), f"--out={tmp_path / 'b'}", "--audits=mia"]) == 0
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


FT = "ft.mine.2.test.npz"


def test_logits_may_have_that_name(tmp_path, no_report):
    folder = write_folder(tmp_path / "in", splits=("test", "forget"))
    assert main([str(folder), f"--out={tmp_path / 'a'}", "--audits=mia"]) == 0
    with np.load(folder / FT) as file:
        change(folder / FT, outputs=None, logits=file["outputs"])
    assert main([str(folder), f"--out={tmp_path / 'b'}", "--audits=mia"]) == 0
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


@pytest.mark.parametrize("name, changes, words", [
    (FT, {"labels": None}, "the array 'labels' is missing"),
    (FT, {"seeds": None}, "the array 'seeds' is missing"),
    (FT, {"labels": np.zeros(39, int)}, "'labels' has shape [39]"),
    (FT, {"outputs": np.zeros((3, 40))}, "'outputs' has shape [3, 40]"),
    (FT, {"labels": np.full(40, 3)}, "there are 3 logits"),
    (FT, {"labels": np.full(40, 0.5)}, "allowed: whole numbers from 0 to 2"),
    (FT, {"ids": np.array(["a"] * 40)}, "'a' more than once"),
    (FT, {"ids": np.array([{}] * 40)}, "Python objects"),
    (FT, {"outputs": np.where(np.arange(3) == 1, np.nan, np.zeros((3, 40, 3)))},
     "outputs of seed 0 hold nan"),
    (FT, {"outputs": np.full((3, 40, 3), np.inf)}, "outputs of seed 0 hold inf"),
    (FT, {"outputs": np.full((3, 40, 3), np.nan)}, "all outputs of seed 0 are nan"),
    (FT, {"seeds": np.array([0, 1, 5])}, "the same seeds in all files"),
    (FT, {"seeds": np.array([0, 1, 1])}, "each once"),
    (FT, {"labels": np.zeros(40, int)}, "have other labels"),
    (FT, {"from_seed": np.array(7)}, "one of the seeds [0, 1, 2]"),
    (FT, {"member": np.full(40, 3)}, "1 (trained on), 2 (validation), 0 (unseen)"),
    (FT, {"peers": np.array([40])}, "no list of places in the 40 samples"),
    ("original.mine.0.forget.npz", {"member": np.zeros(30, int)}, "names no sample of D_f"),
    ("original.mine.0.test.npz", {"member": np.ones(40, int)}, "names no test sample"),
])
def test_wrong_arrays_are_refused_before_anything_is_written(tmp_path, capsys, name, changes,
                                                             words):
    folder = write_folder(tmp_path / "in")
    change(folder / name, **changes)
    said = fails(capsys, folder)
    assert words in said and name in said, said


def test_other_samples_other_names_and_half_a_set_are_refused(tmp_path, capsys):
    folder = write_folder(tmp_path / "in")
    small = write_folder(tmp_path / "small", splits=("test",))
    path = folder / FT
    content = path.read_bytes()
    with np.load(path) as file:
        change(path, outputs=file["outputs"][:, :39], labels=file["labels"][:39],
               ids=file["ids"][:39], member=None)
    assert "ft.mine.2.test.npz has 39 samples, original" in fails(capsys, folder)
    path.write_bytes(content)
    path.rename(folder / "ft.mine.2.tset.npz")
    assert "of the split 'tset'\nallowed: test, forget" in fails(capsys, folder)
    (folder / "ft.mine.2.tset.npz").rename(folder / "ft-mine-2-test.npz")
    assert "is not named METHOD.FORGETSET.BUDGET.SPLIT" in fails(capsys, folder)
    (folder / "ft-mine-2-test.npz").unlink()
    assert "no file of the same model on the split 'test'" in fails(capsys, folder)
    path.write_bytes(content[:200])
    assert "cannot be read" in fails(capsys, folder)
    path.write_bytes(content)
    for split in SPLITS:
        (folder / f"retrain.mine.12.{split}.npz").rename(folder / f"retrained.mine.12.{split}.npz")
    assert "M_O is called 'original' and M_R 'retrain'" in fails(capsys, folder)
    for split in SPLITS:
        (folder / f"retrained.mine.12.{split}.npz").rename(folder / f"median.mine.12.{split}.npz")
    assert "of the method 'median'" in fails(capsys, folder)
    assert "the split 'forget'" in fails(capsys, small)


def test_wrong_calls_are_refused(tmp_path, capsys):
    folder = write_folder(tmp_path / "in")
    (tmp_path / "empty").mkdir()
    assert "is no folder of predictions" in fails(capsys, tmp_path / "none")
    assert "has no file of predictions" in fails(capsys, tmp_path / "empty")
    assert "'outputs' has shape" in fails(capsys, folder, "--task=regression")
    assert "'x' is no number" in fails(capsys, folder, "--alphas=2,x")
    assert "allowed: one of these" in fails(capsys, folder, "--alpha=3")
    assert "allowed: mia, lira" in fails(capsys, folder, "--audits=mai")
    assert "3 different names" in fails(capsys, folder, "--classes=a,b")
    assert main([str(folder), f"--out={folder}"]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert main([str(folder)]) == 2 and "--out" in capsys.readouterr().err


def test_a_model_of_several_forget_sets_and_the_records(tmp_path, no_report):
    folder = write_folder(tmp_path / "in")
    write_folder(folder, forget_set="class-1.b")
    out = tmp_path / "out"
    assert main([str(folder), f"--out={out}", "--classes=cat,dog,owl", "--audits=mia"]) == 0
    data = json.loads((out / "data.json").read_text())
    assert data["class_names"] == ["cat", "dog", "owl"]
    assert data["forget_sets"]["class-1.b"]["train"] == 30
    assert data["counts"] == {"train": 90, "validation": 0, "test": 40}
    assert {key[1] for key in rows(out)} == {"mine", "class-1.b"}
