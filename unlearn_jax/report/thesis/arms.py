"""Which runs repeat the reference study, and by which arms."""

from unlearn_jax.report.tables.inputs import Run
from unlearn_jax.report.thesis.published import SETS

# The settings of each arm, as configs/thesis.py has them. All arms share `unlearn.offset`.
ARMS = {
    "ft": {"method": "ft"},
    "rnd": {"method": "rnd", "labels": "uniform", "label_units": "years"},
    "rnd_offset": {"method": "rnd", "labels": "offset", "label_units": "years"},
    "rnd_units": {"method": "rnd", "labels": "offset", "label_units": "as_published"},
}
OFFSET = [3, 6]  # years


def is_study(run: Run) -> bool:
    """Whether a run repeats the study.

    It does if it is a regression with one of the study's forget sets, and if it has fine-tuning
    and random labels as arms and no other arms, each with the study's settings. Sizes, epochs and
    learning rates may differ, as they do in the smaller scales of configs/thesis.py.
    """
    own = [name for name in run.forget_sets if name in SETS]
    ranges = [tuple(map(float, name.split("-"))) for name in SETS]
    return (not run.classification and run.unit == "years"
            and bool(own) and all(run.forget_range(name) in ranges for name in own)
            and "ft" in run.arms and bool(random_arms(run))
            and all(_as_in_study(run, arm) for arm in run.arms))


def _as_in_study(run: Run, arm: str) -> bool:
    if arm not in ARMS or run.run["config"]["thesis"].get("unlearn", {}).get(arm) != ARMS[arm]:
        return False
    return ARMS[arm].get("labels") != "offset" or run.arm_setting(arm).get("offset") == OFFSET


def random_arms(run: Run) -> tuple[str, ...]:
    """The arms that train on random labels for D_f."""
    return tuple(a for a in run.arms if run.arm_setting(a)["method"] == "rnd")


def study_model(run: Run, method: str) -> str:
    """The study's name of an arm. Its M_RND is the arm with offsets, with the error or without."""
    if method in random_arms(run):
        return "rnd" if run.arm_setting(method)["labels"] == "offset" else ""
    return method
