"""Pictures are valid PNGs of the slices that show most."""

import struct
import zlib

import numpy as np
import pytest

from autoseg.report.curves import Curve, draw_curves
from autoseg.report.overlay import choose_slices, draw_objects, draw_overlay


def check_png(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG whose every chunk has its checksum."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, kinds = 8, []
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        body = data[place + 4 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length : place + 12 + length])[0] == zlib.crc32(body)
        kinds.append(body[:4])
        place += 12 + length
    assert kinds[-1] == b"IEND"
    return struct.unpack(">II", data[16:24])


def test_the_slices_with_most_foreground_are_chosen():
    label = np.zeros((6, 7, 8), np.int16)
    label[2, 1:6, 4] = 1
    label[2, 3, 1:6] = 2
    label[5, 0, 0] = 1
    assert choose_slices(label) == [(0, 2), (1, 3), (2, 4)]


def test_without_foreground_the_middle_is_shown_and_2d_has_one_picture():
    assert choose_slices(np.zeros((6, 7, 8), np.int16)) == [(0, 3), (1, 3), (2, 4)]
    assert choose_slices(np.zeros((6, 7), np.int16)) == [(0, 0)]


@pytest.mark.parametrize(("shape", "spacing"), [((6, 12, 10), (3.0, 1.0, 1.0)), ((12, 10), (1.0, 2.0))])
def test_an_overlay_is_a_png_that_grows_with_its_masks(shape, spacing):
    image = np.random.default_rng(0).normal(size=shape)
    mask = np.zeros(shape, np.uint8)
    mask[(slice(2, 5),) * len(shape)] = 1
    one = check_png(draw_overlay(image, {"reference": mask}, spacing, ("tumour",), "A"))
    two = check_png(draw_overlay(image, {"reference": mask, "prediction": mask * 0}, spacing, ("tumour",), "A"))
    assert two[0] == one[0]
    assert two[1] > one[1]


def test_a_constant_image_without_any_object_is_still_a_picture():
    check_png(draw_overlay(np.zeros((4, 4, 4)), {"reference": np.zeros((4, 4, 4), int)}, (1.0, 1.0, 1.0), ("a",), "empty"))


@pytest.mark.parametrize(("shape", "spacing"), [((1, 40, 50), (1.0, 1.0)), ((3, 40, 50), (1.0, 1.0)), ((1, 8, 40, 50), (3.0, 1.0, 1.0))])
def test_the_objects_of_two_maps_are_shown_side_by_side(shape, spacing):
    image = np.random.default_rng(0).normal(size=shape)
    ids = np.zeros(shape[1:], np.int32)
    ids[..., 5:20, 5:20], ids[..., 5:20, 20:45] = 1, 2
    alone = check_png(draw_objects(image, {"reference": ids}, spacing, "A"))
    pair = draw_objects(image, {"reference": ids, "prediction": ids * 0}, spacing, "A")
    width, height = check_png(pair)
    assert width == 2 * alone[0]
    assert abs(height - alone[1]) <= 1
    assert pair != draw_objects(image, {"reference": ids, "prediction": ids * (ids == 1)}, spacing, "A")


@pytest.mark.parametrize("scores", [(), (Curve("tumour", (10,), (0.5,)), Curve("edema", (10, 20), (0.1, 0.9)))])
def test_curves_are_a_png_with_or_without_scores(scores):
    steps = range(20)
    check_png(draw_curves(Curve("loss", steps, [1 / (step + 1) for step in steps]), Curve("rate", steps, [0.1] * 20), scores, "fold 0"))


def test_the_picture_shows_what_it_is_given():
    image = np.random.default_rng(0).normal(size=(8, 8))
    mask = np.zeros((8, 8), int)
    empty = draw_overlay(image, {"m": mask}, (1.0, 1.0), ("a",), "A")
    mask[2:5, 2:5] = 1
    assert draw_overlay(image, {"m": mask}, (1.0, 1.0), ("a",), "A") != empty
