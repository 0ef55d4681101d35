"""A search that goes on from its folder alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zeroshot_nas.runs.options import RunOptions
from zeroshot_nas.searchers.base import SearchResult
from zeroshot_nas.searching.call import arguments_of
from zeroshot_nas.searching.loop import search


def resume_search(folder: Path, call: Mapping[str, Any], run: RunOptions, given: Mapping[str, Any]) -> SearchResult:
    """Goes on with a search whose store keeps how it was asked for."""
    return search(**arguments_of(call, given, folder), run=run)
