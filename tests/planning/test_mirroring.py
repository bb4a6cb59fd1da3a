"""Along which axes scans may be mirrored: what names, and where classes lie, say about left and right."""

from itertools import permutations

import msgspec
import numpy as np
import pytest

from autoseg.io.profiles import read_profile
from autoseg.planning.mirroring import decide_mirroring
from autoseg.records.fingerprint import ClassObjects

PROFILE = read_profile("autoseg")
KIDNEYS = {"label_1": (0.5, 0.6, 0.3), "label_2": (0.52, 0.58, 0.7)}  # centres in z, y, x
ROW = (20, (1.0, 1.0, 1.0), (30, 30, 30))
IMAGES = (20, (1.0, 1.0), (30, 30))


def vary(**changes):
    return msgspec.structs.replace(PROFILE, **changes)


def decide(data, profile=PROFILE, axes=None):
    dataset, fingerprint = data
    return decide_mirroring(dataset, fingerprint, profile, axes or tuple(range(dataset.dimension)))


@pytest.fixture
def place(describe):
    """(centres by class, volumes by class, cases that are swapped along x, cases without any class, row of `describe`) → data."""

    def make(centres, volumes=None, swapped=0, missing=0, row=ROW):
        dataset, fingerprint = describe([row], classes=tuple(centres))
        generator = np.random.default_rng(0)
        cases = []
        for number, case in enumerate(fingerprint.cases):
            shift = generator.uniform(-0.15, 0.15, len(row[1]))  # patients lie elsewhere in their scans, all organs alike
            classes = []
            for name, centre in centres.items():
                lies = np.array(centre) + shift + generator.uniform(-0.01, 0.01, len(centre))
                if number < swapped:
                    lies[-1] = 1 - lies[-1]
                volume = (volumes or {}).get(name, 100.0) * generator.uniform(0.9, 1.1)
                here = number >= missing
                classes.append(
                    ClassObjects(
                        name=name,
                        voxels=99 * here,
                        volume=volume * here,
                        objects=int(here),
                        object_volumes=(volume,) * 5 if here else (),
                        object_extents=(9.0,) * 5 if here else (),
                        centre=tuple(lies) if here else (),
                    )
                )
            cases.append(msgspec.structs.replace(case, classes=tuple(classes)))
        return dataset, msgspec.structs.replace(fingerprint, cases=tuple(cases))

    return make


@pytest.mark.parametrize(
    "name",
    [
        "left kidney",
        "Kidney_R",
        "RightLung",
        "lung right upper",
        "Niere links",
        "linke Niere",
        "Rechter_Unterlappen",
        "rein droit",
        "ovaire gauche",
        "kidney-l",
        "ctx-lh-cuneus",
    ],
)
@pytest.mark.parametrize("evidence", [True, False])
def test_a_class_that_names_a_side_keeps_that_axis_alone(describe, name, evidence):
    axes, reason = decide(describe([ROW], classes=("spleen", name)), vary(evidence=evidence))
    assert axes == (0, 1)
    assert name in reason
    assert "left-right" in reason


@pytest.mark.parametrize("name", ["liver", "brightness", "cleft", "adrenal", "vertebra L1", "vertebra_L5", "R2 lesion", "upright", "LV"])
def test_classes_that_name_no_side_are_mirrored_along_all_axes(describe, name):
    axes, reason = decide(describe([ROW], classes=(name,)))
    assert axes == (0, 1, 2)
    assert reason.startswith("all axes")


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_left_right_is_the_last_canonical_axis_wherever_it_is_moved(describe, order):
    axes, _ = decide(describe([ROW], classes=("left", "right")), axes=order)
    assert {order[axis] for axis in axes} == {0, 1}


def test_in_images_the_horizontal_axis_is_taken_as_left_right(describe):
    axes, reason = decide(describe([IMAGES], classes=("left lung", "right lung")))
    assert axes == (0,)
    assert "horizontal" in reason


def test_scans_in_their_stored_order_are_not_mirrored_at_all_where_sides_matter(describe):
    stored = vary(orientation="stored")
    assert decide(describe([ROW], classes=("left", "right")), stored)[0] == ()
    assert decide(describe([ROW]), stored)[0] == (0, 1, 2)


def test_a_profile_that_mirrors_all_or_nothing_asks_no_questions(place):
    data = place({"left": (0.5, 0.5, 0.3), "right": (0.5, 0.5, 0.7)})
    assert decide(data, vary(mirror="all"))[0] == (0, 1, 2)
    axes, reason = decide(data, vary(mirror="none"))
    assert (axes, reason) == ((), "off: in a short training the time is better spent on scans as they are")


def test_two_classes_that_lie_like_a_left_and_a_right_keep_that_axis(place):
    axes, reason = decide(place(KIDNEYS))
    assert axes == (0, 1)
    assert all(word in reason for word in ("label_1", "label_2", "20 of 20"))
    assert decide(place(KIDNEYS), axes=(2, 0, 1))[0] == (1, 2)
    assert decide(place(KIDNEYS), vary(evidence=False))[0] == (0, 1, 2)


def test_positions_speak_in_images_too(place):
    axes, reason = decide(place({"a": (0.5, 0.3), "b": (0.5, 0.7)}, row=IMAGES))
    assert axes == (0,)
    assert "20 of 20" in reason


@pytest.mark.parametrize(("swapped", "axes"), [(0, (0, 1)), (1, (0, 1)), (2, (0, 1, 2)), (10, (0, 1, 2))])
def test_the_order_is_kept_in_19_of_20_scans_at_least(place, swapped, axes):
    found, reason = decide(place(KIDNEYS, swapped=swapped))
    assert found == axes
    if swapped == 1:
        assert "19 of 20" in reason


@pytest.mark.parametrize(("missing", "axes"), [(10, (0, 1)), (11, (0, 1, 2)), (20, (0, 1, 2))])
def test_fewer_than_10_scans_with_both_claim_nothing(place, missing, axes):
    found, reason = decide(place(KIDNEYS, missing=missing))
    assert found == axes
    if missing == 10:
        assert "10 of 10" in reason


@pytest.mark.parametrize(("volume", "axes"), [(140.0, (0, 1)), (170.0, (0, 1, 2)), (60.0, (0, 1, 2))])
def test_a_left_and_a_right_are_alike_in_size(place, volume, axes):
    assert decide(place(KIDNEYS, {"label_2": volume}))[0] == axes


@pytest.mark.parametrize(
    ("why", "centres"),
    [
        ("front and back", {"a": (0.5, 0.3, 0.5), "b": (0.5, 0.7, 0.5)}),
        ("above and below", {"a": (0.3, 0.5, 0.5), "b": (0.7, 0.5, 0.52)}),
        ("one lies higher", {"a": (0.4, 0.5, 0.3), "b": (0.52, 0.5, 0.7)}),
        ("one lies further back", {"a": (0.5, 0.4, 0.3), "b": (0.5, 0.52, 0.7)}),
        ("hardly apart", {"a": (0.5, 0.5, 0.48), "b": (0.5, 0.5, 0.52)}),
        ("both on one side", {"a": (0.5, 0.5, 0.6), "b": (0.5, 0.5, 0.8), "c": (0.2, 0.5, 0.1), "d": (0.8, 0.5, 0.1)}),
        ("alone", {"a": (0.5, 0.5, 0.3)}),
    ],
)
def test_classes_that_lie_otherwise_are_no_pair(place, why, centres):
    axes, reason = decide(place(centres, {"c": 1000.0, "d": 5000.0}))
    assert axes == (0, 1, 2), why
    assert reason.startswith("all axes")


def test_of_several_pairs_the_one_most_alike_in_size_is_named(place):
    centres = {"lungs a": (0.8, 0.5, 0.25), "kidney b": (0.5, 0.6, 0.32), "kidney a": (0.5, 0.6, 0.68), "lungs b": (0.8, 0.5, 0.75)}
    _, reason = decide(place(centres, {"lungs a": 2800.0, "lungs b": 2100.0}))
    assert "kidney b and kidney a" in reason
    assert "lungs" not in reason


def test_classes_that_were_not_measured_are_no_evidence(describe):
    dataset, fingerprint = describe([ROW], classes=("a", "b", "c"))
    assert decide((dataset, fingerprint))[0] == (0, 1, 2)
    bare = msgspec.structs.replace(fingerprint, cases=tuple(msgspec.structs.replace(case, classes=()) for case in fingerprint.cases))
    assert decide((dataset, bare))[0] == (0, 1, 2)
