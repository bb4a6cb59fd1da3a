"""Scans come in as they are and masks go out on exactly the scan's own grid."""

import gzip
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from builders import make_image
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.arrays.volume import Volume
from autoseg.errors import InputError
from autoseg.io.scans import (
    ENDINGS,
    PIXEL_ENDINGS,
    describe_grid_mismatch,
    find_turn,
    get_ending,
    get_mask_name,
    make_volume_of_array,
    orient_spacing,
    read_components,
    read_image,
    read_label,
    read_scan,
    restore_image,
    strip_ending,
    write_mask,
    write_probabilities,
)
from autoseg.records.dataset import Channel

GREY = (Channel(name="MR", pattern="{case}.nii.gz"),)
SHAPE = (4, 5, 6)


def turn(degrees: float, a: int, b: int) -> np.ndarray:
    matrix, angle = np.eye(3), np.deg2rad(degrees)
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix


DIRECTIONS = {
    "identity": np.eye(3),
    "flipped in x and y": np.diag([-1.0, -1, 1]),
    "mirrored in z": np.diag([1.0, 1, -1]),
    "sagittal": np.eye(3)[[2, 0, 1]],
    "coronal and flipped": np.eye(3)[[0, 2, 1]] @ np.diag([1.0, -1, 1]),
    "oblique": turn(17, 0, 1) @ turn(-23, 1, 2),
    "oblique, permuted and flipped": turn(11, 0, 2) @ np.eye(3)[[1, 2, 0]] @ np.diag([-1.0, 1, 1]),
}


def write_scan(path: Path, direction: np.ndarray, array: np.ndarray) -> sitk.Image:
    sitk.WriteImage(make_image(array, (0.7, 1.3, 2.9), (-11.25, 7.1, 30.3), direction), str(path))
    return sitk.ReadImage(str(path))


def assert_same_grid(mask: sitk.Image, scan: sitk.Image, tolerance: float = 0.0) -> None:
    """Equal to the last bit; NIfTI alone keeps an oblique direction as a float32 quaternion, for which it needs a tolerance."""
    assert mask.GetSize() == scan.GetSize()
    assert mask.GetSpacing() == scan.GetSpacing()
    assert mask.GetOrigin() == scan.GetOrigin()
    assert np.abs(np.array(mask.GetDirection()) - scan.GetDirection()).max() <= tolerance


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("orientation", ["LPS", "stored"])
def test_a_mask_has_the_scans_grid_and_its_voxels(tmp_path, name, ending, orientation):
    stored = np.random.default_rng(1).integers(0, 200, SHAPE).astype(np.int16)
    scan = write_scan(tmp_path / f"scan{ending}", DIRECTIONS[name], stored)
    volume = read_scan([tmp_path / f"scan{ending}"], GREY, orientation)
    path = tmp_path / f"mask{ending}"
    write_mask(volume.array[0].astype(np.uint8), volume, path)
    mask = sitk.ReadImage(str(path))
    assert_same_grid(mask, scan, 1e-7 if ending == ".nii.gz" and "oblique" in name else 0.0)
    assert np.array_equal(sitk.GetArrayFromImage(mask), stored)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_canonical_voxel_lies_where_the_file_had_it_in_the_world(tmp_path, name):
    stored = np.random.default_rng(2).permutation(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)
    scan = write_scan(tmp_path / "scan.nrrd", DIRECTIONS[name], stored)
    volume = read_scan([tmp_path / "scan.nrrd"], GREY)
    direction = np.array(volume.grid.direction).reshape(3, 3)
    for index in ((0, 0, 0), (1, 2, 3), tuple(size - 1 for size in volume.grid.shape)):
        index = tuple(min(i, size - 1) for i, size in zip(index, volume.grid.shape))
        steps = np.array(index[::-1]) * np.array(volume.grid.spacing[::-1])
        world = np.array(volume.grid.origin) + direction @ steps
        there = scan.TransformPhysicalPointToIndex(world.tolist())
        assert volume.array[(0, *index)] == scan.GetPixel(*there)
    assert np.abs(np.argmax(np.abs(direction), axis=0) - np.arange(3)).max() == 0  # axes nearest to x, y, z
    assert (np.diag(direction) > 0).all()


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    order=st.sampled_from(list(permutations(range(3)))),
    signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    angles=st.tuples(*[st.floats(-40, 40)] * 3),
    shape=st.tuples(*[st.integers(1, 5)] * 3),
)
def test_restore_image_undoes_the_orientation_of_any_direction(tmp_path_factory, order, signs, angles, shape):
    direction = turn(angles[0], 0, 1) @ turn(angles[1], 1, 2) @ turn(angles[2], 0, 2) @ np.eye(3)[list(order)] @ np.diag(signs)
    path = tmp_path_factory.mktemp("scan") / "scan.nrrd"
    scan = write_scan(path, direction, np.arange(np.prod(shape)).reshape(shape).astype(np.int16))
    volume = read_scan([path], GREY)
    restored = restore_image(volume.array[0].astype(np.int16), volume)
    assert_same_grid(restored, scan)
    assert np.array_equal(sitk.GetArrayFromImage(restored), sitk.GetArrayFromImage(scan))


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_is_read_with_its_values(tmp_path, ending):
    flat = ending in PIXEL_ENDINGS
    array = np.full((5, 6), 7, np.uint8) if flat else np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    if ending in (".png", ".tif", ".tiff", ".bmp"):
        array = np.arange(30, dtype=np.uint8).reshape(5, 6)
    path = tmp_path / f"scan{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    volume = read_scan([path], GREY)
    assert volume.array.dtype == np.float32
    assert volume.unit == ("px" if flat else "mm")
    assert np.array_equal(volume.array[0], array) or ending in (".nii", ".nii.gz")
    mask = (array > 6).astype(np.uint8)
    canonical = (volume.array[0] > 6).astype(np.uint8)
    target = tmp_path / get_mask_name("mask", path)
    write_mask(canonical, volume, target)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(target))), mask)


def test_masks_take_an_ending_that_keeps_their_values():
    names = {ending: get_mask_name("A", Path(f"A{ending}")) for ending in (".jpg", ".bmp", ".mhd", ".nrrd", ".nii.gz", ".tif")}
    assert names == {".jpg": "A.png", ".bmp": "A.png", ".mhd": "A.nii.gz", ".nrrd": "A.nrrd", ".nii.gz": "A.nii.gz", ".tif": "A.tif"}


def test_endings_are_told_in_any_case():
    assert get_ending("A.NII.GZ") == ".nii.gz"
    assert strip_ending("A.b.Nii.gz") == "A.b"
    assert get_ending("A.txt") == ""
    assert strip_ending("A.txt") == "A.txt"


def write_colour(path: Path, channels: list[np.ndarray]) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(np.stack(channels, axis=-1), isVector=True), str(path))
    return path


def test_grey_stored_as_rgb_or_rgba_is_one_channel(tmp_path):
    grey = np.arange(30, dtype=np.uint8).reshape(5, 6)
    alpha = np.full_like(grey, 255)
    for name, parts in {"rgb": [grey] * 3, "rgba": [grey] * 3 + [alpha]}.items():
        components = read_components(write_colour(tmp_path / f"{name}.png", parts))
        assert len(components) == 1, name
        assert np.array_equal(sitk.GetArrayFromImage(components[0]), grey)
        values, _ = read_label(tmp_path / f"{name}.png")
        assert np.array_equal(values, grey)


def test_colour_is_three_channels_without_alpha(tmp_path):
    parts = [np.full((4, 5), value, np.uint8) for value in (10, 20, 30, 255)]
    path = write_colour(tmp_path / "rgba.png", parts)
    channels = tuple(Channel(name=name, pattern="x", component=index) for index, name in enumerate("RGB"))
    assert read_scan([path] * 3, channels).array[:, 0, 0].tolist() == [10, 20, 30]


def test_a_colour_label_is_refused(tmp_path):
    path = write_colour(tmp_path / "label.png", [np.full((4, 5), value, np.uint8) for value in (0, 1, 0)])
    with pytest.raises(InputError, match=r"label.png is a colour image"):
        read_label(path)


def test_volumes_of_a_4d_file_are_channels(tmp_path):
    volumes = [np.random.default_rng(index).normal(size=SHAPE).astype(np.float32) for index in range(3)]
    image = sitk.JoinSeries([make_image(array, (1, 2, 3), (0, 0, 0), np.eye(3)) for array in volumes])
    path = tmp_path / "four.nii.gz"
    sitk.WriteImage(image, str(path))
    channels = tuple(Channel(name=str(index), pattern="x", component=index) for index in range(3))
    read = read_scan([path] * 3, channels)
    assert np.array_equal(read.array, np.stack(volumes))
    assert read.grid.spacing == (3, 2, 1)
    with pytest.raises(InputError, match="3 components"):
        read_scan([path], GREY)
    with pytest.raises(InputError, match="number 4"):
        read_scan([path], (Channel(name="far", pattern="x", component=3),))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_values_that_are_not_finite_are_refused_with_file_and_number(tmp_path, ending, kind):
    array = np.ones(SHAPE, kind)
    array[0, 0, :2] = np.nan
    array[-1, -1, -1] = np.inf
    write_scan(tmp_path / f"bad{ending}", np.eye(3), array)
    write_scan(tmp_path / f"good{ending}", np.eye(3), np.zeros(SHAPE, kind))
    with pytest.raises(InputError) as caught:
        read_scan([tmp_path / f"good{ending}", tmp_path / f"bad{ending}"], GREY * 2)
    assert f"bad{ending}" in str(caught.value)
    assert "3 NaN or infinite values" in str(caught.value)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused_with_its_size(tmp_path, ending, share):
    path = tmp_path / f"scan{ending}"
    write_scan(path, np.eye(3), np.random.default_rng(0).integers(0, 1000, (20, 20, 20)).astype(np.int16))
    data = path.read_bytes()
    size = int(len(data) * share)
    path.write_bytes(data[:size])
    with pytest.raises(InputError, match=rf"scan{ending} cannot be read \({size} bytes\)"):
        read_image(path)


def test_nifti_of_several_gzip_streams_and_nifti_with_a_wrong_ending_are_whole(tmp_path):
    array = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
    write_scan(tmp_path / "plain.nii", np.eye(3), array)
    data = (tmp_path / "plain.nii").read_bytes()
    (tmp_path / "streams.nii.gz").write_bytes(gzip.compress(data[:400]) + gzip.compress(data[400:]))
    assert np.array_equal(sitk.GetArrayFromImage(read_image(tmp_path / "streams.nii.gz")), array)
    (tmp_path / "not_packed.nii.gz").write_bytes(data)
    assert np.array_equal(sitk.GetArrayFromImage(read_image(tmp_path / "not_packed.nii.gz")), array)


@pytest.mark.parametrize("components", [2, 3])
def test_nifti_of_vectors_is_read_whole(tmp_path, components):
    array = np.random.default_rng(0).random((*SHAPE, components)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(tmp_path / "v.nii.gz"))
    assert len(read_components(tmp_path / "v.nii.gz")) == components


def test_a_missing_file_and_a_file_of_text_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none.nii.gz does not exist"):
        read_image(tmp_path / "none.nii.gz")
    (tmp_path / "text.nii.gz").write_text("no scan")
    with pytest.raises(InputError, match=r"text.nii.gz cannot be read \(7 bytes\)") as caught:
        read_image(tmp_path / "text.nii.gz")
    assert caught.value.why
    assert "0x" not in caught.value.why


def test_channels_of_different_shapes_are_refused(tmp_path):
    write_scan(tmp_path / "a.nrrd", np.eye(3), np.zeros(SHAPE, np.int16))
    write_scan(tmp_path / "b.nrrd", np.eye(3), np.zeros((4, 5, 7), np.int16))
    with pytest.raises(InputError, match=r"b.nrrd has 7x5x4 voxels, but .*a.nrrd of the same case has 6x5x4"):
        read_scan([tmp_path / "a.nrrd", tmp_path / "b.nrrd"], GREY * 2)


def test_labels_are_rounded_within_a_thousandth_and_refused_beyond(tmp_path):
    array = np.zeros(SHAPE, np.float32)
    array[0, 0, :3] = (0.9995, 2.0004, 1.0)
    write_scan(tmp_path / "label.nii.gz", np.eye(3), array)
    values, _ = read_label(tmp_path / "label.nii.gz")
    assert values.dtype == np.int32
    assert values[0, 0, :3].tolist() == [1, 2, 1]
    array[0, 0, 0] = 1.01
    write_scan(tmp_path / "label.nii.gz", np.eye(3), array)
    with pytest.raises(InputError, match=r"label.nii.gz: .*1.01"):
        read_label(tmp_path / "label.nii.gz")


def test_image_and_label_of_one_direction_fall_on_the_same_voxels(tmp_path):
    stored = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)
    for name, direction in DIRECTIONS.items():
        write_scan(tmp_path / "scan.nrrd", direction, stored)
        label, grid = read_label(tmp_path / "scan.nrrd")
        volume = read_scan([tmp_path / "scan.nrrd"], GREY)
        assert np.array_equal(volume.array[0], label), name
        assert describe_grid_mismatch(volume.stored, grid) == ""
        assert orient_spacing(grid) == volume.grid.spacing, name


def test_grids_that_disagree_are_described():
    grid = make_volume_of_array(np.zeros((1, *SHAPE)), (3.0, 1.0, 1.0)).grid
    spaced = make_volume_of_array(np.zeros((1, *SHAPE)), (3.0, 1.0, 1.1)).grid
    assert describe_grid_mismatch(grid, grid) == ""
    assert describe_grid_mismatch(grid, spaced) == "spacing 3x1x1 and 3x1x1.1"
    nearly = make_volume_of_array(np.zeros((1, *SHAPE)), (3.0, 1.0, 1.0001)).grid
    assert describe_grid_mismatch(grid, nearly) == ""


def test_a_mask_that_cannot_be_written_leaves_nothing(tmp_path):
    volume = make_volume_of_array(np.zeros((1, *SHAPE)), (1.0, 1.0, 1.0))
    with pytest.raises(OSError, match="ImageIO"):
        write_mask(np.zeros(SHAPE, np.uint8), volume, tmp_path / "mask.unknown")
    assert list(tmp_path.iterdir()) == []


def test_probabilities_lie_on_the_scans_grid(tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz", DIRECTIONS["oblique, permuted and flipped"], np.zeros(SHAPE, np.int16))
    volume: Volume = read_scan([tmp_path / "scan.nii.gz"], GREY)
    probabilities = np.random.default_rng(0).random((3, *volume.array.shape[1:])).astype(np.float32)
    write_probabilities(probabilities, volume, tmp_path / "p.nii.gz")
    back = sitk.ReadImage(str(tmp_path / "p.nii.gz"))
    assert_same_grid(back, scan, 1e-7)
    oriented = sitk.GetArrayFromImage(sitk.DICOMOrient(back, "LPS"))
    assert np.array_equal(np.moveaxis(oriented, -1, 0), probabilities)


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("orientation", ["LPS", "stored"])
def test_the_turn_leads_from_the_canonical_array_to_the_files(tmp_path, name, orientation):
    write_scan(tmp_path / "a.nrrd", DIRECTIONS[name], np.zeros(SHAPE, np.float32))
    volume = read_scan([tmp_path / "a.nrrd"], GREY, orientation)
    array = np.random.default_rng(0).integers(0, 100, volume.grid.shape).astype(np.int16)
    order, backwards = find_turn(volume)
    turned = np.flip(array.transpose(order), [axis for axis in range(3) if backwards[axis]])
    np.testing.assert_array_equal(turned, sitk.GetArrayFromImage(restore_image(array, volume)))
