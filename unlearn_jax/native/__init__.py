"""Custom calls from XLA's programs on a CPU: oneDNN's convolutions, and sums in one pass.

In a whole step, these convolutions take about 0.5 to 0.65 of the time of XLA's own. `make setup`
and `pip install .` compile the two `.cc` files here if a C++ compiler and Linux on x86-64 are
available; oneDNN itself is the package `onednn-cpu-gomp`. If anything is missing, `unavailable`
returns the reason, and XLA's own code computes the same.
"""

import ctypes
import functools
import importlib.metadata
import importlib.util
import platform
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

PHASES = ("forward", "input_grad", "weight_grad")

_CONV, _SUMS = "unlearn_jax_conv", "unlearn_jax_sums"
_PACKAGE, _LIBRARY = "onednn-cpu-gomp", "libdnnl.so.3"
_AVX512 = 0x27  # dnnl_cpu_isa_avx512_core: the lowest level with bfloat16 in oneDNN


@functools.cache
def unavailable() -> str:
    """The reason why the calls cannot be made here; '' if they can. The first call loads them."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"they take Linux on x86-64, not {sys.platform} on {platform.machine()}"
    found = importlib.util.find_spec("unlearn_jax.native._calls")
    if found is None:
        return "unlearn_jax/native is not compiled; `make setup` does that, given a C++ compiler"
    try:
        _onednn()
        calls = ctypes.CDLL(found.origin)
        for name, handler in ((_CONV, "UnlearnJaxConv"), (_SUMS, "UnlearnJaxSums")):
            if not hasattr(calls, handler):
                return f"{found.origin} is of another revision; `make setup` compiles it anew"
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(calls, handler)),
                                        platform="cpu")
    except (OSError, importlib.metadata.PackageNotFoundError) as e:
        return f"they cannot be loaded: {e}"
    except (RuntimeError, ValueError) as e:  # compiled against another version of XLA's interface
        return f"this jaxlib does not take them: {e}"
    return ""


def takes(dtype: DTypeLike) -> bool:
    """Returns True if the calls exist for arrays of this type."""
    return not unavailable() and dtype in (jnp.float32, jnp.bfloat16)


def convolve(phase: str, strides: tuple[int, int], padding: tuple[tuple[int, int], ...],
             threads: int, a: jax.Array, b: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """One phase of one convolution by oneDNN; the batch is divided over the threads.

    Args:
      phase: one of `PHASES`.
      strides, padding: pixels.
      threads: largest number of threads. Each takes equal parts of the batch. If the batch does not
        divide by the threads, it has the number of parts that keeps them busiest, and some threads
        wait at the end.
      a: images `[B, H, W, C]`; for the input gradient, the gradient of the output `[B, H', W', O]`.
      b: kernel `[h, w, C, O]`; for the weight gradient, the gradient of the output.
      shape: shape of the result: output, images or kernel.

    Returns:
      An array of the inputs' type; products are added up in float32.
    """
    dtype = a.dtype
    if dtype == jnp.bfloat16 and _onednn().dnnl_get_effective_cpu_isa() < _AVX512:
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    parts = _parts(a.shape[0], threads, most=threads if phase == "weight_grad" else 4 * threads)
    call = jax.ffi.ffi_call(_CONV, jax.ShapeDtypeStruct(shape, a.dtype))
    result = call(a, b, phase=np.int64(PHASES.index(phase)), parts=np.int64(parts),
                  threads=np.int64(threads), strides=np.array(strides, np.int64),
                  padding=np.array(padding, np.int64).ravel())
    return _varying(result, a, b).astype(dtype)


def sums(a: jax.Array, b: jax.Array, shift: jax.Array, threads: int) -> jax.Array:
    """For each channel the sums of a and of a * (b - shift), `[2, C]`, in one pass.

    Args:
      a, b: float32 `[..., C]`.
      shift: float32 `[C]`.
      threads: largest number of threads.
    """
    call = jax.ffi.ffi_call(_SUMS, jax.ShapeDtypeStruct((2, shift.shape[-1]), jnp.float32),
                            vmap_method="broadcast_all")
    return _varying(call(a, b, shift, threads=np.int64(threads)), a, b, shift)


def _parts(batch: int, threads: int, most: int) -> int:
    """The number of equal parts of a batch that ends first; the smallest such number."""
    divisors = [n for n in range(1, min(most, batch) + 1) if batch % n == 0]
    return min(divisors, key=lambda n: (-(-n // threads) / n, n))


def _varying(result: jax.Array, *inputs: jax.Array) -> jax.Array:
    """The result, marked in a `shard_map` as different between devices where an input is."""
    axes = frozenset().union(*(jax.typeof(x).manual_axis_type.varying for x in inputs))
    return jax.lax.pcast(result, tuple(axes), to="varying") if axes else result


@functools.cache
def _onednn() -> ctypes.CDLL:
    """oneDNN itself; once it is loaded, libraries linked against it find it by its name."""
    for file in importlib.metadata.files(_PACKAGE) or ():
        if file.name == _LIBRARY:
            return ctypes.CDLL(str(file.locate()))
    raise OSError(f"the package {_PACKAGE} has no {_LIBRARY}")
