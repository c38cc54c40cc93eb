"""A pytest plugin that runs one test of each file, but all tests of a file where a missing extra may show.

`python -m pytest -p tests.support.first_of_each_file`
"""

from pathlib import Path

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the tests that `-m` and `-k` left, keep the first of each file.

    Keep all of a file in which only some need an extra.
    """
    first: dict[Path, pytest.Item] = {}
    for item in items:
        first.setdefault(item.path, item)
    needing = [item for item in items if item.get_closest_marker("needs")]
    mixed = {item.path for item in needing} & {item.path for item in set(items).difference(needing)}
    chosen = {*first.values(), *(item for item in items if item.path in mixed)}
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = [item for item in items if item in chosen]
