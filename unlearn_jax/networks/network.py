"""Any Flax network, with the preprocessing and the output that all networks share."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from unlearn_jax.networks.ends import label_units, preprocess
from unlearn_jax.networks.member_layers import member_layers


class Network(nn.Module):
    """Maps images `[B, H, W, 3]` of 0..255 to float32 `[B]` label units or logits `[B, C]`.

    Variables have the same names as in `inner`.

    Attributes:
      inner: its `__call__(x, train)` takes the preprocessed images `[B, H, W, 3]`, float32, and
        returns `[B, C]`, or `[B, 1]` for a regression.
      num_classes: C; 0 for a regression.
      output, output_scale, output_offset, preprocess: as in the section `model` of the config.
      frozen_norms: paths of the batch norms that do not change.
    """

    inner: nn.Module
    num_classes: int
    output: str
    output_scale: float
    output_offset: float
    preprocess: str
    frozen_norms: tuple[str, ...] = ()

    def setup(self) -> None:
        """Gives the variables the same names as in `inner`."""
        nn.share_scope(self, self.inner)

    def __call__(self, images_BHWC: jax.Array, train: bool) -> jax.Array:
        """The outputs of a batch."""
        with member_layers(self.frozen_norms):
            z = self.inner(preprocess(images_BHWC, self.preprocess), train)
        z = z.astype(jnp.float32)
        if self.num_classes:
            return z
        return label_units(z, self.output, self.output_scale, self.output_offset)
