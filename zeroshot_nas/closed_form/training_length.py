"""How long a network is trained unless the caller says otherwise; what `zeroshot_nas.closed_form.ceres.ceres` asks."""

from __future__ import annotations

IMAGES = 50_000
"""Training images: CIFAR-10's."""

STEPS = 7_800
"""Training steps: ten epochs of so many images in batches of 64. The form was chosen with these; a search assumes fewer
(`zeroshot_nas.scoring.proxy.DEFAULT_SEARCH_PROXY`)."""

LONG_STEPS = 64_000
"""Training steps of He et al. (arXiv:1512.03385), who find plain networks of
`zeroshot_nas.closed_form.cet.terms.PLAIN_DEPTH` layers better than deeper ones: what lengths are measured by."""
