"""What networks are built from: convolutions, batch norms, published weights.

    conv.py        members' convolutions, in the formulation that is fastest
    norm.py        batch norm with its gradient written out
    pretrained.py  weights from .h5 and .safetensors

`unlearn_jax/models.py` holds the networks themselves.
"""
