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


PARTS = {
    "slice": lambda x: x[:, 1:3],
    "element": lambda x: x[0, 1, 2],
    "select": lambda x: x.select(1, 2),
    "narrow": lambda x: x.narrow(1, 0, 2),
    "view": lambda x: x.view(2, -1),
    "flatten": lambda x: x.flatten(1),
    "transpose": lambda x: x.transpose(1, 3),
    "expand": lambda x: x[:, :1].squeeze(1),
    "diagonal": lambda x: x.diagonal(0, 2, 3),
    "chunk": lambda x: x.chunk(2, 1)[1],
    "split": lambda x: x.split([1, 3], 1)[0],
    "unbind": lambda x: x.unbind(1)[3],
    "slice of a slice": lambda x: x[1:][:, ::2],
}
CHANGES = {
    "method": lambda part: part.mul_(3),
    "operator": lambda part: part.__iadd__(2),
    "assignment": lambda part: part.__setitem__(..., 7),
    "flag": lambda part: torch.nn.functional.leaky_relu(part, 0.25, inplace=True),
}


@pytest.mark.parametrize("keeps_part", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("part_of", PARTS.values(), ids=PARTS)
def test_a_change_of_a_part_leaves_what_is_kept_and_is_seen_by_all_of_its_memory(part_of, change, keeps_part):
    drawn = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1)) - 1
    expected, x, tensors = drawn.clone(), drawn.clone(), KeptTensors()
    change(part_of(expected))
    part, other, again = part_of(x), x[:, 1], part_of(x)
    kept = tensors.keep(part if keeps_part else x)
    before = kept.clone()
    with intercepted(tensors.run):
        change(tensors.current(part))
    assert torch.equal(kept, before)
    assert torch.equal(x, drawn)
    tensors.check(kept)
    for old, new in ((x, expected), (part, part_of(expected)), (again, part_of(expected)), (other, expected[:, 1])):
        assert torch.equal(tensors.current(old), new)
    assert tensors.current(part) is tensors.current(part)  # whoever reads it, the graph passes through one tensor
    with intercepted(tensors.run):
        change(tensors.current(other))  # once more, of another part
    change(expected[:, 1])
    assert torch.equal(tensors.current(part), part_of(expected))
    assert torch.equal(tensors.current(x), expected)
    assert torch.equal(kept, before)


def test_gradients_of_what_follows_pass_through_the_kept_part_and_the_kept_whole():
    x = torch.ones(2, 3, requires_grad=True)
    tensors = KeptTensors()
    whole = tensors.keep(x * 2)
    part = tensors.keep(whole[:, :2])
    with intercepted(tensors.run):
        tensors.current(part).mul_(tensors.current(part))
        tensors.current(whole).mul_(5)
    of_whole, of_part, of_x = torch.autograd.grad(tensors.current(whole).sum(), [whole, part, x])
    assert of_part.tolist() == [[20, 20]] * 2
    assert of_whole.tolist() == [[20, 20, 5]] * 2
    assert of_x.tolist() == [[40, 40, 10]] * 2


def test_a_change_that_has_no_other_form_is_refused():
    tensors, x = kept([1.0, 2.0])
    tensors.check(x)
    x[0] = 5  # where nobody sees it
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
