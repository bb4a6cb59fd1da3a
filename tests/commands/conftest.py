"""The commands are tested on one core: see `whole_way.on_one_core`."""

import pytest
from whole_way import on_one_core


@pytest.fixture(scope="module", autouse=True)
def one_core():
    with on_one_core():
        yield
