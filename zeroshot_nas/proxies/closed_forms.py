"""Scores that are read off an architecture: nothing is built, drawn or run."""

from zeroshot_nas.closed_form.entropy import MAEDET, entropy_deepmad, entropy_maedet, entropy_qe
from zeroshot_nas.closed_form.topology import NN_DEGREE, NN_MASS, nn_degree, nn_mass
from zeroshot_nas.scoring.proxy import PROXIES, ProxyInfo

for _name, _closed_form, _block_sum, _source in (
    ("entropy_maedet", entropy_maedet, MAEDET, "arXiv:2111.13336"),
    ("entropy_deepmad", entropy_deepmad, None, "arXiv:2303.02165"),
    ("entropy_qe", entropy_qe, None, "NeurIPS 2022, openreview E28hy5isRzC"),
    ("nn_mass", nn_mass, NN_MASS, "arXiv:1910.00780"),
    ("nn_degree", nn_degree, NN_DEGREE, "arXiv:2108.00568"),
):
    _info = ProxyInfo(
        _name,
        closed_form=_closed_form,
        block_sum=_block_sum,
        source=_source,
        cost="graph",
        grows_with_depth=True,
        knows_bits=_name == "entropy_qe",
        never_negative=_name.startswith("nn_"),  # counts; the others are logarithms
    )
    PROXIES.add(_name, _info)
