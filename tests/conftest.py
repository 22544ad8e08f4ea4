"""Four fake devices and strict broadcasting, before jax starts."""

import os

os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "")
                           + " --xla_force_host_platform_device_count=4")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax  # noqa: E402
import pytest  # noqa: E402
import real_slurm  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def slurm_cluster(tmp_path_factory):
    """SLURM's commands reach a cluster of two nodes on this machine, until the module's end."""
    with real_slurm.running(tmp_path_factory.mktemp("slurm")):
        yield
