"""Paths with holes find the files they describe and no others."""

import pytest

from autoseg.errors import InputError
from autoseg.io.patterns import compile_pattern, fill_channel, get_file_part, match_channels, match_folders, match_paths, split_pattern


@pytest.mark.parametrize(
    ("pattern", "path", "case"),
    [
        ("images/{case}.nii.gz", "images/A_1.nii.gz", "A_1"),
        ("./images/{case}.nii.gz", "images/A.nii.gz", "A"),
        ("{case}/T1.nii.gz", "patient 7/T1.nii.gz", "patient 7"),
        ("{case}/{case}_T1.nii.gz", "A/A_T1.nii.gz", "A"),
        ("{case}/{case}_T1.nii.gz", "A/B_T1.nii.gz", None),
        ("{case}{ext}", "A.b.NII.GZ", "A.b"),
        ("{case}{ext}", "A.nii.gz", "A"),
        ("{case}.nii.gz", "folder/A.nii.gz", None),
        ("*/{case}.nrrd", "any/A.nrrd", "A"),
        ("*/{case}.nrrd", "any/deep/A.nrrd", None),
        ("scan(1)+{case}.png", "scan(1)+x.png", "x"),
        ("images/{case}.nii.gz", "images/A.nii.gz.bak", None),
    ],
)
def test_a_pattern_gives_the_case_of_a_path(pattern, path, case):
    match = compile_pattern(pattern).match(path)
    assert (match["case"] if match else None) == case


def test_files_that_are_no_scans_are_never_matched():
    assert match_paths("{case}.txt", ["a.txt"]) == {}


def test_channels_are_told_apart_by_their_hole():
    paths = ["A_0000.nii.gz", "A_0001.nii.gz", "B_0000.nii.gz", "B_12.nii.gz"]
    assert match_channels("{case}_{number}{ext}", paths) == {
        "0000": {"A": "A_0000.nii.gz", "B": "B_0000.nii.gz"},
        "0001": {"A": "A_0001.nii.gz"},
    }
    assert match_channels("{case}/{channel}.nii", ["A/T1.nii", "A/T2.nii"]) == {"T1": {"A": "A/T1.nii"}, "T2": {"A": "A/T2.nii"}}


def test_two_files_for_one_case_are_refused_by_name():
    with pytest.raises(InputError, match=r"Two files fit .* for case A: A.nii and A.nrrd"):
        match_paths("{case}{ext}", ["A.nii", "A.nrrd"])


def test_an_unknown_hole_and_a_missing_case_are_refused():
    with pytest.raises(InputError, match=r"unknown hole \{patient\}"):
        compile_pattern("{patient}/{case}.nii")
    with pytest.raises(InputError, match=r"has no \{case\}"):
        compile_pattern("images/*.nii")


def test_a_pattern_can_be_filled_and_taken_apart():
    assert fill_channel("{case}_{number}{ext}", "0001") == "{case}_0001{ext}"
    assert fill_channel("{case}/{channel}{ext}", "T1") == "{case}/T1{ext}"
    assert get_file_part("imagesTr/{case}_0000.nii.gz") == "{case}_0000.nii.gz"
    assert get_file_part("all/{case}/{case}_T1.nii.gz") == "{case}_T1.nii.gz"
    folder, rest = split_pattern("data/deep/{case}/T1.nii.gz")
    assert (folder.as_posix(), rest) == ("data/deep", "{case}/T1.nii.gz")


def test_folders_fit_a_pattern_by_the_scans_that_they_hold_themselves():
    paths = ["A/masks/1.png", "A/masks/2.png", "B/masks/1.png", "C/masks/deep/1.png", "D/masks/notes.txt", "E/other/1.png"]
    assert match_folders("{case}/masks", paths) == {"A": "A/masks", "B": "B/masks"}
    with pytest.raises(InputError, match="Two folders fit"):
        match_folders("*/{case}", ["a/X/1.png", "b/X/1.png"])
