"""Networks and their parts: convolutions, batch norms, published weights.

    registry.py    the networks beside the ResNets: vgg.py, vit.py, convnext.py, resnet9.py
    conv.py        members' convolutions, in the fastest formulation
    norm.py        batch norm with its gradient written out
    pretrained.py  weights from .h5 and .safetensors

`unlearn_jax/models.py` builds the models.
"""
