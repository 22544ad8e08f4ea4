"""The programs that train a population, compiled once for as many members per call as have room."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from unlearn_jax.engine import flops, memory
from unlearn_jax.engine.batches import Feed
from unlearn_jax.engine.layout import MEMBER, Layout
from unlearn_jax.engine.predict import make_validator
from unlearn_jax.engine.recipe import Recipe
from unlearn_jax.members import Member
from unlearn_jax.models import Model, Variables
from unlearn_jax.optim import OptimizerSettings
from unlearn_jax.system.made_once import made_once
from unlearn_jax.train import (
    Carry,
    Inputs,
    Step,
    end_epoch,
    find_batch,
    init_carry,
    skip_inactive,
)


class Programs:
    """The programs of a population in one layout; each takes G members per call.

    Attributes:
      layout: the layout, which sets G.
      chunk: K, training steps in a call.
      start: `variables_G -> carry`.
      step: `(carry, inputs, resident, batches [G, K, B], kinds_GK, epoch, count)
        -> (carry, losses_GK)`; see `chunked` for `count`.
      validate: see `predict.make_validator`.
      close: see `train.end_epoch`.
    """

    def __init__(self, recipe: Recipe, model: Model, feed: Feed, layout: Layout,
                 members: list[Member]):
        self.recipe, self.feed, self.layout = recipe, feed, layout
        self.size = layout.groups(len(members)).shape[1]
        longest = max(1, *(recipe.longest_epoch(m) for m in members))
        most = feed.most_batches(self.size * recipe.batch_size, layout.steps_per_dispatch)
        cut_short = layout.target.platform == "cpu"
        # If a call can be cut short, one program serves epochs of any length, so that a member's
        # bits do not depend on the others. Else chunks have equal lengths, so that few steps idle.
        self.chunk = most if cut_short else -(-longest // -(-longest // most))
        select = recipe.keep == "best"
        self.start = layout.vmap_jit(carry_starter(recipe.optimizer, select), (0,), lasting=True)
        self.step = layout.vmap_jit(
            chunked(recipe.step, recipe.settings, self.chunk, cut_short),
            (0, 0, None, 0, 0, None, None), donate=(0,), lasting=True, has_axis=True)
        self.validate = make_validator(model, recipe.loss, layout)
        self.close = layout.vmap_jit(end_epoch(recipe.patience, select), (0, 0), donate=(0,),
                                     lasting=True)

    @property
    def compile_seconds(self) -> float:
        """Seconds spent compiling so far."""
        return sum(p.compile_seconds for p in (self.start, self.step, self.validate, self.close))

    @functools.cached_property
    def flops_of_a_step(self) -> float:
        """Floating-point operations of one member's step; NaN if not counted (`flops.count`).

        The programs must be compiled. The first call counts, which takes seconds for a large
        network.
        """
        carry, inputs = self._member
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype),
                             self.feed.shapes(1, 1, self.recipe.batch_size))
        found = jax.eval_shape(find_batch, self.feed.resident, batch, inputs.forget, np.int32(0))
        leaves, tree = jax.tree.flatten((carry, inputs, found))
        return _flops(self.recipe.step, self.recipe.settings, tuple(leaves), tree)

    def compile(self, carry: Carry, inputs: Inputs) -> int:
        """Compiles the programs that take long or much memory; runs nothing.

        Args:
          carry, inputs: shapes `[any, ...]`.

        Returns:
          Bytes that a call needs on each device in addition to carry, inputs and resident data.
        """
        self._member = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype),
                                    (carry, inputs))
        arguments = self.step_arguments(carry, inputs)
        carry, inputs, _, batches, *_ = arguments
        self.step.compile(*arguments)
        sum_G = self.layout.shapes_of_members(np.zeros(1, np.float32), self.size)
        validated = self.feed.shapes(self.size, 1, self.recipe.eval_batch_size)
        self.validate.compile((sum_G, sum_G), carry[0].variables, self.feed.resident, validated)
        resident, members = memory.tree_bytes(self.feed.resident), self.layout.mesh.shape[MEMBER]
        kept = [resident + memory.tree_bytes((carry, inputs)) // members,
                resident + memory.tree_bytes(carry[0].variables) // members]
        return max(memory.call_bytes(program) - there + self.feed.waiting_bytes(sent)
                   for program, there, sent in zip((self.step, self.validate), kept,
                                                   (batches, validated)))

    def step_arguments(self, carry: Carry, inputs: Inputs) -> tuple:
        """The shapes of the arguments of `step`; `carry` and `inputs` are as for `compile`."""
        carry, inputs, kinds = self.layout.shapes_of_members(
            (carry, inputs, np.zeros((1, self.chunk), np.int32)), self.size)
        batches = self.feed.shapes(self.size, self.chunk, self.recipe.batch_size)
        return carry, inputs, self.feed.resident, batches, kinds, np.int32(0), np.int32(0)


def fitted_programs(recipe: Recipe, model: Model, feed: Feed, layout: Layout,
                    members: list[Member], variables_M: Variables,
                    inputs: Inputs) -> tuple[Programs, float]:
    """The compiled programs, for as many members per call as the devices have room for.

    Args:
      recipe, model, feed, layout, members, variables_M: as in `engine.train_population`.
      inputs: inputs of any one member, `[1, ...]`.

    Returns:
      The programs, and the seconds of all compilations, also of calls that were too large. If there
      is no epoch, nothing is compiled.
    """
    if not recipe.epochs:
        return Programs(recipe, model, feed, layout, members), 0.0
    made: list[Programs] = []
    carry = jax.eval_shape(jax.vmap(lambda v: init_carry(
        recipe.optimizer, v, recipe.keep == "best")), variables_M)
    held = memory.tree_bytes(carry) // len(members) + memory.tree_bytes(inputs)

    def needs(layout: Layout) -> int:
        made.append(Programs(recipe, model, feed, layout, members))
        return made[-1].compile(carry, inputs)

    memory.fit_members_per_call(layout, len(members), recipe.name, needs, held)
    seconds = sum(p.compile_seconds for p in made)
    logging.info("%s: compiled in %.1f s", recipe.name, seconds)
    return made[-1], seconds


@made_once
def _flops(step: Step, settings: OptimizerSettings, leaves: tuple[jax.ShapeDtypeStruct, ...],
           tree: jax.tree_util.PyTreeDef) -> float:
    return flops.count(skip_inactive(step, settings), *jax.tree.unflatten(tree, leaves))


@made_once
def carry_starter(optimizer: optax.GradientTransformation,
                  select: bool) -> Callable[[Variables], Carry]:
    """`init_carry` of a member's variables."""
    return lambda variables: init_carry(optimizer, variables, select)


@made_once
def chunked(step: Step, settings: OptimizerSettings, steps: int,
            cut_short: bool) -> Callable[..., Any]:
    """A step over K = `steps` batches in one call; the losses are stacked.

    Args:
      step, settings: as for `skip_inactive`.
      steps: K.
      cut_short: the loop ends after `count` of the K batches, an argument; the losses of the others
        are 0. Else, or if K is 1, the loop covers all K, padding too, and `count` is not read: a
        GPU runs a loop of known length without returning to the host in between.
    """

    body = skip_inactive(step, settings)

    # The map over members is inside the loop: a loop that is mapped is traced three times.
    def chunk(carry_G, inputs_G, resident, batches_G, kinds_GK, epoch, count):
        def one(carry, inputs, batch, kind):
            return body(carry, inputs, find_batch(resident, batch, inputs.forget, epoch, kind))

        def members(carry_G, k):
            batch_G = jax.tree.map(lambda x: x[:, k], batches_G)
            return jax.vmap(one)(carry_G, inputs_G, batch_G, kinds_GK[:, k])

        def noted(k, carry_and_losses):
            carry_G, losses_KG = carry_and_losses
            carry_G, loss_G = members(carry_G, k)
            return carry_G, losses_KG.at[k].set(loss_G)

        if steps == 1:
            carry_G, loss_G = members(carry_G, 0)
            return carry_G, loss_G[:, None]
        if cut_short:
            zeros = jnp.zeros((steps, len(kinds_GK)))
            carry_G, losses_KG = jax.lax.fori_loop(0, count, noted, (carry_G, zeros))
        else:
            carry_G, losses_KG = jax.lax.scan(members, carry_G, jnp.arange(steps))
        return carry_G, losses_KG.T

    return chunk
