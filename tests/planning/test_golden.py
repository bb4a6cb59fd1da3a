"""Plans as they were agreed on: for every golden fingerprint every profile decides what it decided before."""

import pytest
from golden import list_names, plan_everything, read_pair


def test_there_are_enough_of_them():
    assert len(list_names()) >= 30


@pytest.mark.parametrize("name", list_names())
def test_a_golden_fingerprint_is_planned_as_before(name):
    pair = read_pair(name)
    made = plan_everything(pair["data"])
    assert made.keys() == pair["plans"].keys()
    for profile, plan in made.items():
        assert plan == pair["plans"][profile], profile
