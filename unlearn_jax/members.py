"""Members of a population, and the passes over their samples. Uses NumPy alone.

A member is one model: a seed and a forget set. Methods define the passes of an epoch (`Pass`); the
engine (`engine/`) trains.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Sequence

import numpy as np

from unlearn_jax.data.splits import trained_half
from unlearn_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Member:
    """One model of the population.

    Attributes:
      seed: decides initialisation, order of samples, dropout and random labels.
      forget_set: name of the set that it is to forget; `''` for the original model.
      retain: `[n]` int32, the resident rows of D_r with its augmented copies; for the original
        model, those of D_o.
      validation: `[v]` int32, the resident rows of its validation set.
      forget: `[f]` int32, the resident rows of D_f with its copies, flagged in batches.
      variant: distinguishes it from other members of the same seed and sets, such as
        `learning_rate=0.002`; '' if all members have the same hyperparameters.
      learning_rate: its peak rate; None: the recipe's.
    """

    seed: int
    forget_set: str
    retain: np.ndarray
    validation: np.ndarray
    forget: np.ndarray
    variant: str = ""
    learning_rate: float | None = None

    @functools.cached_property
    def digest(self) -> str:
        """Hash of the seed, the sample sets and the variant name, which includes the learning rate.

        A later run identifies the member by it.
        """
        digest = hashlib.blake2b(f"{self.seed}|{self.forget_set}".encode(), digest_size=16)
        for part in (self.retain, self.validation, self.forget):
            digest.update(f"|{len(part)}|".encode() + part.astype("<i4").tobytes())
        if self.variant:
            digest.update(self.variant.encode())
        return digest.hexdigest()

    @functools.cached_property
    def everything(self) -> np.ndarray:
        """The rows of D_r and D_f, sorted, each once."""
        return np.union1d(self.retain, self.forget).astype(np.int32)

    @functools.cached_property
    def retained_only(self) -> np.ndarray:
        """The rows of D_r that are not in D_f, sorted, each once."""
        return np.setdiff1d(self.everything, self.forget)

    def __str__(self) -> str:
        return (f"seed {self.seed}" + (f", forget set {self.forget_set}" if self.forget_set else "")
                + (f", {self.variant}" if self.variant else ""))


WALKS = ("retain", "forget", "all", "mixed", "validation", "retain+forget", "forget+retain")


@dataclasses.dataclass(frozen=True)
class Pass:
    """One walk over a member's samples; an epoch is one pass or several.

    A pass over `all` mixes D_r and D_f; one over `mixed` mixes a share of D_r and all of D_f. One
    over `validation` takes a fixed half of the validation samples: the other half serves to choose
    between methods. In `retain+forget` each batch is half D_r and half D_f, with D_r's half first:
    the pass goes once over D_r, and D_f is repeated or cut to fit. `forget+retain` is the same, but
    D_f sets the length (the halves have the same order).

    Attributes:
      over: one of `WALKS`.
      kind: tells the step which pass a batch belongs to (`Batch.kind`).
      share: share of the samples that set the length (in `mixed`: of D_r), drawn anew each epoch.
      fill: share of a batch's places with samples; the rest is padding that repeats them. A value
        below 1 gives smaller batches, and more of them.
    """

    over: str
    kind: int = 0
    share: float = 1.0
    fill: float = 1.0

    def __post_init__(self) -> None:
        if self.over not in WALKS:
            raise ConfigError(f"a pass over {self.over!r}; allowed: {', '.join(WALKS)}")
        if not 0 < self.share <= 1:
            raise ConfigError(f"a pass over a share of {self.share}; allowed: above 0, up to 1")
        if not 0 < self.fill <= 1 or (self.paired and self.fill < 1):
            raise ConfigError(f"a pass over {self.over!r} that fills a share of {self.fill} of its "
                              "batches; allowed: above 0, up to 1, and 1 where a batch has halves")

    @property
    def paired(self) -> bool:
        """Whether a batch holds halves of two sets."""
        return "+" in self.over

    def rows(self, member: Member) -> np.ndarray:
        """The member's rows that set the length."""
        if self.over in ("all", "mixed"):
            return member.everything
        if self.over == "validation":
            return trained_half(member.validation)
        return getattr(member, self.over.partition("+")[0])

    def count(self, member: Member) -> int:
        """Number of samples that set the length."""
        always = len(member.forget) if self.over == "mixed" else 0
        return always + math.ceil(round(self.share * (len(self.rows(member)) - always), 6))

    def batches(self, member: Member, batch_size: int) -> int:
        """Number of batches of the pass."""
        return -(-self.count(member) // self._leads(batch_size))

    def images(self, member: Member, batch_size: int) -> int:
        """Number of samples seen; a paired pass counts both halves (the second has no padding)."""
        partners = self.batches(member, batch_size) * (batch_size // 2) if self.paired else 0
        return self.count(member) + partners

    def leading_batches(self, order: np.ndarray, batch_size: int) -> np.ndarray:
        """Rows `[n]` of the samples that set the length, as batches `[T, _]` for their places."""
        places = self._leads(batch_size)
        batches = in_batches(order, places)
        if self.paired or places == batch_size:
            return batches
        # Each batch is padded with its own samples, so that the statistics of batch norm do not
        # depend on other samples.
        own = np.where(batches < 0, ~batches, batches)
        repeats = -(-batch_size // places)
        return np.concatenate([batches, ~np.tile(own, repeats)], axis=1)[:, :batch_size]

    def _leads(self, batch_size: int) -> int:
        """Number of places in a batch for the set that sets the length."""
        return batch_size // 2 if self.paired else max(1, round(self.fill * batch_size))

    def draw(self, member: Member, rng: np.random.Generator) -> np.ndarray:
        """Draws the samples that set the length in one epoch, in their order: `count` rows."""
        rows, count = self.rows(member), self.count(member)
        if self.over == "mixed":
            others = rng.permutation(member.retained_only)
            rows = np.concatenate([member.forget, others[:count - len(member.forget)]])
        return rng.permutation(rows)[:count]


# The passes of an epoch, counted from zero.
Passes = Callable[[int], tuple[Pass, ...]]


_OVER_RETAIN = (Pass("retain"),)


def over_retain(epoch: int) -> tuple[Pass, ...]:
    """Every epoch is one pass over D_r, as in training."""
    del epoch
    return _OVER_RETAIN


def in_batches(rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Rows `[n]` as `[T, B]` int32.

    The last batch is filled with the first rows again, written as their bitwise complement. A
    negative entry has weight zero, and batch norm still gets a full and varied batch.
    """
    count = -(-len(rows) // batch_size)
    filler = ~np.resize(rows, count * batch_size - len(rows))
    return np.concatenate([rows, filler]).astype(np.int32).reshape(count, batch_size)


def stack_batches(batches_TB: Sequence[np.ndarray], multiple: int = 1) -> np.ndarray:
    """Stacks the batches of all members in one array.

    Args:
      batches_TB: for each member `[T_m, B]`, the rows of its T_m batches of B samples.
      multiple: T is a multiple of this.

    Returns:
      `[M, T, B]` int32, with T at least 1 and at least the largest T_m. Batches of -1, which stand
      for padding, follow the T_m batches of a member.
    """
    longest = max(1, *(len(b) for b in batches_TB))
    steps = -(-longest // multiple) * multiple
    stacked = np.full((len(batches_TB), steps, batches_TB[0].shape[1]), -1, np.int32)
    for slot, batches in zip(stacked, batches_TB):
        slot[:len(batches)] = batches
    return stacked
