"""References for VGG16-BN, ViT and ConvNeXt: names as published, forward passes in plain NumPy.

Each network is narrow, and ViT and ConvNeXt are shallow. The names of tensors are written out here
as torchvision and timm write them, without code of the package.
"""

import math

import numpy as np
from published_networks import conv, relu

WIDTH, CLASSES, TOKENS = 2, 5, 4  # of `model.width`; outputs; patches
VGG_STAGES = (2, 2, 3, 3, 3)
VIT_DEPTH, VIT_HEADS = 2, 3
CONVNEXT_DEPTHS = (1, 1, 2, 1)


def layer(rng, name, *shape, bias=True):
    """A layer's tensors in PyTorch's axes."""
    scale = 2 / math.sqrt(np.prod(shape[1:]))
    tensors = {f"{name}.weight": rng.normal(0, scale, shape).astype(np.float32)}
    if bias:
        tensors[f"{name}.bias"] = rng.normal(0, 0.3, shape[0]).astype(np.float32)
    return tensors


def norm(rng, name, n, running=False):
    tensors = {f"{name}.weight": rng.uniform(0.5, 1.5, n).astype(np.float32),
               f"{name}.bias": rng.normal(0, 0.3, n).astype(np.float32)}
    if running:
        tensors |= {f"{name}.running_mean": rng.normal(0, 0.3, n).astype(np.float32),
                    f"{name}.running_var": rng.uniform(0.5, 2, n).astype(np.float32),
                    f"{name}.num_batches_tracked": np.array(7)}
    return tensors


def vgg_weights(classes=CLASSES):
    """torchvision.models.vgg16_bn: Conv2d, BatchNorm2d, ReLU, ..., MaxPool2d in `features`."""
    rng, tensors, index, before = np.random.default_rng(0), {}, 0, 3
    for stage, count in enumerate(VGG_STAGES):
        after = WIDTH * min(2**stage, 8)
        for _ in range(count):
            tensors |= layer(rng, f"features.{index}", after, before, 3, 3)
            tensors |= norm(rng, f"features.{index + 1}", after, running=True)
            before, index = after, index + 3
        index += 1
    hidden = 64 * WIDTH
    return (tensors | layer(rng, "classifier.0", hidden, before * 49)
            | layer(rng, "classifier.3", hidden, hidden)
            | layer(rng, "classifier.6", classes, hidden))


def vgg(w, x):
    """The forward pass; the map before the head has one pixel, which the head repeats 49 times."""
    index = 0
    for count in VGG_STAGES:
        for _ in range(count):
            name, after = f"features.{index}", f"features.{index + 1}"
            x = conv(x, w[f"{name}.weight"].transpose(2, 3, 1, 0), 1, ((1, 1), (1, 1)))
            x = x + w[f"{name}.bias"]
            x = (x - w[f"{after}.running_mean"]) / np.sqrt(w[f"{after}.running_var"] + 1e-5)
            x = relu(x * w[f"{after}.weight"] + w[f"{after}.bias"])
            index += 3
        b, h, _, c = x.shape
        x = x.reshape(b, h // 2, 2, h // 2, 2, c).max((2, 4))
        index += 1
    assert x.shape[1:3] == (1, 1)
    x = np.repeat(x.reshape(len(x), -1), 49, axis=1)  # channels first, then 7x7 pixels
    for name in ("classifier.0", "classifier.3"):
        x = relu(dense(w, name, x))
    return dense(w, "classifier.6", x)


def vit_weights(tokens=TOKENS, classes=CLASSES, patch=16):
    """timm's vision_transformer.py."""
    rng, c = np.random.default_rng(1), VIT_HEADS * WIDTH
    tensors = {"cls_token": rng.normal(0, 0.5, (1, 1, c)).astype(np.float32),
               "pos_embed": rng.normal(0, 0.5, (1, 1 + tokens, c)).astype(np.float32)}
    tensors |= layer(rng, "patch_embed.proj", c, 3, patch, patch)
    for i in range(VIT_DEPTH):
        tensors |= norm(rng, f"blocks.{i}.norm1", c) | norm(rng, f"blocks.{i}.norm2", c)
        for name, shape in (("attn.qkv", (3 * c, c)), ("attn.proj", (c, c)),
                            ("mlp.fc1", (4 * c, c)), ("mlp.fc2", (c, 4 * c))):
            tensors |= layer(rng, f"blocks.{i}.{name}", *shape)
    return tensors | norm(rng, "norm", c) | layer(rng, "head", classes, c)


def vit(w, x):
    patch = w["patch_embed.proj.weight"].shape[-1]
    x = conv(x, w["patch_embed.proj.weight"].transpose(2, 3, 1, 0), patch, ((0, 0), (0, 0)))
    x = x.reshape(len(x), -1, x.shape[-1]) + w["patch_embed.proj.bias"]
    x = np.concatenate([np.repeat(w["cls_token"], len(x), 0), x], 1) + w["pos_embed"]
    for i in range(VIT_DEPTH):
        y = layer_norm(w, f"blocks.{i}.norm1", x)
        qkv = dense(w, f"blocks.{i}.attn.qkv", y)
        q, k, v = qkv.reshape(*x.shape[:2], 3, VIT_HEADS, -1).transpose(2, 0, 3, 1, 4)
        scores = np.exp(q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1]))
        y = (scores / scores.sum(-1, keepdims=True)) @ v  # [B, heads, N, C / heads]
        x = x + dense(w, f"blocks.{i}.attn.proj", y.swapaxes(1, 2).reshape(x.shape))
        y = layer_norm(w, f"blocks.{i}.norm2", x)
        x = x + dense(w, f"blocks.{i}.mlp.fc2", gelu(dense(w, f"blocks.{i}.mlp.fc1", y)))
    return dense(w, "head", layer_norm(w, "norm", x)[:, 0])


def convnext_weights(classes=CLASSES):
    """torchvision.models.convnext: stem, CNBlocks and downsamplings alternate in `features`."""
    rng, c = np.random.default_rng(2), WIDTH * 3 // 2
    tensors = layer(rng, "features.0.0", c, 3, 4, 4) | norm(rng, "features.0.1", c)
    for stage, depth in enumerate(CONVNEXT_DEPTHS):
        if stage:
            tensors |= norm(rng, f"features.{2 * stage}.0", c)
            tensors |= layer(rng, f"features.{2 * stage}.1", 2 * c, c, 2, 2)
            c *= 2
        for block in range(depth):
            name = f"features.{2 * stage + 1}.{block}"
            tensors[f"{name}.layer_scale"] = rng.uniform(0.5, 1, (c, 1, 1)).astype(np.float32)
            tensors |= layer(rng, f"{name}.block.0", c, 1, 7, 7) | norm(rng, f"{name}.block.2", c)
            tensors |= layer(rng, f"{name}.block.3", 4 * c, c)
            tensors |= layer(rng, f"{name}.block.5", c, 4 * c)
    return tensors | norm(rng, "classifier.0", c) | layer(rng, "classifier.2", classes, c)


def convnext(w, x):
    def convolution(name, x, stride):
        return (conv(x, w[f"{name}.weight"].transpose(2, 3, 1, 0), stride, ((0, 0), (0, 0)))
                + w[f"{name}.bias"])

    x = layer_norm(w, "features.0.1", convolution("features.0.0", x, 4))
    for stage, depth in enumerate(CONVNEXT_DEPTHS):
        if stage:
            x = layer_norm(w, f"features.{2 * stage}.0", x)
            x = convolution(f"features.{2 * stage}.1", x, 2)
        for block in range(depth):
            name = f"features.{2 * stage + 1}.{block}"
            kernel = w[f"{name}.block.0.weight"]
            y = np.concatenate([conv(x[..., c:c + 1], kernel[c:c + 1].transpose(2, 3, 1, 0), 1,
                                     ((3, 3), (3, 3))) for c in range(x.shape[-1])], -1)
            y = layer_norm(w, f"{name}.block.2", y + w[f"{name}.block.0.bias"])
            y = dense(w, f"{name}.block.5", gelu(dense(w, f"{name}.block.3", y)))
            x = x + y * w[f"{name}.layer_scale"].reshape(-1)
    return dense(w, "classifier.2", layer_norm(w, "classifier.0", x.mean((1, 2))))


def dense(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer_norm(w, name, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


# name: (config, tensors, forward pass)
PUBLISHED = {
    "vgg16_bn": (dict(variant="torchvision", preprocess="torch"), vgg_weights, vgg),
    "vit_tiny": (dict(variant="deit", preprocess="torch"), vit_weights, vit),
    "convnext_tiny": (dict(variant="torchvision", preprocess="torch"), convnext_weights, convnext),
}
