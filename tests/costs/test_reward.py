"""Rewards of score and cost against their formulas, and what is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroshot_nas import Reward, get_space
from zeroshot_nas.closed_form.zen import zen_closed_form
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.costs.reward import RewardedForm, as_reward
from zeroshot_nas.errors import ObjectiveError, UndefinedScoreError, UnknownNameError

SCORES, COSTS = st.floats(0, 1e6), st.floats(1.5, 1e12)


@given(SCORES, COSTS, st.floats(2, 1e9))
def test_the_formulas(score, cost, target):
    product = Reward("flops", target, exponent=-0.07, above=-1)
    assert product.of(score, cost) == pytest.approx(score * (cost / target) ** (-0.07 if cost <= target else -1))
    assert Reward("flops", exponent=-0.6, form="log").of(score, cost) == pytest.approx(score * math.log(cost) ** -0.6)
    assert Reward("flops", target, exponent=-2, form="sum").of(-score, cost) == pytest.approx(
        -score - 2 * math.log(cost / target)
    )


@given(st.floats(-20, 20), COSTS)
def test_a_sum_is_the_logarithm_of_the_product(score, cost):
    options = {"target": 1e6, "exponent": -0.5, "above": -2}
    product = Reward("flops", **options).of(math.exp(score), cost)
    assert Reward("flops", form="sum", **options).of(score, cost) == pytest.approx(math.log(product))


def test_mnasnets_hard_target_leaves_what_keeps_to_it_alone():
    hard = Reward("latency_ms", target=75, exponent=0, above=-1)
    assert hard.of(0.75, 20) == hard.of(0.75, 75) == 0.75
    assert hard.of(0.75, 150) == 0.375


@given(
    st.sampled_from(["product", "log", "sum"]),
    st.floats(0, 100),
    st.floats(0, 100),
    st.floats(1.5, 1e3),
    st.floats(1.5, 1e3),
)
def test_better_and_cheaper_is_never_rewarded_less(form, low, high, cheap, dear):
    reward = Reward("flops", None if form == "log" else 30, form=form)
    (low, high), (cheap, dear) = sorted((low, high)), sorted((cheap, dear))
    assert reward.of(high, cheap) >= reward.of(low, dear)


@pytest.mark.parametrize(
    "reward",
    [
        Reward("flops", 1e8),
        Reward("latency_ms", 5, exponent=0, above=-1),
        Reward("params", exponent=-0.6, form="log"),
        Reward("layers", exponent=-1, form="sum"),
    ],
)
def test_rewards_are_read_back(reward):
    assert as_reward(reward.to_dict()) == reward == as_reward(reward)
    options = [f":{name}={value}" for name, value in reward.to_dict().items() if name != "cost" and value is not None]
    options = [f"{text}ms" if text.startswith(":target") and "latency" in reward.cost else text for text in options]
    assert Reward.from_text(reward.cost + "".join(options)) == reward


def test_targets_are_written_as_limits_are():
    assert as_reward("latency_ms:target=5ms").target == 5
    assert as_reward("flops:target=1.5M").target == 1.5e6
    assert str(Reward("flops", 1e8)) == "(flops / 1e+08)^-0.07"
    assert str(Reward("flops", 1e8, 0, -1, "sum")) == "(0 or -1) log(flops / 1e+08)"
    assert str(Reward("flops", form="log")) == "log(flops)^-0.07"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flops", "needs the target of flops"),
        ("flops:target=0", "target is above 0, got 0"),
        ("flops:target=much", "target must be a number with an optional k, M or G, e.g. 1.5M; got 'much'"),
        ("flops:target=1M:exponent=small", "exponent must be a number; got 'small'"),
        ("flops:target=1M:exponent=0", "exponent 0 does not depend on flops"),
        ("flops:target=1M:exponent=nan", "exponent is a finite number, got nan"),
        ("flops:target=1M:weight=1", "got 'weight=1'"),
        ("flops:tagret=1M", "Did you mean 'target'"),
        ("flops:target=1M:form=sums", "Did you mean 'sum'"),
        ("flops:target=1M:form=log", "has no target"),
        ("flops:form=sum:above=-1", "needs the target"),
    ],
)
def test_bad_texts_are_refused_in_a_line(text, message):
    with pytest.raises(ObjectiveError, match=message) as refused:
        as_reward(text)
    assert "\n" not in str(refused.value)


def test_what_is_no_reward():
    with pytest.raises(UnknownNameError, match="Did you mean 'flops'"):
        Reward("flosp", 1e6)
    with pytest.raises(ObjectiveError, match="got int"):
        as_reward(3)
    with pytest.raises(ObjectiveError, match="target is a finite number, got True"):
        Reward("flops", True)


@pytest.mark.parametrize(
    ("reward", "score", "cost"),
    [
        (Reward("flops", 10), 1.0, 0),
        (Reward("flops", 10), -1.0, 5),
        (Reward("latency_ms", form="log"), 1.0, 1.0),
        (Reward("flops", form="sum"), 1.0, 0),
    ],
)
def test_where_it_is_undefined_it_has_no_value(reward, score, cost):
    with pytest.raises(UndefinedScoreError, match="is undefined at"):
        reward.of(score, cost)


def test_a_rewarded_closed_form_is_the_reward_of_the_closed_form():
    net = get_space("resnet", input_size=(1, 8, 8)).initial()
    reward = Reward("params", 1e4, exponent=-3, form="sum")
    expected = reward.of(zen_closed_form(net), complexity(net).params)
    assert RewardedForm(zen_closed_form, 1, reward)(net) == expected
    timed = Reward("latency_ms", 2, exponent=-3, form="sum")
    assert RewardedForm(zen_closed_form, -1, timed, lambda _: 4.0)(net) == timed.of(-zen_closed_form(net), 4.0)
