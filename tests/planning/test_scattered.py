"""Where objects are many and unequal, patches are drawn by object as well; where there is one per scan, they are not."""

import pytest
from planned_runs import make_dataset

from autoseg.planning.scattered import choose_object_share
from autoseg.records.fingerprint import CaseFingerprint, ClassObjects, Fingerprint


def make_case(number: int, *classes: ClassObjects) -> CaseFingerprint:
    sizes = {"shape": (9, 9, 9), "spacing": (1.0, 1.0, 1.0), "cropped_shape": (9, 9, 9)}
    return CaseFingerprint(case=f"case{number}", digest="", orientation="LPS", channels=(), classes=classes, **sizes)


def make_objects(count: int, volumes: tuple[float, ...]) -> ClassObjects:
    return ClassObjects(name="", voxels=count, volume=1.0, objects=count, object_volumes=volumes, object_extents=())


ORGAN = make_objects(1, (900.0,) * 5)
LESIONS = make_objects(5, (2.0, 4.0, 30.0, 100.0, 800.0))
NUCLEI = make_objects(50, (40.0, 50.0, 60.0, 70.0, 80.0))
NONE = make_objects(0, ())


@pytest.mark.parametrize(
    ("lesions", "share"),
    [([LESIONS] * 3, 0.5), ([LESIONS, NONE, NONE], 0.5), ([NUCLEI] * 3, 0.0), ([ORGAN] * 3, 0.0), ([NONE] * 3, 0.0)],
    ids=["lesions", "lesions in few scans", "many alike", "one each", "none"],
)
def test_objects_count_alike_where_they_are_several_and_unequal(lesions, share):
    fingerprint = Fingerprint(cases=tuple(make_case(number, ORGAN, found) for number, found in enumerate(lesions)))
    got, why = choose_object_share(make_dataset(), fingerprint)
    assert got == share
    assert bool(why) == bool(share)
    if why:
        assert "lesion has 5 in a median scan" in why
        assert "below 4 mm³, the largest 800" in why
