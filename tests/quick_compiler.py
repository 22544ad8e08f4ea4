"""XLA's settings for tests, which compile much and compute little."""

from importlib.metadata import version

# Programs without fusion emitters compile faster. jaxlib 0.12 has no such choice.
_CAN_CHOOSE = version("jaxlib").startswith("0.10.")
# One module of machine code per program: there are as many processes as cores.
FLAGS = ("--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
         "--xla_cpu_parallel_codegen_split_count=1") + (
    " --xla_cpu_use_fusion_emitters=false" if _CAN_CHOOSE else "")
# The same as options of a program, and further ones, which change the numbers in the last digits.
OPTIONS = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True,
           "xla_cpu_parallel_codegen_split_count": 1,
           **({"xla_cpu_use_fusion_emitters": False} if _CAN_CHOOSE else {})}
