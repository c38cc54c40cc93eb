"""A plugin of pytest: of each file it runs one test, and all of a file where an extra that is missing may show.

`python -m pytest -p tests.support.first_of_each_file`
"""

from pathlib import Path

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The first of those that `-m` and `-k` have left; all of a file in which some need an extra and others do not."""
    first: dict[Path, pytest.Item] = {}
    for item in items:
        first.setdefault(item.path, item)
    needing = [item for item in items if item.get_closest_marker("needs")]
    mixed = {item.path for item in needing} & {item.path for item in set(items).difference(needing)}
    chosen = {*first.values(), *(item for item in items if item.path in mixed)}
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = [item for item in items if item in chosen]
