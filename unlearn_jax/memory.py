"""How much memory a device has."""

import math

import jax
import ml_collections

# Of a device's memory, what the images may take: models and their activations need the rest.
_IMAGES_SHARE = 0.5


def total_bytes(device: jax.Device) -> float:
    """Bytes that jax may use on a device; infinite where it does not say, as on a CPU."""
    return (device.memory_stats() or {}).get("bytes_limit", math.inf)


def image_bytes(cfg: ml_collections.ConfigDict, device: jax.Device) -> float:
    """Images that take more bytes than this are streamed from the host.

    Args:
      cfg: the section `parallel` of the config.
      device: one of those that train.
    """
    return {"device": math.inf, "stream": -1.0,
            "auto": _IMAGES_SHARE * total_bytes(device)}[cfg.resident]
