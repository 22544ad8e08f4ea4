"""Figure 1 of the reference study: the network and its head, from the config."""

import dataclasses

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from unlearn_jax.report.figures.style import INK, Made, canvas, plain
from unlearn_jax.report.tables.inputs import Run

# The same as in models.py, which is not imported because a report needs no JAX.
BLOCKS = {"resnet4": ((1,), False), "resnet10": ((1, 1, 1, 1), False),
          "resnet18": ((2, 2, 2, 2), False), "resnet50": ((3, 4, 6, 3), True)}
STEMS = {"imagenet": (7, 2, True), "strided": (5, 2, False), "small": (3, 1, False)}
_COLORS = {"images": "#999999", "backbone": "#0072b2", "head": "#d55e00", "output": "#009e73"}


@dataclasses.dataclass(frozen=True)
class Layer:
    """A box of the picture.

    Attributes:
      part: 'images', 'backbone', 'head' or 'output'.
      text: its operation.
      shape: the shape of its output.
    """

    part: str
    text: str
    shape: str


def layers(run: Run) -> list[Layer]:
    """The network of the config, from images to label units; [] where the config has none."""
    config = run.run["config"]
    model = config.get("model", {})
    size = config.get("data", {}).get("image_size")
    if not size or model.get("name") not in BLOCKS or model.get("stem") not in STEMS:
        return []
    blocks, bottleneck = BLOCKS[model["name"]]
    kernel, stride, pool = STEMS[model["stem"]]
    found = [Layer("images", "image", f"{size}×{size}×3")]
    size = -(-size // stride)
    found.append(Layer("backbone", f"{kernel}×{kernel} conv", f"{size}×{size}×{model['width']}"))
    if pool:
        size = -(-size // 2)
        found.append(Layer("backbone", "max-pool", f"{size}×{size}×{model['width']}"))
    for i, count in enumerate(blocks):
        size = -(-size // 2) if i else size
        channels = model["width"] * 2 ** i * (4 if bottleneck else 1)
        kind = "bottleneck" if bottleneck else "residual"
        found.append(Layer("backbone", f"{count} {kind}\nblock{'s' * (count > 1)}",
                           f"{size}×{size}×{channels}"))
    found.append(Layer("backbone", "average pool", f"{channels}"))
    if model.get("projection"):
        found.append(Layer("backbone", "dense, ReLU", f"{model['projection']}"))
    for width, rate in zip(model.get("head_widths", ()), model.get("head_dropout", ())):
        drop = f"dropout {rate:g}\n" if rate else ""
        found.append(Layer("head", f"{drop}dense, ReLU", f"{width}"))
    sigmoid = model.get("output") == "sigmoid"
    found.append(Layer("head", "dense" + (", sigmoid" if sigmoid else ""), "1"))
    scale, offset = model.get("output_scale", 1.0), model.get("output_offset", 0.0)
    formula = f"{offset:g} + {scale:g} · z" if offset else f"{scale:g} · z"
    found.append(Layer("output", f"{formula}", f"{run.label} ({run.unit})"))
    return found


def draw(run: Run) -> Made:
    """Boxes from left to right, with the shape of the output below each."""
    found = layers(run)
    model = run.run["config"].get("model", {})
    figure, axes = canvas(8.4, 2.7)
    ax = axes[0, 0]
    ax.set_axis_off()
    ax.set_xlim(-0.75, max(len(found), 1) - 0.4)
    ax.set_ylim(-0.62, 1.3)
    for i, layer in enumerate(found):
        _box(ax, i, layer)
        if i:
            ax.annotate("", (i - 0.31, 0.5), (i - 0.69, 0.5), zorder=1,
                        arrowprops={"arrowstyle": "-|>", "color": "#666666", "lw": 0.9})
    start = model.get("pretrained") or "random"
    names = {"backbone": f"{model.get('name', 'network')}, width {model.get('width', '?')}",
             "head": "regression head"}
    for part, name in names.items():
        at = [i for i, layer in enumerate(found) if layer.part == part]
        if at:
            ax.plot([at[0] - 0.36, at[-1] + 0.36], [1.08, 1.08], color=_COLORS[part], lw=2)
            ax.text((at[0] + at[-1]) / 2, 1.13, plain(name), ha="center", va="bottom", fontsize=9)
    return figure, "the network and its head", (
        f"The model: {model.get('name', '?')} with a head for the {run.label}, from the config of "
        f"this run. Below each box: height × width × channels of its output. Weights of the "
        f"backbone at the start: {start}.")


def _box(ax: Axes, at: int, layer: Layer) -> None:
    color = _COLORS[layer.part]
    ax.add_patch(FancyBboxPatch((at - 0.27, 0.02), 0.54, 0.96, boxstyle="round,pad=0.02",
                                facecolor="white", edgecolor=color, lw=1.5, zorder=2))
    ax.text(at, 0.5, plain(layer.text), rotation=90, ha="center", va="center", fontsize=8.5,
            color=INK, zorder=3, linespacing=1.1)
    ax.text(at, -0.09, plain(layer.shape), rotation=30, ha="right", va="top", fontsize=7.5,
            rotation_mode="anchor", color=INK)
