"""The order of the zoo's tests: network by network, since all tests of one read the same scores."""

from pathlib import Path

ZOO_TESTS = Path(__file__).with_name("test_zoo.py")


def pytest_collection_modifyitems(items):
    places = [place for place, item in enumerate(items) if item.path == ZOO_TESTS]
    by_network: dict[str, list] = {}
    for place in places:
        item = items[place]
        by_network.setdefault(item.callspec.params["name"] if hasattr(item, "callspec") else "", []).append(item)
    ordered = [item for members in by_network.values() for item in members]
    for place, item in zip(places, ordered, strict=True):
        items[place] = item
