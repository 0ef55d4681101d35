"""Torch's calls pass through an interception while it is open, and nothing of it stays."""

import gc
import weakref

import pytest
import torch

from zeroshot_nas.scoring.interception import Interception


class Doubled(Interception):
    def __init__(self, function):
        self.function = function
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen.append(func)
        result = func(*args, **(kwargs or {}))
        return 2 * result if func is self.function else result


def test_calls_pass_through_it_while_it_is_open_and_those_it_makes_do_not():
    ones = torch.ones(2)
    with Doubled(torch.relu) as interception:
        assert torch.relu(ones).tolist() == [2, 2]
        assert interception.seen[0] is torch.relu
        assert torch.mul not in interception.seen  # its own doubling
        count = len(interception.seen)
    assert torch.relu(ones).tolist() == [1, 1]
    assert len(interception.seen) == count


def test_the_inner_of_two_comes_first_and_its_calls_reach_the_outer():
    with Doubled(torch.relu) as outer, Doubled(torch.relu) as inner:
        assert torch.relu(torch.ones(1)).item() == 4
    assert torch.relu in outer.seen
    assert torch.relu in inner.seen


def test_it_closes_where_an_error_leaves_it_and_opens_again():
    interception = Doubled(torch.relu)
    with pytest.raises(RuntimeError), interception:
        torch.ones(2).view(3)
    assert torch.relu(torch.ones(1)).item() == 1
    with interception:
        assert torch.relu(torch.ones(1)).item() == 2


def test_it_is_freed_without_the_garbage_collector():
    gc.disable()
    try:
        interception = Doubled(torch.relu)
        with interception:
            torch.relu(torch.ones(1))
        known = weakref.ref(interception)
        del interception
        assert known() is None
    finally:
        gc.enable()
