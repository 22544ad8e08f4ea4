"""XLA's settings for tests, which compile much and compute little."""

from importlib.metadata import version

# One module of machine code per program: there are as many processes as cores.
FLAGS = ("--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
         "--xla_cpu_parallel_codegen_split_count=1")
if version("jaxlib").startswith("0.10."):  # 0.12 has no such choice
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
