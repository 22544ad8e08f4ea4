"""The table of the config: each key with its default, its allowed values and its meaning.

A new key is an entry here: `default_config` and `check_values` read the table. Checks of several
keys together are in `relations.py`. The options of a method, `unlearn.METHOD.KEY`, are in the
method's own file.
"""

from unlearn_jax.config.records import Elements, Key, LabelShare, Range
from unlearn_jax.data.given import GIVEN
from unlearn_jax.metrics.catalogue import AUDITS
from unlearn_jax.models import NAMES, STEMS, VARIANTS
from unlearn_jax.networks import conv
from unlearn_jax.networks.registry import SOURCES

TASKS = ("regression", "classification")
# By the value of train.log, the package that it needs.
TRACKERS = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
# The largest whole number: rows and steps are counted in 32 bits, and jax.random.key takes 32
# bits and silently drops the others.
MOST = 2**31 - 1
MOST_EPOCHS = 10**6  # a plan counts them one by one

_OPTIMIZERS, _SCHEDULES = ("adam", "sgd"), ("constant", "cosine", "onecycle")
_SHARE, _COUNT, _POSITIVE = Range(low=0, high=1), Range(low=0), Range(low=1)
_ALPHAS = LabelShare(
    low=1e-4, high=1, otherwise="Forgetting would be near 0, or above 0.36, for every model")

_DATA = {
    "source": Key(
        default="synthetic",
        meaning="kind of data: synthetic, utkface, digits, folder, arrays or tfds:NAME"),
    "path": Key(
        default="", meaning="folder, .zip, .tar.gz, .csv or .npz, for a source that reads files"),
    "task": Key(
        default="regression", allowed=TASKS, meaning="what the network learns from the labels"),
    "ids": Key(
        default="stored", meaning="tfds: stored; original (the order of the original files); or a "
        "feature that names each example (data/tfds.py)"),
    "seed": Key(
        default=0, allowed=Range(low=0, high=MOST),
        meaning="decides the subsample, the split and the augmented copies"),
    "size": Key(default=3000, allowed=Range(low=20), meaning="synthetic: number of faces"),
    "image_size": Key(
        default=32, allowed=Range(low=8, high=1024),
        meaning="pixels; images become [image_size, image_size, 3] uint8"),
    "label_noise": Key(
        default=2.0, allowed=_COUNT,
        meaning="synthetic: standard deviation of the label noise, years"),
    "fraction": Key(
        default=1.0, allowed=Range(low=1e-6, high=1),
        meaning="share of the samples that is kept, stratified by label"),
    "label_min": Key(
        default=20.0, allowed=Range(low=-1e30, high=1e30),
        meaning="regression: the smallest label that is kept"),
    "label_max": Key(
        default=60.0, allowed=Range(low=-1e30, high=1e30),
        meaning="regression: the largest label that is kept"),
    "label_unit": Key(
        default="", meaning="regression: unit of the labels, such as years (units.py); '': the "
        "source's"),
    "groups": Key(
        default=(), allowed=Elements(kind=float),
        meaning="classification: lower ends of the ranges that become classes, such as "
        "(20.0, 30.0, 45.0); (): the source's own labels"),
    "repeats": Key(
        default="keep", allowed=("keep", "drop"),
        meaning="drop: of images that are equal in every pixel only the first is kept"),
    "quality": Key(
        default="off", allowed=("off", "on"),
        meaning="on: blurred, dark and flat images are dropped (data/quality.py)"),
    "quality_sharpness": Key(
        default=70.0, allowed=_COUNT,
        meaning="least variance of the Laplacian at 64 pixels, grey levels squared"),
    "quality_contrast": Key(
        default=20.0, allowed=_COUNT, meaning="least standard deviation, grey levels"),
    "quality_brightness": Key(
        default=(40.0, 210.0), allowed=Elements(kind=float, length=2, low=0, filled=True),
        meaning="smallest and largest mean grey level"),
    "split": Key(
        default=(0.6, 0.2, 0.2),
        allowed=Elements(kind=float, length=3, low=0, filled=True, word=GIVEN),
        meaning="shares of the training, validation and test sets; given: the data's own sets"),
    "split_shares": Key(
        default=(0.6, 0.2, 0.2), allowed=Elements(kind=float, length=3, low=0, filled=True),
        meaning="split='given': shares by which a set that the data lack is drawn from train"),
    "balance": Key(
        default=0, allowed=_COUNT,
        meaning="augmented copies fill each label up to this many samples; 0: no copies"),
    "rotation": Key(
        default=10.0, allowed=Range(low=0, high=180),
        meaning="augmented copies: largest rotation to either side, degrees"),
    "shift": Key(
        default=0.1, allowed=Range(low=0, high=0.9),
        meaning="augmented copies: largest shift to either side, share of the width and height"),
    "zoom": Key(
        default=0.2, allowed=Range(low=0, high=0.9),
        meaning="augmented copies: largest zoom in or out, share"),
    "flip": Key(
        default=True, meaning="augmented copies: mirrored with probability one half"),
    "inject": Key(
        default="", meaning="confusion:A:B:N or patch:A:N (data/inject.py); '': nothing"),
}

_MODEL = {
    "name": Key(
        default="resnet10",
        meaning=f"network: {', '.join(NAMES)}, or FILE.py:NAME"),
    "variant": Key(
        default="torchvision", allowed=tuple(dict.fromkeys((*VARIANTS, *SOURCES))),
        meaning="published network that it is built like (networks/resnet.py, registry.py); deit "
        "and timm are for ViTs"),
    "width": Key(
        default=16, allowed=_POSITIVE,
        meaning="64: the published network; its channels scale with it (ResNets: channels of the "
        "first stage)"),
    "stem": Key(
        default="strided", allowed=tuple(STEMS),
        meaning="first layers: imagenet (7x7/2, max-pool), strided (5x5/2) or small (3x3); ViT "
        "patches 16, 8, 4; ConvNeXt 4, 2, 1"),
    "projection": Key(
        default=0, allowed=_COUNT,
        meaning="width of a dense layer after the pool (VGGFace2: 512); 0: no such layer"),
    "head_widths": Key(
        default=(), allowed=Elements(kind=int, low=1),
        meaning="hidden layers of the head; the reference study has (256, 128)"),
    "head_dropout": Key(
        default=(), allowed=Elements(kind=float, low=0),
        meaning="dropout before each hidden layer; the reference study has (0.5, 0.2)"),
    "output": Key(
        default="sigmoid", allowed=("sigmoid", "linear"),
        meaning="regression: prediction = output_offset + output_scale * this function"),
    "output_scale": Key(
        default=40.0, allowed=Range(low=1e-12),
        meaning="regression: factor of model.output, label units"),
    "output_offset": Key(
        default=20.0, meaning="regression: added to the scaled model.output, label units"),
    "preprocess": Key(
        default="unit", allowed=("unit", "caffe", "vggface2", "torch"),
        meaning="scaling of the pixels: unit (-1 to 1), caffe (BGR, mean subtracted), vggface2 or "
        "torch"),
    "own_preprocess": Key(
        default=False,
        meaning="True: keep model.preprocess though the pretrained weights had another one"),
    "dtype": Key(
        default="float32", allowed=("float32", "bfloat16"),
        meaning="precision of the arithmetic; parameters stay float32"),
    "frozen": Key(
        default=(), allowed=Elements(kind=str),
        meaning="regular expressions; parameters whose path matches one are not trained"),
    "pretrained": Key(
        default="", meaning=".h5 (Keras, VGGFace2) or .safetensors (torchvision, timm) file; '': "
        "random weights"),
    "resize_positions": Key(
        default=False,
        meaning="True: position embeddings of pretrained ViTs are interpolated for another number "
        "of patches; False: such a file is refused"),
}

_TRAIN = {
    "epochs": Key(
        default=12, allowed=Range(low=1, high=MOST_EPOCHS), meaning="epochs of M_O and of M_R"),
    "batch_size": Key(default=64, allowed=_POSITIVE, meaning="samples per step"),
    "optimizer": Key(default="adam", allowed=_OPTIMIZERS, meaning="optimizer (optim.py)"),
    "learning_rate": Key(default=3e-3, allowed=_COUNT, meaning="the highest of the schedule"),
    "schedule": Key(
        default="onecycle", allowed=_SCHEDULES,
        meaning="course of the learning rate (optim.py says how it ends)"),
    "warmup": Key(
        default=0.25, allowed=_SHARE,
        meaning="onecycle: share of the steps in which the learning rate rises"),
    "weight_decay": Key(
        default=0.0, allowed=_COUNT, meaning="adam: decoupled; sgd: part of the gradient"),
    "momentum": Key(default=0.9, allowed=_SHARE, meaning="sgd: momentum"),
    "loss": Key(
        default="mae", meaning="mae or mse for a regression, cross_entropy for a classification"),
    "class_weights": Key(
        default="none", allowed=("none", "balanced"),
        meaning="balanced: classes weigh the same in the loss, by their counts in the training set "
        "with D_f, for M_R too"),
    "patience": Key(
        default=0, allowed=_COUNT,
        meaning="epochs without a better validation loss before training stops; 0: never"),
    "keep": Key(
        default="best", allowed=("best", "last"),
        meaning="weights that are kept: best (by validation loss) or last (after all epochs)"),
    "recalibrate_norms": Key(
        default="auto", allowed=("auto", "on", "off"),
        meaning="predict with the batch statistics of all training samples; auto: if training "
        "leaves over 1 % of the initial ones (engine/recalibration.py)"),
    "checkpoint_seconds": Key(
        default=120.0, allowed=_COUNT,
        meaning="seconds between two checkpoints of a half-finished stage"),
    "tensorboard": Key(
        default=False, meaning="True: also write TensorBoard logs under WORKDIR/tensorboard"),
    "log": Key(
        default="", allowed=("", *TRACKERS),
        meaning="tracker that gets the training curves, too: tensorboard (WORKDIR/tensorboard), "
        "wandb or mlflow, if installed; '': none"),
}

_ORIGINAL = {
    "path": Key(
        default="", meaning="M_O from outside (stages/weights.py); {seed} in it: a file for each "
        "seed; '': it is trained"),
    "trained_on": Key(
        default="", meaning="file with the ids that M_O from outside was trained on, one a line; "
        "'': the training split"),
    "expected_test": Key(
        default=-1.0, allowed=Range(low=-1),
        meaning="accuracy, or MAE in label units, of M_O from outside on the test set; -1: not "
        "compared"),
    "tolerance": Key(
        default=0.05, allowed=_SHARE,
        meaning="share of original.expected_test by which M_O's own value may differ from it"),
}

_RETRAIN = {
    "mode": Key(
        default="train", allowed=("train", "off"),
        meaning="off: a run without M_R, for models that cannot be retrained"),
    "path": Key(
        default="", meaning="M_R from outside, as original.path; {forget_set} in it: a file for "
        "each forget set; '': it is trained"),
}

_FORGET = {
    "sets": Key(
        default=("20-28",), allowed=Elements(kind=str, filled=True, different="sets"),
        meaning="forget sets, such as 20-28, class:3, random:0.02, gender:1, race:2, ids:FILE "
        "or set:NAME"),
    "unknown": Key(
        default="refuse", allowed=("refuse", "skip"),
        meaning="ids of an ids:FILE that the data lack: refuse them, or go on without them"),
}

_UNLEARN = {
    "method": Key(
        default="ft", meaning="a method that methods/__init__.py lists, or your own: FILE.py:NAME"),
    "epochs": Key(
        default=(2, 8), allowed=Elements(
            kind=int, low=0, high=MOST_EPOCHS, filled=True, different="budgets"),
        meaning="budgets; at a constant learning rate one run has a snapshot at each"),
    "from_seed": Key(
        default=-1, meaning="all members start from the M_O of this seed; -1: each from its own"),
    "batch_size": Key(default=64, allowed=_POSITIVE, meaning="samples per step"),
    "optimizer": Key(default="adam", allowed=_OPTIMIZERS, meaning="optimizer (optim.py)"),
    "learning_rate": Key(default=2e-3, allowed=_COUNT, meaning="the highest of the schedule"),
    "schedule": Key(
        default="cosine", allowed=_SCHEDULES, meaning="course of the learning rate; one that ends "
        "high leaves the noise of the last steps in the weights"),
    "warmup": Key(
        default=0.25, allowed=_SHARE,
        meaning="onecycle: share of the steps in which the learning rate rises"),
    "weight_decay": Key(
        default=0.0, allowed=_COUNT, meaning="adam: decoupled; sgd: part of the gradient"),
    "momentum": Key(default=0.9, allowed=_SHARE, meaning="sgd: momentum"),
    "labels": Key(
        default="offset", allowed=("uniform", "offset"),
        meaning="rnd, salun: how the random labels are drawn"),
    "offset": Key(
        default=(3, 6), allowed=Elements(kind=float, length=2, low=0, filled=True),
        share=LabelShare(
            low=0, high=1, otherwise="every drawn label would be an end of the range"),
        meaning="rnd, salun: smallest and largest offset, label units"),
    "label_units": Key(
        default="years", allowed=("years", "as_published"),
        meaning="rnd: as_published repeats the unit error of the reference study"),
    "spread": Key(
        default=5.0, allowed=Range(low=1e-6),
        share=LabelShare(
            low=1 / 160, high=1, otherwise="a Gaussian of that width tells no labels apart"),
        meaning="regression: standard deviation, label units, of the Gaussian that stands for a "
        "model's class probabilities"),
}

_EVAL = {
    "batch_size": Key(default=250, allowed=_POSITIVE, meaning="samples per step of prediction"),
    "alphas": Key(
        default=(2.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0),
        allowed=Elements(kind=float, low=1e-12, filled=True, different="values"), share=_ALPHAS,
        meaning="values of alpha in Forgetting@alpha, label units"),
    "alpha": Key(
        default=15.0, allowed=Range(low=1e-12), share=_ALPHAS,
        meaning="the one of eval.alphas that the headline table shows"),
    "within": Key(
        default=(5.0,), allowed=Elements(kind=float, low=0, different="values"),
        share=LabelShare(low=0, high=1, otherwise="every answer within the range would be right"),
        meaning="regression: largest errors that accuracy counts as right, label units"),
    "audits": Key(
        default=("mia",), allowed=Elements(kind=str, choices=AUDITS, different="audits"),
        meaning="further tests of forgetting (audits.py); some need many seeds"),
    "challenge_bins": Key(
        default=13, allowed=Range(low=1, high=100),
        meaning="bins of epsilon: 13 as the challenge describes it, 14 as in its code"),
    "challenge_narrow": Key(
        default=0.0, allowed=_SHARE,
        meaning="epsilon is 50 where one kind of models has less than this share of the other's "
        "range; the challenge's code had 0.01"),
    "relearn_epochs": Key(
        default=0, allowed=Range(low=0, high=MOST_EPOCHS),
        meaning="most epochs in which models relearn D_f, to measure how fast; 0: not measured"),
    "relearn_rate": Key(default=1e-3, allowed=_COUNT, meaning="learning rate of relearning"),
    "layers": Key(
        default=True,
        meaning="True: layers.csv says how far each layer's weights are from M_O's and M_R's"),
    "explain_samples": Key(
        default=0, allowed=_COUNT,
        meaning="images of D_f, and as many of D_r, that are explained; 0: none"),
    "explain_steps": Key(
        default=32, allowed=_POSITIVE,
        meaning="integrated gradients: points on the path from the baseline"),
    "explain_baseline": Key(
        default="grey", allowed=("black", "grey", "white"),
        meaning="integrated gradients: image at which the path begins"),
    "explain_stage": Key(
        default=0, meaning="Grad-CAM: stage of the network that it reads; 0: the last"),
}

_COMPARE = {
    "methods": Key(
        default=(), allowed=Elements(kind=str),
        meaning="methods that are compared; (): no comparison, only unlearn.method"),
    "budget": Key(
        default="images", allowed=("images", "wall", "flops"),
        meaning="cost that is the same for all methods: images, wall time or FLOPs"),
    "fraction": Key(
        default=0.25, allowed=Range(low=1e-6),
        meaning="the budget, as a share of what retraining took"),
    "trials": Key(
        default=5, allowed=Range(low=1, high=1000),
        meaning="trials of each method, from weak to strong; an odd number has one as configured"),
    "rates": Key(
        default=(0.25, 4.0), allowed=Elements(kind=float, length=2, low=1e-12, filled=True),
        meaning="factors of the learning rate in the weakest and in the strongest trial"),
    "tolerance": Key(
        default=0.05, allowed=_SHARE,
        meaning="share by which the validation error of the chosen trial may be above M_O's"),
    "rank_by": Key(
        default="forgetting", allowed=("forgetting", "F", "attack"),
        meaning="metric that ranks the methods; attack: how far attacks are from their success on "
        "M_R"),
    "unlearn": Key(
        default={}, meaning="METHOD.KEY: replaces unlearn.KEY for that method"),
}

_THESIS = {
    "arms": Key(
        default=(), allowed=Elements(kind=str),
        meaning="variants of methods side by side, each with its settings in thesis.unlearn; (): "
        "only unlearn.method"),
    "unlearn": Key(default={}, meaning="ARM.KEY: replaces unlearn.KEY for that variant"),
    "elsewhere": Key(
        default={}, meaning="ARM: the budgets of that variant on all forget sets but the first"),
}

_PARALLEL = {
    "backend": Key(
        default="", allowed=("", "cpu", "gpu", "tpu"),
        meaning="kind of device; a run fails where it is missing; '': the one that JAX finds"),
    "cpu_devices": Key(
        default=0, allowed=Range(low=0, high=1024),
        meaning="devices that a CPU counts as; 0: one for each core"),
    "members": Key(
        default=0, allowed=_COUNT, meaning="devices along the member axis; 0: all"),
    "batch": Key(default=1, allowed=_POSITIVE, meaning="devices along the batch axis"),
    "members_per_device": Key(
        default=0, allowed=_COUNT,
        meaning="members in one call of the program; 0: one on a CPU, else up to 16"),
    "steps_per_dispatch": Key(
        default=0, allowed=_COUNT,
        meaning="most steps in one call; 0: 8 on a CPU with oneDNN, 1 without it, 32 elsewhere"),
    "cuda_graphs": Key(
        default=True, meaning="True: on a GPU a call is one CUDA graph; False: XLA decides"),
    "convolution": Key(
        default="auto", allowed=conv.SETTINGS,
        meaning="how convolutions are computed: auto, onednn (on a CPU), direct (XLA's) or another "
        "formulation of networks/conv.py"),
    "resident": Key(
        default="auto", allowed=("auto", "device", "stream"),
        meaning="images stay on the device or stream from the host; auto: stream where they would "
        "fill over half of the device's memory"),
}

SECTIONS = {"data": _DATA, "model": _MODEL, "train": _TRAIN, "original": _ORIGINAL,
            "retrain": _RETRAIN, "forget": _FORGET, "unlearn": _UNLEARN, "eval": _EVAL,
            "compare": _COMPARE, "thesis": _THESIS, "parallel": _PARALLEL}
KEYS: dict[str, Key] = {
    "seeds": Key(
        default=(0, 1, 2), allowed=Elements(kind=int, low=0, filled=True, different="seeds"),
        meaning="one model for each: decides its initial weights and the order of its batches"),
    **{f"{section}.{name}": key for section, keys in SECTIONS.items()
       for name, key in keys.items()},
}
