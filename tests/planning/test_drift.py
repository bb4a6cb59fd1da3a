"""What a plan would decide otherwise: a line for each decision, none for what moved a little."""

import msgspec
import pytest
from builders import make_configuration
from planned_runs import GPU

from autoseg.planning.drift import list_drift
from autoseg.records.plan import Plan


@pytest.fixture
def made():
    """A plan of two configurations."""
    configurations = (make_configuration(2, 64, name="2d", spacing=(1.0, 2.0)), make_configuration(3, 32, name="3d_fullres"))
    return Plan(
        profile="autoseg",
        machine=GPU,
        dataset_digest="",
        fingerprint_digest="",
        orientation="LPS",
        axes=(0, 1, 2),
        default_configuration="3d_fullres",
        default_reason="",
        configurations=configurations,
    )


def change(plan, **changes):
    """The plan with fields of its first configuration changed."""
    first, *others = plan.configurations
    return msgspec.structs.replace(plan, configurations=(msgspec.structs.replace(first, **changes), *others))


def test_equal_plans_have_not_drifted(made):
    assert list_drift(made, made) == []


def test_numbers_with_decimals_may_move_a_little_and_whole_ones_not_at_all(made):
    assert list_drift(made, change(made, spacing=(1.04, 2.0))) == []
    (line,) = list_drift(made, change(made, spacing=(1.06, 2.0)))
    assert line.startswith("2d.spacing: ")
    (line,) = list_drift(made, change(made, batch_size=made.configurations[0].batch_size + 1))
    assert line.startswith("2d.batch_size: ")


def test_configurations_that_come_and_go_are_named(made):
    fewer = msgspec.structs.replace(made, configurations=made.configurations[1:])
    assert list_drift(made, fewer) == ["2d: not planned any more"]
    assert list_drift(fewer, made) == ["2d: planned as well"]


def test_another_default_is_told(made):
    (line,) = list_drift(made, msgspec.structs.replace(made, default_configuration="2d"))
    assert line == "default_configuration: 3d_fullres → 2d"
