"""Results as pandas' data frames; pandas is imported when one is asked for, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zeroshot_nas.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas


def data_frame(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> pandas.DataFrame:
    """A data frame with a row for each mapping.

    Args:
        rows: The rows; what one of them lacks is missing there.
        columns: Names of the columns, which also stand where there are no rows; default: those of the rows.

    Raises:
        MissingExtraError: The extra ``pandas`` is not installed.

    Example:
        >>> data_frame([{"proxy": "zen", "value": 3.0}]).loc[0, "value"].item()
        3.0
    """
    try:
        import pandas
    except ImportError:
        raise MissingExtraError("pandas", "pandas") from None
    return pandas.DataFrame(list(rows), columns=None if columns is None else list(columns))
