"""From a folder to cases: what pairs, what is wrong with the rest, and what the folder says about itself."""

import json
from pathlib import Path

import pytest

from autoseg.errors import InputError
from autoseg.io.discovery import Problem, discover, name_classes
from autoseg.records.dataset import ClassLabel


def make_folder(root: Path, *names: str, declaration: object = None) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    if declaration is not None:
        (root / "dataset.json").write_text(declaration if isinstance(declaration, str) else json.dumps(declaration))
    return root


def two_folders(*cases: str) -> list[str]:
    return [f"{folder}/{case}.nii.gz" for case in cases for folder in ("images", "labels")]


def test_pairs_become_cases_with_paths_relative_to_the_root(tmp_path):
    found = discover(make_folder(tmp_path, *two_folders("B", "A")))
    assert found.root == tmp_path.resolve()
    assert [(case.id, case.images, case.label) for case in found.cases] == [
        ("A", ("images/A.nii.gz",), "labels/A.nii.gz"),
        ("B", ("images/B.nii.gz",), "labels/B.nii.gz"),
    ]
    assert found.channels == (("image", "images/{case}{ext}"),)
    assert (found.problems, found.notes, found.classes) == ((), (), None)


def test_nnunets_dataset_json_names_channels_classes_and_the_ignored_value(tmp_path):
    labels = {"background": 0, "core": 2, "edema": 1, "ignore": 3}
    declaration = {"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    names = ("imagesTr/A_0000.nii.gz", "imagesTr/A_0001.nii.gz", "labelsTr/A.nii.gz")
    found = discover(make_folder(tmp_path, *names, declaration=declaration))
    assert found.channels == (("T1", "imagesTr/{case}_0000{ext}"), ("FLAIR", "imagesTr/{case}_0001{ext}"))
    assert found.classes == (ClassLabel(name="edema", values=(1,)), ClassLabel(name="core", values=(2,)))
    assert found.ignore_value == 3
    assert found.cases[0].images == names[:2]


def test_the_decathlons_dataset_json_names_components_classes_and_cases(tmp_path):
    declaration = {
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": {"0": "background", "1": "edema", "2": "tumour"},
        "training": [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in ("A", "gone")],
    }
    names = [f"{folder}/{case}.nii.gz" for case in ("A", "unlisted") for folder in ("imagesTr", "labelsTr")]
    found = discover(make_folder(tmp_path, *names, declaration=declaration))
    assert found.layout == "decathlon"
    assert found.component_names == ("FLAIR", "T1w")
    assert found.classes == (ClassLabel(name="edema", values=(1,)), ClassLabel(name="tumour", values=(2,)))
    assert [case.id for case in found.cases] == ["A"]
    assert found.problems == (Problem("gone", "dataset.json lists it, but there are no files"),)


@pytest.mark.parametrize(
    "declaration",
    ["{", "[]", {"labels": []}, {"labels": {"0": "background"}, "modality": {"x": "CT"}}, {"training": [{"label": "A"}]}, {"training": 3}],
)
def test_a_broken_dataset_json_is_refused_with_the_way_out(tmp_path, declaration):
    with pytest.raises(InputError, match=r"dataset.json cannot be understood") as caught:
        discover(make_folder(tmp_path, *two_folders("A"), declaration=declaration))
    assert "move it away" in caught.value.todo


def test_regions_come_in_the_order_in_which_nnunets_dataset_json_paints_them(tmp_path):
    labels = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumour": 2, "ignore": 4}
    declaration = {"channel_names": {"0": "CT"}, "labels": labels, "regions_class_order": [1, 3, 2]}
    found = discover(make_folder(tmp_path, *two_folders("A"), declaration=declaration))
    assert [(label.name, label.values) for label in found.classes] == [("kidney", (1, 2, 3)), ("masses", (3, 2)), ("tumour", (2,))]
    assert found.ignore_value == 4
    declaration = {"labels": {"background": 0, "all": [1, 2, 3], "part": [2, 3]}, "regions_class_order": [1, 3]}
    told = discover(make_folder(tmp_path, *two_folders("A"), declaration=declaration)).classes
    assert [(label.name, label.values) for label in told] == [("all", (1, 2, 3)), ("part", (3, 2))]


def test_typed_classes_take_the_place_of_declared_ones(tmp_path):
    declaration = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}}
    found = discover(make_folder(tmp_path, *two_folders("A"), declaration=declaration))
    assert name_classes(found, ()) == (found, ())
    named, names = name_classes(found, ("x", "y"))
    assert (named.classes, named.ignore_value, names) == (None, 3, ("x", "y"))
    valued, names = name_classes(found, ("x=1+2", "y=3"))
    assert (valued.classes, valued.ignore_value, names) == (
        (ClassLabel(name="x", values=(1, 2)), ClassLabel(name="y", values=(3,))),
        None,
        (),
    )
    assert (found.declared_in, named.declared_in, valued.declared_in) == ("dataset.json", "dataset.json", "--classes")
    ignoring, names = name_classes(found, ("ignore=4",))
    assert (ignoring.classes, ignoring.ignore_value, names) == (found.classes, 4, ())
    with pytest.raises(InputError, match="b has the value 2, which is to be ignored"):
        name_classes(found, ("ignore=2",))


def test_a_label_without_an_image_is_a_problem_and_an_image_without_a_label_a_note(tmp_path):
    names = [*two_folders("A"), "labels/B.nii.gz", *(f"images/{number}.nii.gz" for number in range(7))]
    found = discover(make_folder(tmp_path, *names))
    assert [case.id for case in found.cases] == ["A"]
    assert found.problems == (Problem("B", "the label labels/B.nii.gz has no image"),)
    assert found.notes == ("7 images have no label and are left out: 0, 1, 2, 3, 4 and 2 more",)


def test_a_missing_channel_is_a_problem_of_its_case(tmp_path):
    names = ["imagesTr/A_0000.nii.gz", "imagesTr/A_0001.nii.gz", "imagesTr/B_0000.nii.gz", "labelsTr/A.nii.gz", "labelsTr/B.nii.gz"]
    found = discover(make_folder(tmp_path, *names))
    assert [case.id for case in found.cases] == ["A"]
    assert found.problems == (Problem("B", "no file for channel 0001"),)


def test_in_folders_per_case_the_files_that_most_cases_have_are_channels(tmp_path):
    names = [f"{case}/{name}.nii.gz" for case in "AB" for name in ("T1", "T2", "seg")]
    found = discover(make_folder(tmp_path, *names, "A/extra.nii.gz"))
    assert found.channels == (("T1", "{case}/T1{ext}"), ("T2", "{case}/T2{ext}"))
    assert [case.id for case in found.cases] == ["A", "B"]


def test_groups_are_named_by_the_first_group_or_the_whole_match(tmp_path):
    make_folder(tmp_path, *two_folders("p1_left", "p1_right", "p2_left"))
    assert [case.group for case in discover(tmp_path, groups=r"(p\d)_").cases] == ["p1", "p1", "p2"]
    assert [case.group for case in discover(tmp_path, groups=r"p\d").cases] == ["p1", "p1", "p2"]
    found = discover(tmp_path, groups=r"(.*)_left")
    assert found.problems == (Problem("p1_right", "its name does not fit --groups '(.*)_left'"),)
    with pytest.raises(InputError, match="not a regular expression"):
        discover(tmp_path, groups="(")


def test_excluded_cases_are_gone_with_their_problems_and_unknown_ones_refused(tmp_path):
    make_folder(tmp_path, *two_folders("A", "B"), "labels/C.nii.gz")
    found = discover(tmp_path, exclude=("B", "C"))
    assert [case.id for case in found.cases] == ["A"]
    assert found.problems == ()
    with pytest.raises(InputError, match="not there: Z"):
        discover(tmp_path, exclude=("Z",))


def test_patterns_name_channels_in_the_order_given(tmp_path):
    make_folder(tmp_path, "A/z.nrrd", "A/a.nrrd", "A/truth.nrrd")
    found = discover(tmp_path, images={"Z": "{case}/z.nrrd", "A": "{case}/a.nrrd"}, labels="{case}/truth.nrrd")
    assert found.layout == "patterns"
    assert found.channels == (("Z", "{case}/z.nrrd"), ("A", "{case}/a.nrrd"))
    assert found.cases[0].images == ("A/z.nrrd", "A/a.nrrd")


def test_a_broad_image_pattern_does_not_take_the_labels(tmp_path):
    make_folder(tmp_path, "A.nrrd", "A-seg.nrrd")
    found = discover(tmp_path, images={"CT": "{case}.nrrd"}, labels="{case}-seg.nrrd")
    assert [case.id for case in found.cases] == ["A"]
    assert found.notes == ()


def test_patterns_come_in_pairs(tmp_path):
    make_folder(tmp_path, *two_folders("A"))
    with pytest.raises(InputError, match="--labels needs --images"):
        discover(tmp_path, labels="labels/{case}.nii.gz")
    with pytest.raises(InputError, match="--images needs --labels"):
        discover(tmp_path, images={"": "images/{case}.nii.gz"})


def test_no_pairs_are_explained_with_counts_and_the_closest_names(tmp_path):
    make_folder(tmp_path, "scan_01.nii.gz", "scan_01_truth.nii.gz")
    with pytest.raises(InputError, match="No pair of image and label") as caught:
        discover(tmp_path)
    assert "2 scans fit no known layout" in caught.value.why
    assert "scan_01.nii.gz  ↔  scan_01_truth.nii.gz" in caught.value.why
    assert "{case}" in caught.value.todo
    with pytest.raises(InputError) as caught:
        discover(tmp_path, images={"": "{case}_a.nii.gz"}, labels="{case}_truth.nii.gz")
    assert "1 for the label" in caught.value.why


def test_an_empty_folder_and_no_folder_are_told_apart(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="No scan was found") as caught:
        discover(tmp_path)
    assert "1 files" in caught.value.why
    with pytest.raises(InputError, match="is not a folder"):
        discover(tmp_path / "absent")


def test_labels_may_be_folders_of_a_file_for_each_object(tmp_path):
    make_folder(tmp_path, *(f"{case}/{name}.png" for case in "AB" for name in ("scan", "cells/1", "cells/2")), "A/cells/old/1.png")
    found = discover(tmp_path, images={"": "{case}/scan.png"}, labels="{case}/cells")
    assert [(case.id, case.label) for case in found.cases] == [("A", "A/cells"), ("B", "B/cells")]
    assert found.label_form == "files"
    broad = discover(tmp_path, images={"": "{case}/*.png"}, labels="{case}/cells/")
    assert [case.images for case in broad.cases] == [("A/scan.png",), ("B/scan.png",)]
