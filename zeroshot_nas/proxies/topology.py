"""NN-Mass and NN-Degree as proxies."""

from zeroshot_nas.closed_form.topology import nn_degree, nn_mass
from zeroshot_nas.scoring.proxy import register_closed_form

register_closed_form("nn_mass", nn_mass, source="arXiv:1910.00780", grows_with_depth=True)
register_closed_form("nn_degree", nn_degree, source="arXiv:2108.00568", grows_with_depth=True)
