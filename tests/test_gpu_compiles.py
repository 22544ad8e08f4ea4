"""Every program that runs on a device compiles for a GPU: where jax's CUDA plug-in is installed."""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks import gpu_program
from benchmarks.described import H200, compile_for_gpu, described_mesh, load_device, missing
from unlearn_jax.attribution import attribution
from unlearn_jax.config import default_config
from unlearn_jax.data import augment
from unlearn_jax.engine.layout import Layout
from unlearn_jax.engine.predict import make_predictor
from unlearn_jax.engine.recipe import Recipe
from unlearn_jax.methods.importance import sample_gradients
from unlearn_jax.metrics import (
    attacks,
    challenge,
    confidence,
    confusion,
    distributions,
    errors,
    injection,
    likelihood_ratio,
    relearn,
)
from unlearn_jax.models import build_model
from unlearn_jax.train import Batch, make_loss

MEMBERS, PIXELS, BATCH, CLASSES = 2, 8, 4, 3
LOSS = make_loss("mae", 40.0)


@pytest.fixture(scope="module")
def mesh():
    if reason := missing():
        pytest.skip(reason)
    with described_mesh(load_device(H200)) as found:
        yield found


def network(name="resnet4", classes=0, dtype="bfloat16"):
    cfg = default_config().model
    with cfg.unlocked():
        cfg.update(name=name, width=4, stem="small", dtype=dtype)
    return build_model(cfg, PIXELS, classes)


def compiled(lowered):
    """The program's text."""
    found, _ = compile_for_gpu(lowered)
    return found.as_text()


def shape(*sizes, dtype=np.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def placed(mesh, tree):
    """Shapes as those of arrays on the mesh."""
    where = NamedSharding(mesh, P())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)


def members_of(layout, tree):
    """Shapes of one member as those of all members of a call."""
    return layout.shapes_of_members(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), tree),
        layout.members_per_device)


@pytest.mark.parametrize("keep, patience", [("best", 2), ("last", 0)])
def test_the_programs_of_a_population(mesh, keep, patience):
    model = network()
    training, _ = gpu_program.training(argparse.Namespace(
        network="resnet4", stem="small", width=4, pixels=PIXELS, batch=BATCH, dtype="bfloat16",
        optimizer="sgd"))
    recipe = Recipe("benchmark", training.step, training.optimizer, training.settings,
                    training.loss, epochs=2, batch_size=BATCH, eval_batch_size=BATCH, keep=keep,
                    patience=patience)
    layout = Layout(mesh, MEMBERS, 2)
    programs, arguments = gpu_program.shaped_programs(recipe, model, layout)
    carry, variables = arguments[0], members_of(layout, model.shapes())
    sums = layout.shapes_of_members(np.zeros(1, np.float32), MEMBERS)
    batches = programs.feed.shapes(MEMBERS, 1, BATCH)
    assert "while" in compiled(programs.step.lower(*arguments))
    compiled(programs.start.lower(variables))
    compiled(programs.close.lower(carry, sums))
    assert "conv" in compiled(programs.validate.lower(
        (sums, sums), variables, programs.feed.resident, batches))


@pytest.mark.parametrize("classes", [0, CLASSES])
def test_predictions(mesh, classes):
    model, layout = network(classes=classes), Layout(mesh, MEMBERS, 1)
    feed = gpu_program.DescribedFeed(layout, PIXELS)
    program = make_predictor(model, layout)._program
    assert "conv" in compiled(program.lower(members_of(layout, model.shapes()), feed.resident,
                                            feed.shapes(MEMBERS, 1, BATCH)))


IMAGES_BHWC = shape(BATCH, PIXELS, PIXELS, 3, dtype=np.uint8)


def batch_shapes():
    scalars = (shape(dtype=d) for d in (np.int32, np.int32, np.float32, np.int32))
    return Batch(IMAGES_BHWC, *(shape(BATCH, dtype=d) for d in (
        np.float32, np.int32, bool, np.float32)), *scalars)


@pytest.mark.slow
def test_the_importance_of_weights(mesh):
    model, layout = network(), Layout(mesh, MEMBERS, 1)
    gradients = sample_gradients(model, LOSS)

    def squares(batch, variables):
        return jax.tree.map(lambda x: jnp.square(x).sum(0), gradients(batch, variables))

    assert "conv" in compiled(layout.vmap_jit(squares, (0, 0)).lower(
        *members_of(layout, (batch_shapes(), model.shapes()))))


def explained(what, model, variables, images, labels):
    if what == "pixels":
        nodes, weights = attribution.midpoints(4)
        return attribution.pixel_attributions(
            model, variables, images, labels, np.zeros((PIXELS, PIXELS, 3), np.float32),
            jnp.asarray(nodes), jnp.asarray(weights))
    if what == "places":
        return attribution.grad_cam(model, variables, images, labels, model.stages[-1])
    return attribution.stage_activations(model, variables, images)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [0, CLASSES])
@pytest.mark.parametrize("what", ["pixels", "places", "channels"])
def test_explanations(mesh, what, classes):
    model, layout = network(classes=classes), Layout(mesh, MEMBERS, 1)
    labels = shape(BATCH, dtype=np.int32 if classes else np.float32)
    program = layout.vmap_jit(functools.partial(explained, what, model), (0, 0, 0))
    assert "conv" in compiled(program.lower(*members_of(
        layout, (model.shapes(), IMAGES_BHWC, labels))))


def test_augmented_copies(mesh):
    spreads, _ = augment._spreads(augment.Augmentation(10.0, 0.1, 0.2, True))
    rows = shape(BATCH, dtype=np.int32)
    compiled(augment._render_chunk.lower(*placed(mesh, (
        IMAGES_BHWC, rows, rows, shape(dtype=np.int32),
        jax.tree.map(np.asarray, spreads), shape(dtype=bool)))))


M, N = 4, 10  # models and samples
OUTPUTS, LOGITS, PER_MODEL = shape(M, N), shape(M, N, CLASSES), shape(M)
LABELS, CLASS_LABELS = shape(N), shape(N, dtype=np.int32)
ALPHAS, SCALAR = shape(3), shape()
COUNTS = shape(M, dtype=np.int32)

# name: (function, arguments, static arguments)
AUDITS = {
    "absolute_errors": (errors.absolute_errors, (OUTPUTS, LABELS), {}),
    "accuracy": (errors.accuracy, (LOGITS, CLASS_LABELS), {}),
    "study_metrics": (errors.study_metrics, (*(OUTPUTS,) * 4, ALPHAS, SCALAR), {}),
    "forgetting": (errors.forgetting, (OUTPUTS, OUTPUTS, ALPHAS), {}),
    "auc": (attacks.auc, (OUTPUTS, OUTPUTS), {}),
    "tpr_at": (attacks.tpr_at, (OUTPUTS, OUTPUTS, ALPHAS), {}),
    "best_threshold": (attacks.best_threshold, (OUTPUTS, OUTPUTS), {}),
    "leave_pair_out": (likelihood_ratio._leave_pair_out, (OUTPUTS, OUTPUTS), {"ddof": 1}),
    "probabilities": (likelihood_ratio._probabilities, (OUTPUTS,) * 3, {"ddof": 1}),
    "order": (challenge._order, (OUTPUTS,), {}),
    "ratios": (challenge._ratios, (shape(M, N, dtype=np.int32), shape(M + 1, N, dtype=bool),
                                   COUNTS, COUNTS, LABELS, SCALAR), {}),
    "sample_scores": (challenge.sample_scores, (LABELS,), {"bins": 13}),
    "wasserstein": (distributions.wasserstein, (OUTPUTS, shape(M + 1, N)), {"over": "models"}),
    "jensen_shannon": (distributions.jensen_shannon, (OUTPUTS, OUTPUTS), {"over": "models"}),
    "klom": (distributions.klom, (OUTPUTS, OUTPUTS), {"over": "models"}),
    "confusion": (confusion.interclass_confusion, (LOGITS, CLASS_LABELS),
                  {"class_a": 0, "class_b": 1}),
    "confidences": (confidence.logit_scaled_confidences, (LOGITS, CLASS_LABELS), {}),
    "remaining": (injection.remaining, (PER_MODEL, PER_MODEL), {}),
    "relearn_steps": (relearn.relearn_steps, (OUTPUTS, PER_MODEL, SCALAR), {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AUDITS)
def test_audits(mesh, name):
    function, arguments, static = AUDITS[name]
    assert "ENTRY" in compiled(function.lower(*placed(mesh, arguments), **static))


@pytest.mark.parametrize("name", AUDITS)
def test_audits_take_these_arguments_on_any_device(name):
    """So that a changed signature shows where there is no plug-in, too."""
    function, arguments, static = AUDITS[name]
    assert function.lower(*arguments, **static).out_info is not None
