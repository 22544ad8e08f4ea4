"""Compiles `unlearn_jax/native`; all else about the package is in pyproject.toml.

If compilation fails, installation goes on: the calls are optional.
"""

import importlib.metadata
import platform
import sys
from pathlib import Path

from setuptools import Extension, setup


def native_calls() -> list[Extension]:
    """The extension, given Linux on x86-64 and the packages of requirements-build.txt."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return []
    try:
        includes = [find("jaxlib", "xla/ffi/api/ffi.h").parents[3],
                    find("onednn-devel-cpu-gomp", "oneapi/dnnl/dnnl.hpp").parents[2]]
        onednn = find("onednn-cpu-gomp", "libdnnl.so.3")
    except importlib.metadata.PackageNotFoundError as e:
        print(f"unlearn_jax/native is not compiled: {e}", file=sys.stderr)
        return []
    return [Extension(
        "unlearn_jax.native._calls", ["unlearn_jax/native/conv.cc", "unlearn_jax/native/sums.cc"],
        depends=["unlearn_jax/native/parallel.h"], optional=True, py_limited_api=True,
        extra_compile_args=["-std=c++17", "-O3", "-g0",
                            *(f"-isystem{path}" for path in includes)],
        extra_link_args=[f"-L{onednn.parent}", f"-l:{onednn.name}", "-l:libgomp.so.1"])]


def find(package: str, end: str) -> Path:
    """The file of an installed package whose path ends so.

    Raises:
      PackageNotFoundError: the package, or the file in it, is not there.
    """
    for file in importlib.metadata.files(package) or ():
        if str(file).endswith(end):
            return Path(file.locate()).resolve()
    raise importlib.metadata.PackageNotFoundError(f"{end} of {package}")


setup(ext_modules=native_calls())
