"""Which channels go so that a network is within a budget, and no more than must."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.costs.base import COSTS
from zeroshot_nas.costs.budget import Budget, Violation
from zeroshot_nas.costs.complexity import Costs
from zeroshot_nas.errors import ArchitectureError, InfeasibleBudgetError
from zeroshot_nas.pruning.widths import Outline, Width, free_widths, narrowed, narrower, outline, outline_within

if TYPE_CHECKING:
    from zeroshot_nas.pruning.channels import Group


class _Step(NamedTuple):
    """One width made narrower by as little as can be; ordered by what goes with it."""

    worth: float
    width: int
    value: int


class Fitting:
    """The way from a network to a narrower one, channel by channel, the least important first.

    Args:
        architecture: The network.
        groups: Its groups of channels.
        budget: What the narrower one is to keep to.
        costs: What a network costs.
        width_step: Every width that is narrowed becomes a multiple of it.

    Raises:
        ArchitectureError: None of its widths can be narrowed.
    """

    def __init__(
        self,
        architecture: Architecture,
        groups: Sequence[Group],
        budget: Budget,
        costs: Callable[[Architecture], Costs],
        width_step: int,
    ) -> None:
        self.architecture, self.groups, self.budget, self.costs = architecture, groups, budget, costs
        self.width_step = width_step
        self.skeleton = outline(architecture).skeleton
        self.widths = free_widths(architecture)
        if not self.widths:
            names = ", ".join(dict.fromkeys(block.type_name for block in architecture.blocks))
            raise ArchitectureError(
                f"no width of the network can be narrowed so that nothing else changes (its blocks: {names}); prune "
                "chains of convolutions, residual or inverted residual blocks"
            )

    def fit(self) -> Architecture:
        """The network with as many channels as the budget lets it have: none that went could be put back.

        Channels go one by one, the least important of all first, until what is left is within the budget; then those
        that fit are put back, the most important first.

        Raises:
            InfeasibleBudgetError: Not even the narrowest network is.
        """
        if not self._violations(self.architecture):
            return self.architecture
        steps = [list(self._steps(index)) for index in range(len(self.widths))]
        values = [width.value for width in self.widths]
        narrowest = self.architecture
        for step in sorted(itertools.chain.from_iterable(steps)):
            narrower_values = [*values[: step.width], step.value, *values[step.width + 1 :]]
            network = self._with(narrower_values)
            if network is None:
                continue  # with the others it is another network; the width's next value may do
            values, narrowest = narrower_values, network
            if not self._violations(network):
                return self._put_back(values, network, steps)
        raise self._infeasible(narrowest)

    def _put_back(self, values: list[int], network: Architecture, steps: Sequence[Sequence[_Step]]) -> Architecture:
        while True:
            for _, index, value in sorted(self._wider(values, steps), reverse=True):
                wider = [*values[:index], value, *values[index + 1 :]]
                candidate = self._with(wider)
                if candidate is not None and not self._violations(candidate):
                    values, network = wider, candidate
                    break
            else:
                return network

    def _wider(self, values: Sequence[int], steps: Sequence[Sequence[_Step]]) -> Iterator[tuple[float, int, int]]:
        """What the next channels of every narrowed width are worth, the width, and its value with them."""
        for index, (width, value) in enumerate(zip(self.widths, values, strict=True)):
            before = width.value
            for step in steps[index]:
                if step.value == value:
                    yield step.worth, index, before
                before = step.value

    def _steps(self, index: int) -> Iterator[_Step]:
        """The steps of one width, each with the mean importance of the channels that go with it.

        A width takes channels of several groups along: those inside each repeat of a block, and those that a block
        widens to. Steps of one width are in order, so that none seems worth less than one before it.
        """
        width, worth = self.widths[index], 0.0
        before = self._sizes(width, width.value)
        for value in narrower(width.value, self.width_step):
            sizes = self._sizes(width, value)
            if before is None or sizes is None:
                continue  # this value makes another network, such as a link where widths become equal
            gone = [
                (len(group.order) - old, len(group.order) - new)
                for group, old, new in zip(self.groups, before, sizes, strict=True)
            ]
            count = sum(end - start for start, end in gone)
            lost = sum(
                group.sums[end] - group.sums[start] for group, (start, end) in zip(self.groups, gone, strict=True)
            )
            worth = max(worth, lost / count if count else worth)
            yield _Step(worth, index, value)
            before = sizes

    def _sizes(self, width: Width, value: int) -> tuple[int, ...] | None:
        """Channels of every group where one width has another value; None where that makes another network."""
        found = self._outline([(width, value)])
        return None if found is None else tuple(found.widths[group.convolutions[0]] for group in self.groups)

    def _with(self, values: Sequence[int]) -> Architecture | None:
        changes = list(zip(self.widths, values, strict=True))
        return None if self._outline(changes) is None else narrowed(self.architecture, changes)

    def _outline(self, changes: Sequence[tuple[Width, int]]) -> Outline | None:
        return outline_within(lambda: narrowed(self.architecture, changes), self.skeleton)

    def _violations(self, architecture: Architecture) -> tuple[Violation, ...]:
        return self.budget.violations(self.costs(architecture), architecture)

    def _infeasible(self, narrowest: Architecture) -> InfeasibleBudgetError:
        over = "; ".join(
            f"{COSTS[each.cost].label if each.cost in COSTS else each.cost} {each.value:,g}, limit {each.limit:,g}"
            for each in self._violations(narrowest)
        )
        return InfeasibleBudgetError(
            f"no channels are left to prune: the narrowest network is still over the budget ({over}). Pruning takes "
            "channels, not layers: raise the limit, or start from a shallower network"
        )
