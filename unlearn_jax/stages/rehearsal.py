"""Tries an outside method before any training, so that a mistake shows at once, not after hours.

Nothing is computed: JAX traces the step with the shapes of a batch. A preparation runs with ones in
place of all numbers that it computes. That gives the shapes of the context that steps read.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from unlearn_jax.engine.layout import make_layout
from unlearn_jax.engine.preparation import Preparation
from unlearn_jax.engine.recipe import member_keys
from unlearn_jax.errors import ConfigError
from unlearn_jax.members import Pass
from unlearn_jax.methods.method import Setting
from unlearn_jax.methods.outside import Found, named
from unlearn_jax.models import Variables
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.stages.graph import RunContext, make_member
from unlearn_jax.train import Batch, Step, init_state


def rehearse(study: RunContext, found: Found, setting: Setting, step: Step | None) -> None:
    """Calls the functions of a method as a run would.

    Args:
      study: loaded; its config has the budgets.
      found: the method.
      setting: what the method is given.
      step: the result of its `make_step`; None: it only prepares.

    Raises:
      ConfigError: the engine cannot use its passes or its step; says what is allowed.
      Exception: any exception of the step, with the method's name noted.
    """
    request = setting.config.method
    _check_passes(request, found, setting)
    if step is None:
        return
    try:
        context = _context(study, found, setting)
    except Exception as e:  # with real data in place of ones it may work
        logging.warning("the method %s could not be tried before training: with ones for data its "
                        "prepare raises %s: %s", request, type(e).__name__, e)
        return
    variables = jax.eval_shape(setting.model.init, jax.eval_shape(jax.random.key, 0))
    state = jax.eval_shape(lambda v: init_state(setting.model, setting.optimizer, v), variables)
    batch = _batch(setting, setting.config.batch_size)
    _check_result(request, state, named(lambda: jax.eval_shape(
        step, jax.eval_shape(jax.random.key, 0), state, batch, _shape(jnp.float32), context),
        request)())


def _check_passes(request: str, found: Found, setting: Setting) -> None:
    kinds = found.method.optimizers
    for epoch in range(min(max(setting.config.epochs), 100)):
        passes = found.method.passes(setting, epoch)
        if not (isinstance(passes, tuple) and passes and all(isinstance(p, Pass) for p in passes)):
            raise _refused(request, f"the passes of epoch {epoch} are {passes!r}",
                           "a tuple of at least one Pass")
        for p in passes:
            if kinds > 1 and not 0 <= p.kind < kinds:
                raise _refused(request, f"a pass of epoch {epoch} has kind={p.kind}",
                               f"0 to {kinds - 1}, as the method has optimizers={kinds}")


def _check_result(request: str, state: Any, result: Any) -> None:
    if not (isinstance(result, tuple | list) and len(result) == 2):
        raise _refused(request, f"its step returns {_shape_text(result)}", "(state, loss)")
    after, loss = result
    if getattr(loss, "shape", None) != () or not jnp.issubdtype(loss.dtype, jnp.number):
        raise _refused(request, f"its step returns the loss {_shape_text(loss)}",
                       "one number, such as train.weighted_mean(losses, batch.weights)")
    structures: list[Any] = [jax.tree.structure(tree) for tree in (after, state)]
    if structures[0] != structures[1]:
        raise _refused(request, "its step returns a state of another structure than it was given",
                       "the same fields and leaves")
    for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(after)):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise _refused(request, f"its step returns the state's {jax.tree_util.keystr(path)} as "
                           + _shape_text(new), _shape_text(old))


def _refused(request: str, what: str, allowed: str) -> ConfigError:
    return ConfigError(f"config.unlearn.method is {request!r}: {what}; allowed: {allowed}")


def _context(study: RunContext, found: Found, setting: Setting) -> Any:
    """The shapes of the context that a member's steps read."""
    if found.method.prepare is None:
        return None
    member = make_member(study, study.seeds[0], study.splits.forget_sets[0])
    variables = _ones(jax.eval_shape(jax.vmap(setting.model.init),
                                     member_keys(found.name, [member])))
    before = _Rehearsal(found.name, setting.model, make_layout(study.config.parallel, 1),
                        study.resident, [member], variables, setting.loss,
                        setting.config.batch_size)
    context = found.method.prepare(setting, before).context
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), context)


class _Rehearsal(Preparation):
    """One member before a method's first step; every result is ones."""

    def __post_init__(self) -> None:
        self.images, self.steps = np.zeros(1, int), np.zeros(1, int)
        self.flops = np.zeros(1)
        self.seconds = self.compile_seconds = 0.0

    def initial(self, stream: str) -> Variables:
        return self.variables

    def each(self, fun: Callable[..., Any], *trees_M: Any) -> Any:
        return _ones(jax.eval_shape(jax.vmap(fun), *trees_M))

    def total(self, over: str, fun: Callable[..., Any], *trees_M: Any,
              batch_size: int = 0, order: str = "", lasting: bool = False) -> Any:
        Pass(over)  # refuses other names
        axes = (None, *(0 for _ in trees_M))
        batch = self._batch(batch_size or self.batch_size)
        found = jax.eval_shape(jax.vmap(fun, in_axes=axes, axis_size=1), batch, *trees_M)
        return _ones(found)

    def train(self, stream: str, step: Step, settings: OptimizerSettings, variables_M: Variables,
              over: str, epochs: int, context_M: Any = None) -> Variables:
        Pass(over)
        make_optimizer(settings)
        return variables_M


def _batch(setting: Setting, size: int) -> Batch:
    """The shapes of a batch that a step gets."""
    side = setting.model.image_size
    labels = jnp.int32 if setting.labels.num_classes else jnp.float32
    return Batch(
        images=_shape(jnp.uint8, size, side, side, 3), labels=_shape(labels, size),
        rows=_shape(jnp.int32, size), forget=_shape(jnp.bool_, size),
        weights=_shape(jnp.float32, size), epoch=_shape(jnp.int32), kind=_shape(jnp.int32),
        progress=_shape(jnp.float32), epochs=_shape(jnp.int32))


def _shape(kind: Any, *axes: int) -> Any:  # stands for an array
    return jax.ShapeDtypeStruct(axes, kind)


def _ones(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.ones(x.shape, x.dtype), tree)


def _shape_text(value: Any) -> str:
    if isinstance(value, jax.ShapeDtypeStruct):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"{len(value)} parts"
    return f"a {type(value).__name__}"
