"""The host's record of a population in training: stopped and failed members, the history."""

from typing import Any

import numpy as np
from absl import logging

from unlearn_jax.engine.recipe import Recipe
from unlearn_jax.members import Member
from unlearn_jax.optim import rate_at

_COLUMNS = ("images", "steps", "done", "failed", "last_loss")


class History:
    """What M members have trained so far.

    Attributes:
      epoch: epochs that the population has been through.
      seconds: wall seconds of these epochs, without compilation.
      total_steps: `[M]` steps of the whole run, at least one.
      images: `[M]` samples trained on.
      steps: `[M]` steps taken.
      done: `[M]` bool, stopped early or failed.
      failed: `[M]` bool.
      last_loss: `[M]` validation loss of the last epoch that the member ran; NaN before the first.
      rows: `Trained.history`.
    """

    def __init__(self, recipe: Recipe, members: list[Member]):
        self.recipe, self.members = recipe, members
        self.total_steps = np.array([max(recipe.all_steps(m), 1) for m in members])
        count = len(members)
        self.epoch, self.seconds = 0, 0.0
        self.images, self.steps = np.zeros(count, int), np.zeros(count, int)
        self.done, self.failed = np.zeros(count, bool), np.zeros(count, bool)
        self.last_loss = np.full(count, np.nan)
        self.rows: list[dict[str, Any]] = []

    def record(self, rows: dict[int, tuple[dict[str, Any], int]]) -> None:
        """Enters an epoch of some members; its number, counted from one, is `self.epoch`.

        Args:
          rows: for each member its summary from `train.end_epoch` and how many samples it saw.
        """
        for m, (row, _) in rows.items():
            self.done[m], self.steps[m] = row["done"], row["steps"]
        # Arrays of all members, running or not: one shape needs one compilation.
        factors = np.asarray(rate_at(self.recipe.settings, self.steps / self.total_steps))
        for m in sorted(rows):
            peak = np.float32(self.recipe.learning_rate(self.members[m]))
            self._enter(m, *rows[m], float(peak * factors[m]))

    def _enter(self, m: int, row: dict[str, Any], walked: int, rate: float) -> None:
        member = self.members[m]
        if row["failed_step"] >= 0 and not self.failed[m]:
            self.failed[m] = True
            logging.warning(
                "%s: %s met a loss or a parameter that is not finite at step %d (epoch %d). "
                "It is frozen there and reported as nan; the other members go on. A lower "
                "learning rate may help.", self.recipe.name, member,
                row["failed_step"], self.epoch)
        if not row["running"]:
            return
        self.images[m] += walked
        self.last_loss[m] = row["validation_loss"]
        self.rows.append({
            "forget_set": member.forget_set, "seed": member.seed, "epoch": row["epoch"],
            "steps": row["steps"], "train_loss": row["train_loss"],
            "validation_loss": row["validation_loss"], "best": row["best"],
            "learning_rate": rate, "images": int(self.images[m]),
            **({"variant": member.variant} if member.variant else {})})

    def metadata(self) -> dict[str, Any]:
        """All that a save needs."""
        return {"epoch": self.epoch, "seconds": self.seconds, "history": self.rows,
                "members": [m.digest for m in self.members],
                "books": {name: getattr(self, name).tolist() for name in _COLUMNS}}

    def take_over(self, metadata: dict[str, Any]) -> tuple[list[int], float]:
        """Continues from a save of a population that has at least these members.

        Returns:
          The positions of these members in the save, and their share of its seconds.
        """
        mine = [metadata["members"].index(m.digest) for m in self.members]
        images = np.array(metadata["books"]["images"])
        share = int(images[mine].sum()) / max(int(images.sum()), 1)
        self.epoch, self.seconds = metadata["epoch"], metadata["seconds"] * share
        who = {(m.forget_set, m.seed, m.variant) for m in self.members}
        self.rows = [r for r in metadata["history"]
                        if (r["forget_set"], r["seed"], r.get("variant", "")) in who]
        for name, values in metadata["books"].items():
            setattr(self, name, np.array(values)[mine])
        return mine, share
