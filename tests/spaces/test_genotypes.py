"""Spaces that list their architectures."""

import pytest

import zeroshot_nas as zs


@pytest.mark.slow
@pytest.mark.parametrize("name", zs.list_spaces())
def test_a_space_lists_all_its_architectures_or_none(name):
    space = zs.get_space(name, input_size=(3, 32, 32))
    if space.size() > 16_000:
        return
    listed = list(space.architectures())
    assert len(listed) in (0, space.size())
    assert len(set(listed)) == len(listed)
    assert all(net in space for net in listed[:: max(1, len(listed) // 50)])


def test_cells_are_listed():
    assert sum(1 for _ in zs.get_space("nasbench201").architectures()) == 15_625
