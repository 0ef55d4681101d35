"""A soft target for a cost: one number of score and cost, beside hard limits and fronts. No torch here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, Literal, get_args

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.costs.base import COSTS
from zeroshot_nas.costs.complexity import Costs, complexity
from zeroshot_nas.errors import ObjectiveError, UndefinedScoreError, did_you_mean

Form = Literal["product", "log", "sum"]
"""How a `Reward` joins a score s and a cost c."""


@dataclass(frozen=True)
class Reward:
    r"""What a search maximises in place of the score s alone: score and one cost c as one number; higher is better.

    .. math:: \text{product: } s \left(\frac{c}{T}\right)^w, \qquad \text{log: } s (\log c)^w, \qquad
        \text{sum: } s + w \log \frac{c}{T}

    ``"product"`` is MnasNet's reward (Tan et al., arXiv:1807.11626) with its target T: the exponent w is ``exponent``
    up to the target, and ``above`` beyond it. With -0.07 on both sides, its choice, a network of twice the cost must
    score 5 % more; 0 up to the target and -1 beyond it make it harder. ``"log"`` is FBNet's factor log(latency)^beta
    (arXiv:1812.03443) on a score, where a loss has 0.6 and a score therefore -0.6; it has no target, and the cost's
    unit matters. Both are for scores that are never negative, since a factor would turn their order round. ``"sum"`` is
    for the others, most of which are logarithms: the logarithm of the product of exp(s), so that with -1 a network of
    twice the cost must score 0.69 more.

    Args:
        cost: A registered cost.
        target: T, in the cost's unit. For a sum it only shifts all rewards unless ``above`` differs; default 1.
        exponent: w; below 0 where a lower cost is better.
        above: w beyond the target; default: the same.
        form: ``"product"``, ``"log"`` or ``"sum"``.

    Raises:
        UnknownNameError: No cost of that name is registered.
        ObjectiveError: A number is not usable, or the form has no use for it.

    Example:
        >>> reward = Reward("flops", target=100e6)
        >>> round(reward.of(70.0, 100e6), 2), round(reward.of(70.0, 200e6), 2)
        (70.0, 66.68)
        >>> Reward.from_text("latency_ms:target=5ms:exponent=0:above=-1")
        Reward(cost='latency_ms', target=5.0, exponent=0.0, above=-1.0, form='product')
    """

    cost: str
    target: float | None = None
    exponent: float = -0.07
    above: float | None = None
    form: Form = "product"

    def __post_init__(self) -> None:
        COSTS[self.cost]  # refuses what is no cost
        if self.form not in get_args(Form):
            hint = did_you_mean(str(self.form), get_args(Form))
            raise ObjectiveError(f"a reward's form is product, log or sum, got {self.form!r}.{hint}")
        for name in ("target", "exponent", "above"):
            value = getattr(self, name)
            if value is None and name != "exponent":
                continue
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                raise ObjectiveError(f"a reward's {name} is a finite number, got {value!r}")
            object.__setattr__(self, name, float(value))
        if self.form == "log" and (self.target is not None or self.above is not None):
            raise ObjectiveError("a reward with log(cost) has no target, nor another exponent above it; leave them out")
        if self.target is None and (self.form == "product" or self.above is not None):
            raise ObjectiveError(f"a reward needs the target of {self.cost}: Reward({self.cost!r}, target=...)")
        if self.target is not None and self.target <= 0:
            raise ObjectiveError(f"a reward's target is above 0, got {self.target:g}")
        if self.exponent == 0 and self.above in (None, 0):
            raise ObjectiveError(f"a reward with exponent 0 does not depend on {self.cost}; give one below 0")

    @property
    def scales(self) -> bool:
        """Whether it multiplies the score, which must then never be negative."""
        return self.form != "sum"

    def of(self, score: float, cost: float) -> float:
        """The reward.

        Args:
            score: Higher is better.
            cost: In its unit.

        Raises:
            UndefinedScoreError: The cost is 0, or 1 or less for a logarithm, or the score is below 0 for a factor.
        """
        base = cost if self.form == "log" else cost / (self.target or 1.0)
        if base <= (1 if self.form == "log" else 0):
            raise UndefinedScoreError(f"the reward {self} is undefined at {self.cost} {cost:g}")
        if self.scales and score < 0:
            raise UndefinedScoreError(f"the reward {self} is undefined at a score below 0 ({score:g})")
        weight = self.exponent if self.above is None or base <= 1 else self.above
        if self.form == "sum":
            return score + weight * math.log(base)
        return score * math.pow(math.log(base) if self.form == "log" else base, weight)

    def of_costs(self, score: float, costs: Costs) -> float:
        """The reward of a network with these costs; see `of`."""
        cost = costs[self.cost]
        assert cost is not None, f"{self.cost} is predicted where a reward reads it"
        return self.of(score, cost)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``Reward(**data)`` reads it back."""
        return asdict(self)

    @classmethod
    def from_text(cls, text: str) -> Reward:
        """Reads a cost's name and options: ``"latency_ms:target=5ms:exponent=-0.07"``; numbers as in limits, 1.5M.

        Raises:
            UnknownNameError: No cost has that name.
            ObjectiveError: An option is unknown or malformed.
        """
        name, *options = text.split(":")
        values: dict[str, Any] = {}
        readers: dict[str, Callable[[str], Any]] = {
            "target": COSTS[name].parse,
            "exponent": float,
            "above": float,
            "form": str,
        }
        for option in options:
            key, equals, value = option.partition("=")
            if not equals or key not in readers:
                raise ObjectiveError(
                    "a reward is NAME:target=...:exponent=..., with above=... and form=... where needed; got "
                    f"{option!r} in {text!r}.{did_you_mean(key, readers)}"
                )
            try:
                values[key] = readers[key](value)
            except ValueError as error:
                raise ObjectiveError(f"a reward's {key} must be {_expected(error)}; got {value!r}") from None
        return cls(name, **values)

    def __str__(self) -> str:
        if self.form == "log":
            return f"log({self.cost})^{self.exponent:g}"
        weight = f"{self.exponent:g}" if self.above is None else f"({self.exponent:g} or {self.above:g})"
        ratio = self.cost if self.target is None else f"{self.cost} / {self.target:g}"
        return f"({ratio})^{weight}" if self.form == "product" else f"{weight} log({ratio})"


def as_reward(reward: Reward | str | Mapping[str, Any] | None) -> Reward | None:
    """A reward as callers, texts and files give it.

    Raises:
        ObjectiveError: It is none.
        UnknownNameError: No cost has that name.
    """
    if isinstance(reward, str):
        return Reward.from_text(reward)
    if isinstance(reward, Mapping):
        return Reward(**reward)
    if reward is not None and not isinstance(reward, Reward):
        raise ObjectiveError(
            f"a reward is Reward('flops', target=1e8), or text such as 'flops:target=100M', got {type(reward).__name__}"
        )
    return reward


@dataclass(frozen=True)
class RewardedForm:
    """A closed form with its reward, for strategies that read the one and know nothing of the other.

    Attributes:
        closed_form: The score's.
        sign: 1 where a higher score is better, -1 where a lower one is.
        reward: Joins it with a cost.
        latency_ms: Predicts latency, where the reward reads it.
    """

    closed_form: Callable[[Architecture], float]
    sign: int
    reward: Reward
    latency_ms: Callable[[Architecture], float] | None = None

    def __call__(self, architecture: Architecture) -> float:
        score = self.sign * self.closed_form(architecture)
        if self.reward.cost == "latency_ms":
            assert self.latency_ms is not None, "predicted where a reward reads it"
            return self.reward.of(score, self.latency_ms(architecture))
        return self.reward.of_costs(score, complexity(architecture))


def _expected(error: ValueError) -> str:
    """What a reader says that it expects; Python's own message names what it got alone."""
    text = str(error)
    return "a number" if "convert" in text else text
