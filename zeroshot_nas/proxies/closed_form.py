"""Scores that are read off an architecture: nothing is built, drawn or run."""

from zeroshot_nas.closed_form.zen import zen_closed_form
from zeroshot_nas.scoring.proxy import register_closed_form

register_closed_form("zen_closed_form", zen_closed_form, source="arXiv:2102.01063", grows_with_depth=True)
