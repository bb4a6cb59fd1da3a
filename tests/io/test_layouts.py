"""Each family of the table of layouts is recognised in a made-up list of files."""

import pytest

from autoseg.errors import InputError
from autoseg.io.files import list_files
from autoseg.io.layouts import LABEL_FOLDERS, LABEL_SUFFIXES, LABEL_WORDS, OBJECT_FOLDERS, match_labels, recognise_layout

CASES = ("A", "B", "C")


def test_nnunet_has_numbered_channels():
    paths = [f"imagesTr/{case}_000{channel}.nii.gz" for case in CASES for channel in range(2)]
    found = recognise_layout([*paths, *(f"labelsTr/{case}.nii.gz" for case in CASES), "imagesTs/Z_0000.nii.gz"])
    assert found.layout == "nnunet"
    assert found.patterns == {"0000": "imagesTr/{case}_0000{ext}", "0001": "imagesTr/{case}_0001{ext}"}
    assert found.images["0001"] == {case: f"imagesTr/{case}_0001.nii.gz" for case in CASES}
    assert found.labels == {case: f"labelsTr/{case}.nii.gz" for case in CASES}
    assert found.count_pairs() == 3


def test_the_decathlon_has_one_file_per_image():
    found = recognise_layout([*(f"imagesTr/{case}.nii.gz" for case in CASES), *(f"labelsTr/{case}.nii.gz" for case in CASES)])
    assert found.layout == "decathlon"
    assert found.images == {"": {case: f"imagesTr/{case}.nii.gz" for case in CASES}}


def test_a_decathlon_case_that_ends_in_four_digits_is_not_taken_for_a_channel():
    cases = ("la_0001", "la_0002")
    found = recognise_layout([*(f"imagesTr/{case}.nii.gz" for case in cases), *(f"labelsTr/{case}.nii.gz" for case in cases)])
    assert found.layout == "decathlon"
    assert set(found.labels) == set(cases)


@pytest.mark.parametrize("images", ["images", "image", "imgs", "scans"])
@pytest.mark.parametrize("labels", LABEL_FOLDERS)
def test_two_folders_under_any_of_their_names(images, labels):
    found = recognise_layout([*(f"{images}/{case}.png" for case in CASES), *(f"{labels}/{case}.png" for case in CASES)])
    assert found.layout == "two folders"
    assert found.images == {"": {case: f"{images}/{case}.png" for case in CASES}}
    assert found.labels == {case: f"{labels}/{case}.png" for case in CASES}


@pytest.mark.parametrize("suffix", LABEL_SUFFIXES)
def test_two_folders_with_a_suffix_on_the_labels(suffix):
    found = recognise_layout([*(f"images/{case}.jpg" for case in CASES), *(f"masks/{case}{suffix}.png" for case in CASES)])
    assert found.layout == "two folders"
    assert found.labels == {case: f"masks/{case}{suffix}.png" for case in CASES}
    assert found.count_pairs() == 3


@pytest.mark.parametrize("suffix", LABEL_SUFFIXES)
def test_a_label_beside_its_image(suffix):
    found = recognise_layout([name for case in CASES for name in (f"{case}.nrrd", f"{case}{suffix}.nrrd")])
    assert found.layout == "label beside image"
    assert found.images == {"": {case: f"{case}.nrrd" for case in CASES}}
    assert found.labels == {case: f"{case}{suffix}.nrrd" for case in CASES}


def test_glands_have_their_annotation_beside_them():
    paths = [f"train_{case}{part}.bmp" for case in (1, 10, 2) for part in ("", "_anno")]
    found = recognise_layout(sorted(paths))
    assert (found.layout, found.label_pattern) == ("label beside image", "{case}_anno{ext}")
    assert found.images == {"": {f"train_{case}": f"train_{case}.bmp" for case in (1, 10, 2)}}
    assert found.labels["train_10"] == "train_10_anno.bmp"


@pytest.mark.parametrize("word", LABEL_WORDS)
@pytest.mark.parametrize("prefix", ["", "{case}_"])
def test_a_folder_per_case(word, prefix):
    names = (f"{prefix}T1.nii.gz", f"{prefix}FLAIR.nii.gz", f"{prefix}{word}.nii.gz")
    found = recognise_layout([f"{case}/{name.format(case=case)}" for case in CASES for name in names])
    assert found.layout == "folder per case"
    assert set(found.labels) == set(CASES)
    assert set(found.images) == {"T1", "FLAIR"}
    assert found.labels["A"] == f"A/{prefix}{word}.nii.gz".format(case="A")


def test_the_layout_that_pairs_most_files_wins():
    paths = ["odd.nii.gz", "odd_mask.nii.gz", *(f"images/{case}.nii" for case in CASES), *(f"labels/{case}.nii" for case in CASES)]
    assert recognise_layout(paths).layout == "two folders"


def test_files_of_no_layout_are_no_layout():
    assert recognise_layout([]) is None
    assert recognise_layout(["a.nii", "b.nii"]) is None


def test_two_files_for_one_case_are_a_doubt_that_is_told():
    with pytest.raises(InputError, match="Two files fit"):
        recognise_layout(["images/A.png", "images/A.jpg", "labels/A.png"])


@pytest.mark.parametrize("folder", OBJECT_FOLDERS)
@pytest.mark.parametrize("images", ["{case}/images/{case}.png", "{case}/{case}.tif", "{case}/image.png", "images/{case}.png"])
def test_a_file_for_each_object_below_a_folder_for_each_case(folder, images):
    label = f"{folder}/{{case}}" if images.startswith("images") else f"{{case}}/{folder}"
    names = (images, f"{label}/1.png", f"{label}/2.png")
    found = recognise_layout([name.format(case=case) for case in CASES for name in names])
    assert (found.layout, found.label_pattern, found.count_pairs()) == ("file per object", label, 3)
    assert found.labels == {case: label.format(case=case) for case in CASES}
    assert found.images == {"": {case: images.format(case=case) for case in CASES}}


def test_a_folder_of_label_maps_is_not_taken_for_the_objects_of_a_case():
    paths = [f"{folder}/{case}.png" for case in CASES for folder in ("images", "masks")]
    assert recognise_layout([*paths, "masks/A/1.png"]).layout == "two folders"


def test_files_in_the_folder_of_a_label_are_no_images():
    paths = ["A/masks/1.png", "A/masks/2.png", "A/scan.png"]
    assert match_labels("{case}/masks", paths) == ({"A": "A/masks"}, ["A/scan.png"])
    assert match_labels("{case}/scan.png", paths) == ({"A": "A/scan.png"}, paths[:2])


def test_the_nuclei_have_a_file_for_each_object(real_scans):
    found = recognise_layout(list_files(real_scans / "nuclei"))
    assert (found.layout, found.label_pattern, found.count_pairs()) == ("file per object", "{case}/masks", 400)
