"""Torch's calls pass through a handler while it is open, and nothing of it stays; kept tensors stay as they are."""

import gc
import weakref

import pytest
import torch

from zeroshot_nas.errors import ProxyError
from zeroshot_nas.scoring.interception import KeptTensors, intercepted


class Doubled:
    def __init__(self, function):
        self.function = function
        self.seen = []

    def __call__(self, func, args, kwargs):
        self.seen.append(func)
        result = func(*args, **kwargs)
        return 2 * result if func is self.function else result


def test_calls_pass_through_it_while_it_is_open_and_those_it_makes_do_not():
    ones, handler = torch.ones(2), Doubled(torch.relu)
    with intercepted(handler):
        assert torch.relu(ones).tolist() == [2, 2]
        assert handler.seen[0] is torch.relu
        assert torch.mul not in handler.seen  # its own doubling
        count = len(handler.seen)
    assert torch.relu(ones).tolist() == [1, 1]
    assert len(handler.seen) == count


def test_the_inner_of_two_comes_first_and_its_calls_reach_the_outer():
    outer, inner = Doubled(torch.relu), Doubled(torch.relu)
    with intercepted(outer), intercepted(inner):
        assert torch.relu(torch.ones(1)).item() == 4
    assert torch.relu in outer.seen
    assert torch.relu in inner.seen


def test_it_closes_where_an_error_leaves_it_and_opens_again():
    handler = Doubled(torch.relu)
    with pytest.raises(RuntimeError), intercepted(handler):
        torch.ones(2).view(3)
    assert torch.relu(torch.ones(1)).item() == 1
    with intercepted(handler):
        assert torch.relu(torch.ones(1)).item() == 2


def test_it_is_freed_without_the_garbage_collector():
    gc.disable()
    try:
        handler = Doubled(torch.relu)
        with intercepted(handler):
            torch.relu(torch.ones(1))
        known = weakref.ref(handler)
        del handler
        assert known() is None
    finally:
        gc.enable()


def kept(*values):
    tensors = KeptTensors()
    return tensors, *(tensors.keep(torch.tensor(value)) for value in values)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: x.mul_(2), [2, -4]),
        (lambda x: x.__imul__(2), [2, -4]),  # x *= 2
        (lambda x: torch.clamp_(x, min=-1), [1, -1]),
    ],
    ids=["method", "operator", "function"],
)
def test_a_kept_tensor_stays_and_its_holder_finds_the_change(change, expected):
    tensors, x = kept([1.0, -2.0])
    with intercepted(tensors.run):
        changed = change(x)
    assert x.tolist() == [1, -2]
    assert changed.tolist() == tensors.current(x).tolist() == expected


def test_what_is_not_kept_is_changed_in_place():
    tensors, x = KeptTensors(), torch.tensor([1.0])
    with intercepted(tensors.run):
        assert x.mul_(2) is x
    assert tensors.current(x) is x


def test_replacements_are_followed_to_the_last_in_lists_and_tuples_too():
    tensors, x, y = kept([1.0], [2.0])
    middle, last = torch.tensor([3.0]), torch.tensor([4.0])
    tensors.replace(x, middle)
    tensors.replace(middle, last)
    assert tensors.current(x) is last
    found = tensors.current([(x, y), "text", None])
    assert found[0][0] is last
    assert found[0][1] is y
    assert found[1:] == ["text", None]


def test_a_change_that_has_no_other_form_is_refused():
    tensors, x = kept([1.0, 2.0])
    tensors.check(x)
    x[0] = 5
    with pytest.raises(ProxyError, match="changes part of a feature map in place"):
        tensors.check(x)


def test_a_kept_tensor_lives_no_longer_for_it_and_its_number_is_nobody_elses():
    tensors, x = kept([1.0])
    tensors.replace(x, torch.zeros(1))
    known = weakref.ref(x)
    del x
    assert known() is None
    assert all(tensors.current(other) is other for other in [torch.ones(1) for _ in range(100)])


def test_a_property_of_a_like_name_is_no_function():
    """``requires_grad_`` has no form without its underscore that could be called."""
    tensors, x = kept([1.0])
    with intercepted(tensors.run):
        assert x.requires_grad_() is x
