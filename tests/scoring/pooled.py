"""A proxy whose closed form has a pool, and what it was asked for: for tests of who uses pools."""

from contextlib import contextmanager

from zeroshot_nas.core.score import ScoreValue
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import UndefinedScoreError
from zeroshot_nas.scoring.proxy import PROXIES, ProxyInfo


def alone(architecture, *, factor=1.0):
    """Fails on some networks, and says what it is made of."""
    costs = complexity(architecture)
    if hash(architecture) % 5 == 0:  # the same in every process
        raise UndefinedScoreError("a fifth")
    return ScoreValue(factor * costs.params / 3, {"flops": costs.flops / 7})


@contextmanager
def pooled_proxy(name="pooled", direction="higher"):
    """Registers the proxy; gives the sizes of the pools that it was asked for, and the architectures asked alone."""
    pools, singles = [], []

    def one(architecture, *, factor=1.0):
        singles.append(architecture)
        return alone(architecture, factor=factor)

    def many(architectures, *, factor=1.0):
        pools.append(len(architectures))
        values = []
        for architecture in architectures:
            try:
                values.append(alone(architecture, factor=factor))
            except UndefinedScoreError as error:
                values.append(error)
        return values

    info = ProxyInfo(name, closed_form=one, closed_form_pool=many, direction=direction, source="a test", cost="graph")
    PROXIES.add(name, info)
    try:
        yield pools, singles
    finally:
        del PROXIES._entries[name]
