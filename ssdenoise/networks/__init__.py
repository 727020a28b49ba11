"""The networks: two published U-Nets, the blind-spot network, and compositions. Each derives its halo from its layers.

How far a network sees is computed by walking its layers backwards from an output interval (`reach`), per axis, with
max-pooling replaced by its support. For an output core aligned to the stride this is exact, not a bound over all
alignments; a test compares it with autograd.
"""

from ssdenoise.networks.blindspot import BlindSpot
from ssdenoise.networks.compose import BlockMean, PerChannel, Planes
from ssdenoise.networks.layers import Chain, Conv, Network
from ssdenoise.networks.unet import Plain, UNet

__all__ = ["BlindSpot", "BlockMean", "Chain", "Conv", "Network", "PerChannel", "Plain", "Planes", "UNet"]
