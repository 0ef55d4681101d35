"""How long a network is trained unless the caller says otherwise; what `zeroshot_nas.closed_form.ceres.ceres` asks."""

from __future__ import annotations

IMAGES = 50_000
"""Training images: CIFAR-10's."""

STEPS = 64_000
"""Training steps: those of He et al. (arXiv:1512.03385), who find plain networks of
`zeroshot_nas.closed_form.cet.terms.PLAIN_DEPTH` layers better than deeper ones."""
