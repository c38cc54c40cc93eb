"""A plugin of pytest: of each file it runs one test, and all files are imported.

`python -m pytest -p tests.support.first_of_each_file`
"""

from pathlib import Path

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The first that needs no extra, of those that `-m` and `-k` have left."""
    first: dict[Path, pytest.Item] = {}
    for item in sorted(items, key=lambda item: item.get_closest_marker("needs") is not None):
        first.setdefault(item.path, item)
    chosen = set(first.values())
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = [item for item in items if item in chosen]
