"""Structure entropies as proxies."""

from zeroshot_nas.closed_form.entropy import entropy_deepmad, entropy_maedet
from zeroshot_nas.scoring.proxy import register_closed_form

register_closed_form("entropy_maedet", entropy_maedet, source="arXiv:2111.13336", grows_with_depth=True)
register_closed_form("entropy_deepmad", entropy_deepmad, source="arXiv:2303.02165", grows_with_depth=True)
