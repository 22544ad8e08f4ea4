"""Every method, every network of the package, both tasks; and what the program finds in a network.

What is covered how:

- For every combination of a method, a task and a network of `STEPPED`, a step of each kind of batch
  is traced (`jax.eval_shape`), and so is the method's preparation: shapes, paths, layers, channels
  and refusals. `Abstract` stands for the engine's preparation, with random numbers of the right
  shapes.
- For every method, one ViT (tokens with layer norms) and one ConvNeXt (depthwise convolutions), one
  member takes these steps, operation by operation; the result is finite.
- For a covering set, `RUN`, the engine prepares and trains two members in one compiled program:
  each kind of network, the plain step, random labels, a mask, and gradients of single samples.
  tests/test_docs_networks.py runs `reset` on a ViT.

`STEPPED` leaves out ResNet4, on which tests/test_methods.py trains with every method and both
tasks; one of its norms is frozen there. It also leaves out networks that are the same module as
another one with other numbers: ResNet10 and 18 are ResNet4 with more blocks, ViT-Small is ViT-Tiny
with more heads. A test compares their modules. All networks are narrow here and have few blocks.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import methods_case
import numpy as np
import pytest
from methods_case import CLASSES, MEMBERS, SIZE, flat, make_setting, resident, walk
from tiny_population import one

from unlearn_jax import listing
from unlearn_jax.attribution.attribution import grad_cam
from unlearn_jax.config import TASKS, default_config
from unlearn_jax.config.parts import check_parts
from unlearn_jax.engine.layout import make_layout
from unlearn_jax.engine.preparation import Preparation, _one_of
from unlearn_jax.errors import ConfigError, InputError
from unlearn_jax.methods import METHODS
from unlearn_jax.methods.channels import channel_layers
from unlearn_jax.methods.method import Prepared
from unlearn_jax.models import NAMES, FlaxModel, Model, build_model, network_parts, slowest_norm
from unlearn_jax.optim import make_optimizer
from unlearn_jax.train import Batch, init_state

STEPS = [name for name in METHODS if not METHODS[name].scheme]
# Fields of a module that make it shallow.
SHALLOW = {"resnet10": dict(blocks=(1, 1)), "resnet18": dict(blocks=(2,)),
           "resnet50": dict(blocks=(1,)), "resnet9": dict(residual=(True, False)),
           "vit_tiny": dict(depth=2), "vit_small": dict(depth=2),
           "convnext_tiny": dict(depths=(1, 1)), "vgg16_bn": dict(convolutions=(1, 2))}
# Network: the task in which steps are taken; "": in none.
STEPPED = {"resnet50": "", "resnet9": "", "vgg16_bn": "", "vit_tiny": "classification",
           "convnext_tiny": "regression"}
SAME = {"resnet10": "resnet4", "resnet18": "resnet4", "vit_small": "vit_tiny"}
# (network, method, task)
RUN = (("resnet9", "ft", "classification"), ("vgg16_bn", "salun", "classification"),
       ("vit_tiny", "rnd", "regression"), ("convnext_tiny", "ssd", "regression"))


@functools.partial(jax.jit, static_argnums=(0, 1, 4))
def applied(call, model, variables, images, train, key):
    """JAX keeps what it traced of the network, so that the methods after the first are quick."""
    return call(model, variables, images, train=train, key=key)


class KeptTraces:
    """A model whose passes are traced once; the rest is that of the class beside it."""

    def apply(self, variables, images_BHWC, *, train, key=None):
        """As `Model.apply`."""
        return applied(super().apply.__func__, self, variables, images_BHWC, train, key)

    def features(self, variables, images_BHWC, *, train, key=None):
        """As `Model.features`."""
        return applied(super().features.__func__, self, variables, images_BHWC, train, key)

    def init(self, key):
        """As `Model.init`."""
        return drawn(super().init.__func__, self, key)

    def shapes(self):
        """As `Model.shapes`."""
        return shapes_of(super().shapes.__func__, self)


drawn = jax.jit(lambda call, model, key: call(model, key), static_argnums=(0, 1))
shapes_of = functools.cache(lambda call, model: call(model))


@dataclasses.dataclass(frozen=True)
class KeptModel(KeptTraces, Model):
    """A ResNet."""


@dataclasses.dataclass(frozen=True)
class KeptFlaxModel(KeptTraces, FlaxModel):
    """Another network."""


@functools.cache
def network(name, task, frozen=()):
    """A tiny model for images of 8 pixels; VGG takes 32 before it is made shallow."""
    c = default_config()
    with c.unlocked():
        c.model.update(name=name, width=2, stem="small", frozen=frozen)
    model = build_model(c.model, 32, CLASSES if task == "classification" else 0)
    changes, module = SHALLOW.get(name, {}), model.module
    module = (module.clone(inner=module.inner.clone(**changes)) if hasattr(module, "inner")
              else module.clone(**changes))
    return dataclasses.replace(model, module=module, image_size=SIZE)


def setting_of(model, method, task):
    return dataclasses.replace(make_setting(method, task), model=model)


@functools.cache
def compiled(optimizer):
    """The optimiser as one program, in place of an operation for each parameter."""
    return optimizer._replace(init=jax.jit(optimizer.init), update=jax.jit(optimizer.update))


@dataclasses.dataclass
class Abstract(Preparation):
    """The preparation of one member, whose results are random numbers of the right shapes.

    Attributes:
      call: `take` or `trace`, for the steps of `train`.
    """

    call: Callable = None

    def __post_init__(self):
        self.images = np.zeros(1, int)

    def each(self, fun, *trees_M):
        """Numbers `[1, ...]`."""
        return some(jax.eval_shape(fun, *_one_of(trees_M)))

    def total(self, over, fun, *trees_M, batch_size=0, order="", lasting=False):
        """Numbers `[1, ...]`."""
        return some(jax.eval_shape(fun, self._batch(batch_size or self.batch_size),
                                   *_one_of(trees_M)))

    def train(self, stream, step, settings, variables_M, over, epochs, context_M=None):
        """The variables after a step of each kind of batch."""
        check_steps(self.call, step, self, make_optimizer(settings), variables_M, context_M)
        return variables_M


def some(shapes):
    """Arrays `[1, ...]`: floats from 0 to 1, so that they can be variances; whole numbers are 1."""
    rng = np.random.default_rng(4)
    return jax.tree.map(lambda x: rng.random((1, *x.shape), np.float32) if x.dtype == np.float32
                        else np.ones((1, *x.shape), x.dtype), shapes)


def take(step, key, state, *inputs):
    """The state and the loss after a step, whose numbers are finite and which changes something."""
    after, loss, *_ = step(key, state, *inputs)
    changed, old = map(jax.tree.leaves, jax.device_get((after, state)))
    assert np.isfinite(loss) and all(np.isfinite(x).all() for x in changed)
    assert any((a != b).any() for a, b in zip(changed, old))
    return after, loss


def trace(step, *inputs):
    """The shapes of the state and the loss after a step."""
    return jax.eval_shape(step, *inputs)[:2]


def check_steps(call, step, before, optimizer, variables_M, context_M, kinds=1):
    """One member takes a step of each kind, by `call`; the state keeps its shapes and types."""
    variables, context = one((variables_M, context_M))
    state = init_state(before.model, optimizer, jax.tree.map(jnp.asarray, variables))
    rows = np.arange(before.batch_size)
    for kind in range(kinds):
        batch = Batch(before.resident.images[rows], before.resident.labels[rows], rows,
                      rows % 2 == 0, (rows > 0).astype(np.float32), np.int32(0), np.int32(kind),
                      np.float32(0.25), np.int32(2))
        after, loss = call(step, jax.random.key(0), state, batch, np.float32(1e-3), context)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
            lambda x: (x.shape, x.dtype), state)
        assert np.shape(loss) == ()
        state = after


@functools.cache
def layout():
    parallel = default_config().parallel
    with parallel.unlocked():
        parallel.members = 1
    return make_layout(parallel, 1)


def test_all_networks_take_steps_or_the_same_as_one_that_is():
    assert {*STEPPED, *SAME, "resnet4"} == {*NAMES}
    trained = make_setting("ft", "regression").model.module.clone(frozen_norms=())
    assert trained == network("resnet4", "regression").module
    for name, other in SAME.items():
        one, two = network(name, "regression").module, network(other, "regression").module
        if other == "resnet4":
            assert one.clone(blocks=two.blocks) == two
        else:
            assert (one.inner.heads, two.inner.heads) == (6, 3)
            assert one.clone(inner=one.inner.clone(heads=3)) == two


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", STEPPED)
def test_every_method_takes_a_step(name, task):
    plain = network(name, task)
    model = (KeptFlaxModel if isinstance(plain, FlaxModel) else KeptModel)(plain.module, SIZE)
    variables = some(model.shapes())
    call = take if task == STEPPED[name] else trace
    refused = []
    for method in STEPS:
        setting = setting_of(model, method, task)
        setting = dataclasses.replace(setting, optimizer=compiled(setting.optimizer))
        try:
            if METHODS[method].check:
                METHODS[method].check(setting)
        except InputError as e:
            assert "data.task" in str(e)  # by its task alone, never by its network
            refused.append(method)
            continue
        before = Abstract(method, model, layout(), resident(task),
                          list(MEMBERS[:1]), variables, setting.loss, methods_case.BATCH,
                          call=call)
        prepare, make_step = METHODS[method].prepare, METHODS[method].make_step
        prepared = prepare(setting, before) if prepare else Prepared(variables)
        assert jax.tree.structure(prepared.variables) == jax.tree.structure(variables)
        if make_step:
            check_steps(call, make_step(setting), before, setting.optimizer, prepared.variables,
                        prepared.context, METHODS[method].optimizers)
    assert len(refused) < 4


@pytest.mark.parametrize("name, method, task", RUN, ids=["-".join(case) for case in RUN])
def test_a_covering_set_trains_members(name, method, task):
    first = network(name, task).ends[0]
    setting = setting_of(network(name, task, (f"^{first}/kernel",)), method, task)
    walked = walk(setting, MEMBERS, per_device=2)
    assert not walked.trained.snapshots[max(walked.trained.snapshots)].failed.any()
    start, after = flat(walked.start["params"]), flat(walked.after["params"])
    assert all(np.isfinite(x).all() for x in after.values())
    np.testing.assert_array_equal(after[f"{first}/kernel"], start[f"{first}/kernel"])
    for m in range(2):
        assert any((after[path][m] != start[path][m]).any() for path in start)


@pytest.mark.parametrize("name", NAMES)
def test_explanations_and_layers_are_found(name):
    model = network(name, "classification")
    shapes = model.shapes()
    assert model.stages and set(model.blocks) >= set(model.stages)
    for layer in model.stages:
        maps, values = jax.eval_shape(
            functools.partial(grad_cam, model, layer=layer), shapes,
            jax.ShapeDtypeStruct((3, model.image_size, model.image_size, 3), jnp.uint8),
            jax.ShapeDtypeStruct((3,), jnp.int32))
        assert maps.ndim == 3 and maps.shape[1] == maps.shape[2] > 0 and values.shape == (3,)
    params = flat(jax.tree.map(lambda x: np.zeros(x.shape), shapes["params"]))
    for end in model.ends:
        assert f"{end}/kernel" in params
    assert model.ends[1] == "output"
    assert all(f"{layer}/kernel" in params for layer in channel_layers(model))
    owners = {path.rpartition("/")[0] for path in params} - {""}
    assert set(model.layers) in (owners, set())  # a ResNet's are in the order of their names


def test_what_is_found_in_each_network():
    resnet9, vgg, vit, convnext = (network(n, "regression") for n in (
        "resnet9", "vgg16_bn", "vit_tiny", "convnext_tiny"))
    assert resnet9.ends == ("stem/conv", "output")
    assert resnet9.stages == ("stage1/first", "stage2/first", "stage2")
    assert resnet9.norm_of("stage1/residual1/conv") == "stage1/residual1/norm"
    assert vgg.stages == ("stage1_conv1", "stage2_conv2")
    # Behind the last block the class token alone counts.
    assert vit.stages == ("block1",) and vit.ends == ("patch_embed", "output")
    assert set(channel_layers(vit)) == {"patch_embed", *(
        f"block{b}/{part}" for b in (1, 2) for part in ("qkv", "proj", "fc1", "fc2"))}
    assert convnext.ends == ("stem_conv", "output")
    assert convnext.norm_of("stage1_block1/depthwise") == "stage1_block1/norm"
    slow = [slowest_norm(network_config(n).model, 32) for n in ("resnet9", "vgg16_bn", "vit_tiny")]
    assert slow == [0.9, 0.9, 0.0]
    assert all(network_parts(name) == {} for name in NAMES)


def test_the_list_of_networks_has_a_line_for_each():
    found = listing.networks()
    assert tuple(found) == NAMES and all(found.values())
    assert "published weights: DeiT, timm" in found["vit_tiny"]


def network_config(name, **changes):
    c = default_config()
    with c.unlocked():
        c.model.name = name
        for key, value in changes.items():
            section, _, leaf = key.rpartition("__")
            c[section][leaf] = value
    return c


@pytest.mark.parametrize("name, key, value, words", [
    ("vgg16_bn", "data__image_size", 16, "config.data.image_size is 16; allowed with vgg16_bn and "
                                         "stem 'strided': 32 or more"),
    ("vit_tiny", "data__image_size", 36, "8 or more, multiples of 8"),
    ("convnext_tiny", "model__width", 5, "allowed with convnext_tiny: even numbers"),
    ("vit_small", "model__head_widths", (8,), "has the head of its source; allowed: ()"),
    ("vit_small", "model__projection", 8, "config.model.projection is 8"),
    ("resnet10", "model__variant", "deit", "allowed with resnet10: 'torchvision', 'keras'"),
    ("resnet9", "model__variant", "keras", "allowed with resnet9: 'torchvision'"),
    ("resnet9", "model__pretrained", "a.safetensors", "no published weights of resnet9"),
    ("vit_tiny", "train__recalibrate_norms", "on", "has no batch norms"),
    ("vit_tiny", "eval__explain_stage", 12, "allowed: 0 (the last) to 11"),
    ("vit_tiny", "model__frozen", ("stage1",), "'stage1' matches no parameter"),
])
def test_what_a_network_cannot_have_is_refused_before_training(name, key, value, words):
    with pytest.raises(ConfigError) as e:
        check_parts(network_config(name, **{key: value}))
    assert words in str(e.value)


@pytest.mark.parametrize("name, parameters", [  # as published, with 1000 classes
    ("resnet9", 7_081_000), ("vgg16_bn", 138_365_992), ("vit_tiny", 5_717_416),
    ("vit_small", 22_050_664), ("convnext_tiny", 28_589_128)])
def test_the_published_width_gives_the_published_number_of_parameters(name, parameters):
    c = network_config(name, model__width=64, model__stem="imagenet")
    shapes = build_model(c.model, 224, 1000).shapes()["params"]
    assert sum(x.size for x in jax.tree.leaves(shapes)) == parameters
