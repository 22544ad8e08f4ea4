"""Reads a program that XLA compiled for a GPU: its kernels, their traffic and operations.

Input is the text of the optimised program (`Compiled.as_text()`). One instruction is one launch; a
loop's body counts once per iteration. Bytes are those that an instruction reads and writes: each
operand once, and only the slice of a sliced operand. This is the memory traffic if no cache keeps
data between kernels.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16,
         "f16": 16, "s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "c64": 64,
         "c128": 128, "token": 0}
_ARRAY = re.compile(rf"\b({'|'.join(sorted(_BITS, key=len, reverse=True))})\[([0-9,]*)\]")
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")

_NAMES = ("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "reshape")
_NO_KERNEL = {*_NAMES, "after-all", "partition-id", "replica-id", "opt-barrier", "async-done",
              "async-update", "copy-done", "fusion-done"}
_SLICES = ("slice", "dynamic-slice", "gather")
_MOVES = {*_SLICES, "concatenate", "pad", "dynamic-update-slice", "copy", "transpose"}

# The kinds of kernels, in the order of a table.
KINDS = ("convolution", "product", "reduction", "elementwise", "stack", "transpose", "copy",
         "other")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      shape: shape of its result, as XLA writes it; for a tuple, all parts.
      op: the operation, such as `fusion`.
      operands: names in the same computation.
      rest: the text after the operands.
      root: True if it is the computation's result.
    """

    name: str
    shape: str
    op: str
    operands: tuple[str, ...]
    rest: str
    root: bool

    def attribute(self, key: str) -> str:
        """The value of an attribute, such as the name after `calls=%`; '' if there is none."""
        found = re.search(rf'\b{key}="?%?([\w.\-$]+)', self.rest)
        return found.group(1) if found else ""


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One launch.

    Attributes:
      kind: one of `KINDS`.
      times: number of launches in a call of the program.
      in_loop: True if a loop launches it.
      read, written: bytes per launch.
      flops: operations of convolutions and matrix products, per launch.
      dtype: type of its first operand, such as `bf16`.
      name: name in the program.
    """

    kind: str
    times: int
    in_loop: bool
    read: float
    written: float
    flops: float
    dtype: str
    name: str


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """The computations of a program by name, and the name of its entry computation.

    Raises:
      ValueError: the text is not such a program.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if not line.startswith(" "):
            found = _COMPUTATION.match(line)
            current = None
            if found and not line.startswith("HloModule"):
                current = computations.setdefault(found.group(2), {})
                entry = found.group(2) if found.group(1) else entry
        elif current is not None and (instruction := _instruction(line)):
            current[instruction.name] = instruction
    if not entry:
        raise ValueError(f"no program of XLA: {text[:80]!r}")
    return computations, entry


def kernels(text: str) -> list[Kernel]:
    """All launches of a program, in the order of the text."""
    computations, entry = parse(text)
    found = []
    for inside, instruction, times, in_loop in _launched(computations, entry, 1, False):
        kind = _kind(computations, instruction)
        read, written = _bytes(computations, inside, instruction)
        first = inside[instruction.operands[0]].shape if instruction.operands else ""
        dtypes = _ARRAY.findall(first)
        found.append(Kernel(kind, times, in_loop, read, written,
                            _flops(computations, inside, instruction, kind),
                            dtypes[0][0] if dtypes else "", instruction.name))
    return found


def array_bytes(shape: str) -> float:
    """Bytes of a shape as XLA writes it; for a tuple, the sum of all parts."""
    return sum(_BITS[dtype] * math.prod(_sizes(sizes)) / 8
               for dtype, sizes in _ARRAY.findall(shape))


def _instruction(line: str) -> Instruction | None:
    found = _INSTRUCTION.match(line)
    if not found:
        return None
    root, name, right = found.groups()
    end = _closing(right) + 1 if right.startswith("(") else right.index(" ")
    shape, rest = right[:end], right[end:].lstrip()
    op = re.match(r"([\w\-]+)\(", rest)
    if not op:
        return None
    end = _closing(rest, op.end() - 1)
    inside = re.sub(r"/\*.*?\*/", "", rest[op.end():end])
    operands = () if op.group(1) in ("parameter", "constant") else \
        tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(name, shape, op.group(1), operands, rest[end + 1:], bool(root))


def _closing(text: str, start: int = 0) -> int:
    """The place of the bracket that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] in "([{") - (text[i] in ")]}")
        if depth == 0:
            return i
    raise ValueError(f"a bracket is never closed: {text[start:start + 80]!r}")


def _launched(computations: dict[str, Computation], name: str, times: int,
              in_loop: bool) -> Iterator[tuple[Computation, Instruction, int, bool]]:
    """The instructions that a call of a computation launches."""
    inside = computations[name]
    for instruction in inside.values():
        if instruction.op == "while":
            count = re.search(r'"known_trip_count":\{"n":"?(\d+)', instruction.rest)
            turns = times * (int(count.group(1)) if count else 1)
            for part in ("condition", "body"):
                yield from _launched(computations, instruction.attribute(part), turns, True)
        elif instruction.op == "call":
            yield from _launched(computations, instruction.attribute("to_apply"), times, in_loop)
        elif instruction.op == "conditional":
            # Each branch counts once: an upper bound, because only one is taken.
            branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.rest)
            for branch in re.findall(r"%([\w.\-]+)", branches.group(1)) if branches else \
                    map(instruction.attribute, ("true_computation", "false_computation")):
                yield from _launched(computations, branch, times, in_loop)
        elif instruction.op == "async-start":
            yield from _launched(computations, instruction.attribute("calls"), times, in_loop)
        elif instruction.op not in _NO_KERNEL:
            yield inside, instruction, times, in_loop


def _kind(computations: dict[str, Computation], instruction: Instruction) -> str:
    if instruction.op == "custom-call":
        target = instruction.attribute("custom_call_target")
        return "convolution" if "conv" in target else "product" if "cublas" in target else "other"
    if instruction.op != "fusion":
        return _kind_of_ops({instruction.op})
    backend = re.search(r'"fusion_backend_config":\{"kind":"([^"]*)"', instruction.rest)
    body = computations[instruction.attribute("calls")].values()
    # Arithmetic on scalars is arithmetic on indices.
    ops = {i.op for i in body if re.search(r"\[\d", i.shape) or i.op in ("convolution", "dot")}
    if backend and "cudnn" in backend.group(1):
        ops.add("convolution")
    return _kind_of_ops(ops - {*_NAMES, "broadcast", "convert"})


def _kind_of_ops(ops: set[str]) -> str:
    if "convolution" in ops:
        return "convolution"
    if "dot" in ops:
        return "product"
    if ops and ops <= {"copy", "copy-start"}:
        return "copy"
    if ops and ops <= {"transpose", "copy"}:
        return "transpose"
    if ops and ops <= _MOVES:
        return "stack"
    return "reduction" if any("reduce" in op for op in ops) else "elementwise"


def _bytes(computations: dict[str, Computation], inside: Computation,
           instruction: Instruction) -> tuple[float, float]:
    """Bytes that an instruction reads and writes."""
    written = array_bytes(instruction.shape)
    if instruction.op == "fusion":
        return _fusion_bytes(computations[instruction.attribute("calls")])
    if instruction.op in _SLICES:
        return written, written
    if instruction.op == "dynamic-update-slice":
        part = array_bytes(inside[instruction.operands[1]].shape)
        return part, part
    read = sum(array_bytes(inside[name].shape) for name in instruction.operands if name in inside)
    return read, read if instruction.op == "copy-start" else written


def _fusion_bytes(body: Computation) -> tuple[float, float]:
    users: dict[str, list[tuple[Instruction, int]]] = collections.defaultdict(list)
    for instruction in body.values():
        for place, name in enumerate(instruction.operands):
            users[name].append((instruction, place))

    def read(name: str) -> float:
        """Bytes of a value that its users need: all of it, or only the slices."""
        total, whole = 0.0, array_bytes(body[name].shape)
        for user, place in users[name]:
            if user.op in _SLICES and place == 0:
                total += array_bytes(user.shape)
            elif user.op in ("bitcast", "reshape") and not user.root:
                total += read(user.name)
            elif user.op != "dynamic-update-slice" or place:
                return whole
        return min(total, whole)

    def written(instruction: Instruction) -> float:
        while instruction.op in ("bitcast", "reshape"):
            instruction = body[instruction.operands[0]]
        if instruction.op == "dynamic-update-slice":
            return array_bytes(body[instruction.operands[1]].shape)
        return array_bytes(instruction.shape)

    root = next(i for i in body.values() if i.root)
    results = [body[name] for name in root.operands] if root.op == "tuple" else [root]
    return (sum(read(i.name) for i in body.values() if i.op == "parameter"),
            sum(map(written, results)))


def _flops(computations: dict[str, Computation], inside: Computation, instruction: Instruction,
           kind: str) -> float:
    if kind not in ("convolution", "product"):
        return 0.0
    if instruction.op == "fusion":
        inside = computations[instruction.attribute("calls")]
        return sum(_convolution_flops(inside, i) if i.op == "convolution" else
                   _product_flops(inside, i) for i in inside.values()
                   if i.op in ("convolution", "dot"))
    return (_convolution_flops if kind == "convolution" else _product_flops)(inside, instruction)


def _convolution_flops(inside: Computation, instruction: Instruction) -> float:
    """Twice the number of products of a convolution, including those with padding.

    Raises:
      ValueError: the instruction does not name the axes.
    """
    labels = re.search(r"dim_labels=\w+_(\w+)->", instruction.rest)
    if not labels:
        raise ValueError(f"a convolution without dim_labels: {instruction}")
    left, right = (inside[name].shape for name in instruction.operands[:2])
    target = instruction.attribute("custom_call_target")
    if "BackwardInput" in target:  # gradient of the output, kernel -> gradient of the images
        pixels, kernel = left, right
    elif "BackwardFilter" in target:  # images, gradient of the output -> gradient of the kernel
        pixels, kernel = right, instruction.shape
    else:
        pixels, kernel = instruction.shape, right
    sizes = _first_sizes(kernel)
    return 2.0 * math.prod(_first_sizes(pixels)) * math.prod(sizes) \
        / sizes[labels.group(1).index("o")]


def _product_flops(inside: Computation, instruction: Instruction) -> float:
    axes = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.rest) \
        or re.search(r"lhs_contracting_dims=\{([^}]*)\}", instruction.rest)
    if not axes:
        raise ValueError(f"a matrix product without contracted axes: {instruction}")
    left = _first_sizes(inside[instruction.operands[0]].shape)
    return 2.0 * math.prod(_first_sizes(instruction.shape)) \
        * math.prod(left[int(axis)] for axis in re.findall(r"\d+", axes.group(1)))


def _first_sizes(shape: str) -> list[int]:
    return _sizes(_ARRAY.findall(shape)[0][1])


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",") if size]
