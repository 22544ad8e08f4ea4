"""Min-K % Prob: was a sequence of tokens in the training data?

No audit uses it: a model here says one thing of an image, its label, so that T is 1 and the value
is the cross entropy with the other sign, which the audit `mia` attacks. It is for models of
sequences.
"""

import jax
import jax.numpy as jnp

from unlearn_jax.metrics.shapes import check_rank


@jax.jit
def min_k_prob(log_probabilities_MNT: jax.Array, mask_NT: jax.Array,
               percent: jax.Array) -> jax.Array:
    """Mean `[M, N]`, in nats, of the lowest `percent` % of each sequence's log-probabilities.

    Text that was trained on has few tokens that the model finds very unlikely, hence a high
    value. Rounded down to whole tokens, but at least one; NaN for a sequence without tokens.

    Args:
      log_probabilities_MNT: of each token given those before it.
      mask_NT: bool, which places hold a token (not padding, not the prompt).
      percent: above 0 and up to 100; 20 in the source.

    Raises:
      ValueError: other shapes, or a mask that is not bool.

    Source: Shi et al. 2024, "Detecting Pretraining Data from Large Language Models".
    """
    check_rank("log-probabilities", log_probabilities_MNT, 3, "[M, N, T]")
    if mask_NT.shape != log_probabilities_MNT.shape[1:] or mask_NT.dtype != bool:
        raise ValueError(f"the mask must be bool {log_probabilities_MNT.shape[1:]} to go with "
                         f"log-probabilities of shape {log_probabilities_MNT.shape}, not "
                         f"{mask_NT.dtype} {mask_NT.shape}")
    tokens_N = jnp.sum(mask_NT, axis=-1)
    taken_N = jnp.maximum(1, jnp.floor(tokens_N * percent / 100))
    ordered = jnp.sort(jnp.where(mask_NT[None], log_probabilities_MNT, jnp.inf), axis=-1)
    is_taken = jnp.arange(mask_NT.shape[1])[None] < taken_N[:, None]
    sums_MN = jnp.sum(jnp.where(is_taken[None], ordered, 0), axis=-1)
    # NaN sorts last, out of sight.
    failed_MN = jnp.isnan(jnp.where(mask_NT[None], log_probabilities_MNT, 0)).any(-1)
    return jnp.where(failed_MN | (tokens_N == 0)[None], jnp.nan, sums_MN / taken_N[None])
