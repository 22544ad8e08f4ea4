"""Parts of networks: convolutions, batch norms, published weights.

    conv.py        members' convolutions, in the fastest formulation
    norm.py        batch norm with its gradient written out
    pretrained.py  weights from .h5 and .safetensors

`unlearn_jax/models.py` builds the models.
"""
