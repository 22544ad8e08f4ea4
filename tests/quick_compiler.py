"""JAX's settings for tests, which compile much and compute little."""

import functools
from importlib.metadata import version

# One module of machine code per program: there are as many processes as cores.
FLAGS = ("--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
         "--xla_cpu_parallel_codegen_split_count=1")
if version("jaxlib").startswith("0.10."):  # 0.12 has no such choice
    FLAGS += " --xla_cpu_use_fusion_emitters=false"


def share_context() -> None:
    """Programs of this process are lowered in one MLIR context, where JAX makes one for each.

    A new context loads all dialects, which takes longer than the lowering of a small program. The
    context keeps the types and constants of all programs, which is why JAX does not do this.
    """
    from jax._src.interpreters import mlir

    make = getattr(mlir, "make_ir_context", None)  # private: another JAX may not have it
    if make and not hasattr(make, "cache_info"):
        mlir.make_ir_context = functools.cache(make)
