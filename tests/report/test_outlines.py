"""Previews are PNGs that others read, with an outline a pixel wide around every object."""

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.report.outlines import draw_outlines, encode_png, find_busiest, find_outlines, make_colours, paint_outlines


def read_png(data, folder):
    (folder / "p.png").write_bytes(data)
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "p.png")))


def test_a_png_is_read_back_by_others(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (7, 12, 3)).astype(np.uint8)
    np.testing.assert_array_equal(read_png(encode_png(picture), tmp_path), picture)


def test_outlines_lie_inside_and_touching_objects_have_two():
    ids = np.zeros((6, 10), int)
    ids[1:5, 1:5], ids[1:5, 5:9] = 1, 2
    outline = find_outlines(ids)
    assert not outline[ids == 0].any()
    assert outline[2, 4]
    assert outline[2, 5]
    assert not outline[2:4, 2:4].any()
    assert not find_outlines(np.ones((4, 4), int)).any()


def test_neighbouring_numbers_have_different_strong_colours():
    colours = make_colours(500).astype(int)
    assert colours.max(axis=1).min() == 255
    assert np.abs(np.diff(colours, axis=0)).sum(axis=1).min() > 100


def test_the_slices_that_cut_most_objects_are_shown():
    ids = np.zeros((5, 6, 7), int)
    ids[2, 1, 1:3], ids[2, 4, 1:3], ids[3:5, 3, 5] = 1, 2, 3
    assert find_busiest(ids) == (2, 3, 2)
    assert find_busiest(np.zeros((5, 6, 7), int)) == (2, 3, 3)


@pytest.mark.parametrize(("channels", "factor"), [(1, 6), (3, 6)])
def test_a_small_image_is_enlarged_and_keeps_its_colours(tmp_path, channels, factor):
    image = np.zeros((channels, 80, 90), np.float32)
    image[-1, 40:, :] = 10
    ids = np.zeros((80, 90), int)
    ids[10:20, 10:30] = 1
    picture = read_png(draw_outlines(image, ids, (1.0, 1.0)), tmp_path)
    assert picture.shape == (80 * factor, 90 * factor, 3)
    below = picture[70 * factor, 80 * factor]
    assert below.tolist() == ([255, 255, 255] if channels == 1 else [0, 0, 255])
    line = picture[10 * factor, 15 * factor]
    assert line.tolist() == make_colours(1)[1].tolist()
    assert picture[10 * factor + 1, 15 * factor].tolist() == [0, 0, 0]


def test_a_volume_shows_three_slices_in_true_proportions(tmp_path):
    ids = np.zeros((10, 40, 50), int)
    ids[4:6, 10:20, 10:20] = 1
    picture = read_png(draw_outlines(np.ones((1, *ids.shape), np.float32), ids, (4.0, 1.0, 1.0)), tmp_path)
    assert picture.shape[0] == 40 * 8
    assert picture.shape[1] == 50 * 8 + 50 * 8 + 40 * 8 + 16


def test_another_maps_slices_can_be_shown():
    ids = np.zeros((10, 40, 50), int)
    ids[4, 10:20, 10:20] = 1
    image = np.ones((1, *ids.shape), np.float32)
    seen, missed = (paint_outlines(image, ids, (1.0, 1.0, 1.0), places) for places in ((4, 15, 15), (5, 25, 25)))
    assert seen.shape == missed.shape
    assert (seen.max(axis=2) != seen.min(axis=2)).any()
    assert not (missed.max(axis=2) != missed.min(axis=2)).any()


def test_an_empty_map_has_a_picture_too(tmp_path):
    assert read_png(draw_outlines(np.zeros((1, 600, 700), np.float32), np.zeros((600, 700), int), (1.0, 1.0)), tmp_path).shape == (
        600,
        700,
        3,
    )
