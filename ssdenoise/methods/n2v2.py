"""N2V2: Noise2Void without checkerboards."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ssdenoise.methods.n2v import N2V, REPLACES, Replacement


class N2V2(N2V):
    """N2V2 (Höck et al. 2022).

    Notes
    -----
    At inference a Noise2Void network sees the voxel that was hidden in training. It then passes on some of its noise,
    which max-pooling turns into a checkerboard. Three changes [1]_: no path around the network at full resolution
    (neither a residual connection nor the top skip), pooling that blurs before it drops voxels, and the median of the
    neighbours in place of hidden voxels. The rest is `ssdenoise.methods.n2v.N2V`. The paper is about planes; in volumes
    the same is done in Y and X, as pooling never acts on Z.

    `network="paper"`: depth 2, 32 channels, batch normalisation.

    References
    ----------
    .. [1] E. Höck, T.-O. Buchholz, A. Brachmann, F. Jug and A. Freytag, "N2V2 - Fixing Noise2Void Checkerboard
       Artifacts with Modified Sampling Strategies and a Tweaked Network Architecture", ECCV Workshops 2022,
       arXiv:2211.08512.
    """

    alias_free: ClassVar[bool] = True

    name: Literal["n2v2"] = "n2v2"  # type: ignore[assignment]
    replacement: Replacement = Field("median", description=REPLACES)
