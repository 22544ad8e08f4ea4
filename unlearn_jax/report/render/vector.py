"""Matplotlib's SVG, changed for use in a page: small, without own fonts, with themed colours.

The page defines each colour `--RRGGBB` for light and for dark (`themes`). Names of elements become
unique, and formulas become text.
"""

import colorsys
import hashlib
import io
import re
import xml.etree.ElementTree as ET
from base64 import b64decode, b64encode
from html import escape

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure as Canvas
from PIL import Image

PAPER = {"light": "#ffffff", "dark": "#16181c"}
_CONTRAST = 4.5  # of coloured lines and marks on dark paper, as far as white mixed in can give it
_DPI = 100  # of images within a drawing
_XLINK = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_COMMAND = re.compile(r" ?([MLHVCQZz]) ?")
_COLOR = re.compile(r"#([0-9a-f]{6})\b")
_FORMULA = re.compile(r"(?<!\\)\$([A-Za-z])_(?:\\mathrm\{(.*?)\}|([A-Za-z]))\$")


def render(figure: Canvas, name: str) -> str:
    """A figure that has been drawn as an `<svg>` element of the same layout.

    Args:
      name: unique in the page; part of the names of its elements.
    """
    buffer = io.StringIO()
    engine, canvas, dpi = figure.get_layout_engine(), figure.canvas, figure.dpi
    figure.set_layout_engine("none")  # a second pass would move what the first one placed
    figure.set_dpi(_DPI)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        # `Figure.savefig` draws twice: once to no file, for what follows from the layout.
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    figure.set_canvas(canvas)
    figure.set_dpi(dpi)
    figure.set_layout_engine(engine)
    parser = ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))
    root = ET.fromstring(buffer.getvalue().encode(), parser)
    _strip(root)
    # short, as a picture may refer a thousand times to the shape of its marks
    prefix = "p" + hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    names = {old: f"{prefix}-{i}" for i, old in enumerate(_references(root))}
    _rewrite(root, names)
    width, height = figure.get_size_inches() * 72
    inner = "".join(_text(child) for child in root)
    return (f'<svg class="plot" viewBox="0 0 {width:g} {height:g}" '
            f'style="--w:{width:g}">{inner}</svg>')


def themes(svgs: list[str]) -> str:
    """CSS that defines each colour of some SVGs for light and for dark."""
    found = sorted({c for svg in svgs for c in re.findall(r"var\(--([0-9a-f]{6})\)", svg)})
    return "".join(f"--{c}:light-dark(#{c},{dark('#' + c)});" for c in found)


def dark(color: str) -> str:
    """The colour on dark paper that corresponds to this one on white paper.

    Light greys become dark greys and the reverse; a colour is lightened until it can be seen.
    """
    red, green, blue = to_rgb(color)
    _, _, saturation = colorsys.rgb_to_hsv(red, green, blue)
    if max(red, green, blue) - min(red, green, blue) < 0.04:
        level = 1 - (red + green + blue) / 3
        ink, paper = to_rgb("#f2f3f5"), to_rgb(PAPER["dark"])
        red, green, blue = (p + (i - p) * level ** 0.85 for p, i in zip(paper, ink))
        return to_hex((red, green, blue))
    ground = _luminance(to_rgb(PAPER["dark"]))
    for share in (i / 20 for i in range(20)):
        mixed = (red + (1 - red) * share, green + (1 - green) * share, blue + (1 - blue) * share)
        if (_luminance(mixed) + 0.05) / (ground + 0.05) >= _CONTRAST:
            break
    return to_hex(mixed)


def _luminance(rgb) -> float:
    """Relative luminance (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def markup(text: str) -> str:
    """Text of a figure as HTML: formulas such as M_R with a subscript, all else escaped."""
    parts, at = [], 0
    for match in _FORMULA.finditer(text):
        below = (match[2] or match[3]).replace("\\_", "_").replace("{-}", "-")
        parts += [_plain(text[at:match.start()]), f"{match[1]}<sub>{escape(below)}</sub>"]
        at = match.end()
    return "".join([*parts, _plain(text[at:])])


def _plain(text: str) -> str:
    return escape(text.replace("\\$", "$"))


def _strip(node: ET.Element) -> None:
    """Removes metadata. Matplotlib draws a formula letter by letter; it becomes one text."""
    source = ""
    for child in list(node):
        tag: object = child.tag  # of a comment it is a function, whatever its type says
        if tag is ET.Comment:
            source = (child.text or "").strip()
            node.remove(child)
        elif _tag(child) == "metadata" or (_tag(child) == "defs" and len(child)
                                           and _tag(child[0]) == "style"):
            node.remove(child)
        elif _tag(child) == "g" and _FORMULA.search(source) and len(child):
            sizes = [float(s) for s in re.findall(r"font-size: ([\d.]+)px",
                                                  ET.tostring(child, encoding="unicode"))]
            for letter in list(child):
                child.remove(letter)
            ET.SubElement(child, "text", {"style": f"font-size:{max(sizes, default=9):g}px",
                                          "formula": source})
            source = ""
        else:
            _strip(child)
            if _tag(child) == "g" and not len(child):
                node.remove(child)


def _references(root: ET.Element) -> list[str]:
    """The names of elements that others refer to, in order of appearance."""
    text = ET.tostring(root, encoding="unicode")
    return list(dict.fromkeys(re.findall(r'(?:url\(#|href="#)([^)"]+)', text)))


def _rewrite(node: ET.Element, names: dict[str, str], shape: bool = False) -> None:
    """Shorter numbers and styles, unique names, colours as variables.

    Args:
      shape: whether the node belongs to a small shape that is drawn many times.
    """
    shape = shape or _tag(node) == "defs"
    attributes = node.attrib
    if "id" in attributes:
        name = attributes.pop("id")
        if name in names:
            attributes["id"] = names[name]
    if _XLINK in attributes:
        link = attributes.pop(_XLINK)
        attributes["href"] = _fewer_colors(link) if link.startswith("data:") \
            else f"#{names[link[1:]]}"
    for key, value in list(attributes.items()):
        if key == "d":
            value = " ".join(_NUMBER.sub(_short if shape else _tenths, value).split())
            attributes[key] = _COMMAND.sub(r"\1", value)
        elif key in ("x", "y", "width", "height", "transform"):
            value = _NUMBER.sub(_short, value)
            attributes[key] = re.sub(r"rotate\(-?0 [^)]*\)", "", value).strip()
            if not attributes[key]:
                del attributes[key]
        elif key == "style":
            value = re.sub(r"font-family: [^;]*;? ?", "", value)
            value = re.sub(r"font: ([\d.]+px) [^;]*", r"font-size: \1", value)
            attributes[key] = _COLOR.sub(r"var(--\1)", value).replace("; ", ";").replace(": ", ":")
        elif key == "clip-path":
            attributes[key] = f"url(#{names[value.removeprefix('url(#').removesuffix(')')]})"
    for child in node:
        _rewrite(child, names, shape)
    _hoist(node)


def _hoist(node: ET.Element) -> None:
    """Moves a style that all marks of a line or all lines of a collection share to their group."""
    if len(node) < 2 or any(_tag(child) not in ("use", "path") for child in node):
        return
    for key in ("style", "clip-path"):
        values = {child.get(key, "") for child in node}
        if key not in node.attrib and len(values) == 1 and "" not in values:
            # opacity of a group applies to all its shapes together, so overlaps would not show
            node.attrib[key] = re.sub(r"(?<![-a-z])opacity:([^;]*)",
                                      r"fill-opacity:\1;stroke-opacity:\1", values.pop())
            for child in node:
                del child.attrib[key]


def _short(match: re.Match) -> str:
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")


def _tenths(match: re.Match) -> str:
    """Of a point of 1/72 inch: less than a pixel."""
    return f"{float(match[0]):.1f}".removesuffix(".0")


def _fewer_colors(link: str) -> str:
    """A PNG of 64 colours, within a link."""
    head, _, data = link.partition(",")
    picture = Image.open(io.BytesIO(b64decode(data))).convert("RGBA")
    picture = picture.quantize(64, Image.Quantize.FASTOCTREE)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"{head},{b64encode(buffer.getvalue()).decode()}"


def _tag(node: ET.Element) -> str:
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""


def _text(node: ET.Element) -> str:
    attributes = "".join(f' {key}="{escape(value)}"' for key, value in node.attrib.items()
                         if key != "formula")
    if "formula" in node.attrib:
        inner = markup(node.attrib["formula"]).replace(
            "<sub>", '<tspan class="sub" dy="2">').replace("</sub>", '</tspan><tspan dy="-2">')
        inner += "</tspan>" * (inner.count("<tspan") - inner.count("</tspan>"))
    else:
        inner = escape(node.text.strip("\n")) if node.text and node.text.strip() else ""
        inner += "".join(_text(child) for child in node)
    tag = _tag(node)
    if tag == "g" and not attributes:
        return inner
    return f"<{tag}{attributes}>{inner}</{tag}>"
