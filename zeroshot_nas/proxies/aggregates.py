"""Published aggregates: functions of a pool of networks. Higher is better, whatever the directions of the parts."""

from zeroshot_nas.scoring.proxy import PROXIES, ProxyInfo

for _info in (
    ProxyInfo(
        "az_nas",
        parts=("az_expressivity", "az_progressivity", "az_trainability", "az_complexity"),
        aggregation="log_rank",
        source="arXiv:2403.19232",
        cost="many",
    ),
    # the paper adds the rank by condition number and the rank by linear regions; their mean orders a pool alike
    ProxyInfo(
        "te_nas",
        parts=("ntk_cond", "linear_regions"),
        aggregation="mean_rank",
        source="arXiv:2102.11535",
        cost="many",
    ),
):
    PROXIES.add(_info.name, _info)
