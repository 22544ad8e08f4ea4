"""The references for loaded models: ResNet50 as its three sources define it, in plain NumPy, with
random narrow weights under the published names."""

import numpy as np

WIDTH = 4  # 64 as published
DEPTH = (3, 4, 6, 3)


# --- the networks, as published -------------------------------------------------------------


def conv(x, w_hwio, stride, pads):
    """pads: ((top, bottom), (left, right))"""
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w_hwio.shape[:2], axis=(1, 2))
    windows = windows[:, ::stride, ::stride]  # [B, H, W, C, h, w]
    return np.einsum("bxychw,hwco->bxyo", windows, w_hwio, optimize=True)


def max_pool_3x3_stride_2(x, pad):
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    return windows[:, ::2, ::2].max((-2, -1))


def relu(x):
    return np.maximum(x, 0)


NONE, ONE, THREE = ((0, 0), (0, 0)), ((1, 1), (1, 1)), ((3, 3), (3, 3))


def keras_resnet50(w, x):
    """keras.applications.resnet, ResNet50 without top, pooling 'avg'."""
    def convolution(name, x, stride=1, pads=NONE):
        return conv(x, w[name + "/kernel"], stride, pads) + w[name + "/bias"]

    def norm(name, x):
        scale = w[name + "/gamma"] / np.sqrt(w[name + "/moving_variance"] + 1.001e-5)
        return (x - w[name + "/moving_mean"]) * scale + w[name + "/beta"]

    x = relu(norm("conv1_bn", convolution("conv1_conv", x, 2, THREE)))
    x = max_pool_3x3_stride_2(x, 1)
    for stack, blocks in enumerate(DEPTH, start=2):
        for block in range(1, blocks + 1):
            name = f"conv{stack}_block{block}"
            stride = 2 if stack > 2 and block == 1 else 1
            shortcut = x
            if block == 1:
                shortcut = norm(name + "_0_bn", convolution(name + "_0_conv", x, stride))
            x = relu(norm(name + "_1_bn", convolution(name + "_1_conv", x, stride)))
            x = relu(norm(name + "_2_bn", convolution(name + "_2_conv", x, 1, ONE)))
            x = norm(name + "_3_bn", convolution(name + "_3_conv", x))
            x = relu(shortcut + x)
    return x.mean((1, 2))


def vggface2_resnet50(w, x):
    """WeidiXie/Keras-VGGFace2-ResNet50 up to dim_proj, which has its own relu."""
    def conv_norm(name, x, stride=1, pads=NONE):
        x = conv(x, w[name + "/kernel"], stride, pads)
        scale = w[name + "/bn/gamma"] / np.sqrt(w[name + "/bn/moving_variance"] + 1e-3)
        return (x - w[name + "/bn/moving_mean"]) * scale + w[name + "/bn/beta"]

    assert x.shape[1] % 2 == 0  # 'same', 7x7/2 on an even size: two pixels before, three after
    x = relu(conv_norm("conv1/7x7_s2", x, 2, ((2, 3), (2, 3))))
    x = max_pool_3x3_stride_2(x, 0)
    for stage, blocks in enumerate(DEPTH, start=2):
        for block in range(1, blocks + 1):
            name = f"conv{stage}_{block}_"
            stride = 2 if stage > 2 and block == 1 else 1
            shortcut = conv_norm(name + "1x1_proj", x, stride) if block == 1 else x
            y = relu(conv_norm(name + "1x1_reduce", x, stride))
            y = relu(conv_norm(name + "3x3", y, 1, ONE))
            x = relu(conv_norm(name + "1x1_increase", y) + shortcut)
    return relu(x.mean((1, 2)) @ w["dim_proj/kernel"] + w["dim_proj/bias"])


def torch_resnet50(w, x):
    """torchvision.models.resnet50 (v1.5: the stride is in the 3x3), up to the pool."""
    def conv_norm(conv_name, norm, x, stride=1, pads=NONE):
        x = conv(x, w[conv_name + ".weight"].transpose(2, 3, 1, 0), stride, pads)
        scale = w[norm + ".weight"] / np.sqrt(w[norm + ".running_var"] + 1e-5)
        return (x - w[norm + ".running_mean"]) * scale + w[norm + ".bias"]

    x = max_pool_3x3_stride_2(relu(conv_norm("conv1", "bn1", x, 2, THREE)), 1)
    for layer, blocks in enumerate(DEPTH, start=1):
        for block in range(blocks):
            name = f"layer{layer}.{block}."
            stride = 2 if layer > 1 and block == 0 else 1
            y = relu(conv_norm(name + "conv1", name + "bn1", x))
            y = relu(conv_norm(name + "conv2", name + "bn2", y, stride, ONE))
            y = conv_norm(name + "conv3", name + "bn3", y)
            if block == 0:
                x = conv_norm(name + "downsample.0", name + "downsample.1", x, stride)
            x = relu(y + x)
    return x.mean((1, 2))


# --- random weights under the published names -----------------------------------------------


def bottlenecks():
    """(stage from 0, block from 0, channels in, channels) of ResNet50."""
    channels = WIDTH
    for stage, blocks in enumerate(DEPTH):
        for block in range(blocks):
            yield stage, block, channels, WIDTH * 2**stage
            channels = 4 * WIDTH * 2**stage


def kernel(rng, *shape):
    return rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32)


def statistics(rng, n):
    """gamma, beta, moving mean, moving variance"""
    return [a.astype(np.float32) for a in (rng.uniform(0.5, 1, n), rng.normal(0, 0.3, n),
                                           rng.normal(0, 0.3, n), rng.uniform(0.5, 2, n))]


def keras_norm(rng, name, n):
    leaves = ("gamma", "beta", "moving_mean", "moving_variance")
    return {f"{name}/{leaf}": a for leaf, a in zip(leaves, statistics(rng, n))}


def keras_weights(seed=0):
    rng = np.random.default_rng(seed)
    w = {}

    def add(conv_name, norm_name, *shape):
        w[conv_name + "/kernel"] = kernel(rng, *shape)
        w[conv_name + "/bias"] = rng.normal(0, 0.3, shape[-1]).astype(np.float32)
        w.update(keras_norm(rng, norm_name, shape[-1]))

    add("conv1_conv", "conv1_bn", 7, 7, 3, WIDTH)
    for stage, block, c_in, c in bottlenecks():
        name = f"conv{stage + 2}_block{block + 1}"
        if block == 0:
            add(name + "_0_conv", name + "_0_bn", 1, 1, c_in, 4 * c)
        add(name + "_1_conv", name + "_1_bn", 1, 1, c_in, c)
        add(name + "_2_conv", name + "_2_bn", 3, 3, c, c)
        add(name + "_3_conv", name + "_3_bn", 1, 1, c, 4 * c)
    return w


def vggface2_weights(projection=12, classes=7):
    rng = np.random.default_rng(1)
    w = {}

    def add(name, *shape):
        w[name + "/kernel"] = kernel(rng, *shape)
        w.update(keras_norm(rng, name + "/bn", shape[-1]))

    add("conv1/7x7_s2", 7, 7, 3, WIDTH)
    for stage, block, c_in, c in bottlenecks():
        name = f"conv{stage + 2}_{block + 1}_"
        if block == 0:
            add(name + "1x1_proj", 1, 1, c_in, 4 * c)
        add(name + "1x1_reduce", 1, 1, c_in, c)
        add(name + "3x3", 3, 3, c, c)
        add(name + "1x1_increase", 1, 1, c, 4 * c)
    w["dim_proj/kernel"] = kernel(rng, 32 * WIDTH, projection)
    w["dim_proj/bias"] = rng.normal(0, 0.3, projection).astype(np.float32)
    w["classifier_low_dim/kernel"] = kernel(rng, projection, classes)  # has no bias
    return w


def torch_weights(classes=10):
    rng = np.random.default_rng(2)
    w = {}

    def add(conv_name, norm, *shape_hwio):
        w[conv_name + ".weight"] = np.ascontiguousarray(
            kernel(rng, *shape_hwio).transpose(3, 2, 0, 1))
        leaves = ("weight", "bias", "running_mean", "running_var")
        w.update({f"{norm}.{leaf}": a for leaf, a in zip(leaves, statistics(rng, shape_hwio[-1]))})
        w[norm + ".num_batches_tracked"] = np.array(5, np.int64)

    add("conv1", "bn1", 7, 7, 3, WIDTH)
    for stage, block, c_in, c in bottlenecks():
        name = f"layer{stage + 1}.{block}."
        add(name + "conv1", name + "bn1", 1, 1, c_in, c)
        add(name + "conv2", name + "bn2", 3, 3, c, c)
        add(name + "conv3", name + "bn3", 1, 1, c, 4 * c)
        if block == 0:
            add(name + "downsample.0", name + "downsample.1", 1, 1, c_in, 4 * c)
    w["fc.weight"] = np.ascontiguousarray(kernel(rng, 32 * WIDTH, classes).T)
    w["fc.bias"] = rng.normal(0, 0.3, classes).astype(np.float32)
    return w
