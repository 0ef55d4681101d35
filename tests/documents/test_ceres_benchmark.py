"""The development script of CERES: its form is the package's, its split is half of the networks."""

import sys
from pathlib import Path

import pytest

import zeroshot_nas as zs

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import ceres

        return ceres
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_the_form_is_the_packages(script):
    networks, accuracy = script.vcn(Path())
    numbers = script.Networks(script.numbers_of(networks, accuracy), images=20_000, steps=3_750)
    options = {"images": numbers.images, "steps": numbers.steps}
    expected = [zs.score(network, zs.get_proxy("ceres", **options)).value for network in networks]
    assert script.ceres(numbers).tolist() == pytest.approx(expected, rel=1e-9)
    assert script.cet(numbers).tolist() == pytest.approx([zs.score(each, "cet").value for each in networks], rel=1e-9)


def test_half_of_the_networks_may_be_looked_at(script):
    assert len(script.DEVELOPMENT) == 98
    assert script.SEEN <= script.DEVELOPMENT
