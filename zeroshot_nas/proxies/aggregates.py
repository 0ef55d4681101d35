"""Published aggregates: functions of a pool of networks."""

from zeroshot_nas.scoring.proxy import register_aggregate

register_aggregate(
    "az_nas",
    ["az_expressivity", "az_progressivity", "az_trainability", "az_complexity"],
    "log_rank",
    source="arXiv:2403.19232",
)
# the paper adds the rank by condition number and the rank by linear regions; their mean orders a pool alike
register_aggregate("te_nas", ["ntk_cond", "linear_regions"], "mean_rank", source="arXiv:2102.11535")
