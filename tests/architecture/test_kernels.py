"""Kernels: every operation is in one, shapes agree, and the exported graph holds the same."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.kernels import (
    ADD,
    CONCATENATE,
    CONV,
    DEPTHWISE,
    LINEAR,
    SCALE,
    instructions,
    kernels,
    pieces,
)
from zeroshot_nas.architecture.ops import Activation, Conv, Residual, output_shape
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.spaces.base import get_space

SPACES = ("resnet", "mobilenet", "nasbench201", "nasbench_macro", "nasbench101")


def networks(name, seed):
    space = get_space(name, input_size=(3, 32, 32), num_classes=10)
    rng = python_rng(seed)
    return space.mutate(space.sample(rng), rng)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(SPACES), st.integers(0, 10**6))
def test_every_operation_is_in_one_kernel(name, seed):
    architecture = networks(name, seed)
    program = instructions(architecture.lower(), architecture.input_size)
    weights = sum(
        each.kernel.in_channels
        // each.kernel.groups
        * each.kernel.out_channels
        * each.kernel.kernel_size**2
        * each.output_shape[1]
        * each.output_shape[2]
        for each in program
        if each.kernel.kind in (CONV, DEPTHWISE, LINEAR)
    )
    assert weights == complexity(architecture).flops
    assert program[-1].output_shape == (10, 1, 1)
    for position, each in enumerate(program, start=1):
        assert all(0 <= source < position for source in each.sources)
        assert len(each.sources) == each.kernel.inputs


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(SPACES), st.integers(0, 10**6))
def test_a_network_is_its_blocks_one_behind_the_other(name, seed):
    architecture = networks(name, seed)
    *bodies, head = architecture.lower()
    found = []
    for (_, channels, resolution), ops in zip(architecture.inputs(), bodies, strict=True):
        found += [each.kernel for each in instructions((ops,), (channels, *resolution))]
    found += [each.kernel for each in instructions((head,), architecture.feature_shape)]
    assert found == kernels(architecture)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(SPACES), st.integers(0, 10**6))
def test_no_kernel_reaches_beyond_its_piece(name, seed):
    architecture = networks(name, seed)
    shape, found = architecture.input_size, []
    for ops in architecture.lower():
        cut = pieces(ops)
        assert sum(cut, ()) == ops
        for piece in cut:
            found += [each.kernel for each in instructions((piece,), shape)]
            shape = output_shape(piece, shape)
    assert found == kernels(architecture)


def test_a_convolution_takes_its_norm_and_activation_along():
    net = Architecture.from_string(
        "SuperConvK3BNRELU(3,8,2,1)SuperResIDWE2K5(8,8,1,8,1)", (3, 8, 8), squeeze_excite=True
    )
    kinds = Counter(each.kind for each in kernels(net))
    assert kinds == {CONV: 10, DEPTHWISE: 2, SCALE: 2, ADD: 2, "global_pool": 3, LINEAR: 1}
    assert kernels(net)[0][:9] == (CONV, 3, 8, 8, 8, 3, 2, 1, 1)
    assert kernels(net)[0].activation == "relu"


def test_a_sum_takes_the_activation_behind_it_and_marks_what_it_can_be_taken_in_by():
    program = instructions(((Residual((Conv(4, 4, 3),), (Conv(4, 4, 1),)), Activation()),), (4, 8, 8))
    assert [(each.kernel.kind, each.kernel.joins, each.kernel.activation) for each in program] == [
        (CONV, True, ""),
        (CONV, False, ""),
        (ADD, False, "relu"),
    ]
    assert program[-1].sources == (1, 2)


def test_a_concatenation_adds_its_channels():
    space = get_space("nasbench101")
    joined = (each for seed in range(20) for each in kernels(space.sample(python_rng(seed))))
    found = [each for each in joined if each.kind == CONCATENATE]
    assert found
    assert all(each.inputs > 1 for each in found)
