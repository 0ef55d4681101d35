"""The factorised policy: its draws, and gradients that are written by hand."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroshot_nas.errors import NothingFitsError
from zeroshot_nas.searchers.policy import Policy, add_score_gradient, entropy_gradient

LOGITS = st.lists(st.floats(-3, 3), min_size=2, max_size=6)


def softmax(logits, struck=()):
    weights = [0.0 if option in struck else math.exp(logit) for option, logit in enumerate(logits)]
    return [weight / sum(weights) for weight in weights]


def numeric(function, logits, step=1e-5):
    """The gradient by central differences."""

    def moved(option, by):
        return [logit + by * (place == option) for place, logit in enumerate(logits)]

    return [(function(moved(k, step)) - function(moved(k, -step))) / (2 * step) for k in range(len(logits))]


@given(LOGITS, st.floats(0.1, 2))
def test_the_entropys_gradient_is_its_derivative(logits, weight):
    def entropy(at):
        return -weight * sum(chance * math.log(chance) for chance in softmax(at))

    assert entropy_gradient(softmax(logits), weight) == pytest.approx(numeric(entropy, logits), abs=1e-6)


@given(LOGITS, st.data())
def test_the_gradient_of_masked_draws_is_their_log_probabilitys_derivative(logits, data):
    options = range(len(logits))
    advantages = {}
    for _ in range(data.draw(st.integers(1, 4))):
        struck = frozenset(data.draw(st.sets(st.sampled_from(options), max_size=len(logits) - 1)))
        option = data.draw(st.sampled_from([each for each in options if each not in struck]))
        advantages[option, struck] = data.draw(st.floats(-3, 3))

    def objective(at):
        return sum(gain * math.log(softmax(at, struck)[option]) for (option, struck), gain in advantages.items())

    gradient = [0.0] * len(logits)
    add_score_gradient(gradient, softmax(logits), advantages)
    assert gradient == pytest.approx(numeric(objective, logits), abs=1e-6)


@pytest.mark.parametrize("fitting", [(0, 1, 2, 3), (0, 2), (3,), (1, 2, 3)])
def test_a_draw_is_one_from_the_masked_softmax(fitting):
    policy, logits = Policy(random.Random(0), 0.1), [0.0, 1.0, -0.5, 0.3]
    draws = [policy.draw("token", lambda: logits, lambda option: option in fitting).option for _ in range(4000)]
    expected = softmax(logits, {*range(4)} - {*fitting})
    for option, chance in enumerate(expected):
        assert abs(draws.count(option) / 4000 - chance) <= 5 * math.sqrt(chance * (1 - chance) / 4000)


def test_what_is_behind_an_option_that_does_not_fit_is_not_asked_where_costs_rise():
    asked = []

    def fits(option):
        asked.append(option)
        return option < 2

    policy = Policy(random.Random(1), 0.1)
    for _ in range(200):
        asked.clear()
        draw = policy.draw("width", lambda: [0.0] * 9, fits, ordered=True, monotone=True)
        assert draw.option < 2
        assert asked[:-1] == sorted(asked[:-1], reverse=True)
        assert draw.struck == frozenset(range(min(asked[:-1], default=9), 9))


def test_nothing_fits():
    with pytest.raises(NothingFitsError, match="token"):
        Policy(random.Random(0), 0.1).draw("token", lambda: [0.0] * 5, lambda option: False)


def test_what_pays_is_drawn_more_often_and_entropy_keeps_the_rest():
    def learned(entropy_bonus):
        policy = Policy(random.Random(0), 0.1)
        for _ in range(150):
            draws = [policy.draw("token", lambda: [0.0] * 4, lambda option: True) for _ in range(8)]
            policy.learn([([draw], 1.0 if draw.option == 2 else -1.0) for draw in draws], entropy_bonus)
        return policy.probabilities("token")

    greedy, curious = learned(0.0), learned(2.0)
    assert greedy[2] > 0.95
    assert 0.3 < curious[2] < 0.9


def test_neighbours_of_an_ordered_option_learn_with_it():
    for ordered in (False, True):
        policy = Policy(random.Random(0), 0.1)
        draws = (
            policy.draw("width", lambda: [0.0] * 9, lambda option: True, ordered=ordered) for _ in itertools.count()
        )
        draw = next(draw for draw in draws if draw.option == 4)
        policy.learn([([draw], 1.0)], 0.0)
        chances = policy.probabilities("width")
        assert chances[4] > chances[0]
        assert (chances[3] > chances[0]) is ordered
        assert chances == pytest.approx(chances[::-1])


def test_no_option_dies_for_good():
    policy = Policy(random.Random(0), 5.0)
    for _ in range(200):
        policy.learn([([policy.draw("token", lambda: [0.0] * 3, lambda option: option < 2)], 1.0)], 0.0)
    assert min(policy.probabilities("token")) > 1e-8
