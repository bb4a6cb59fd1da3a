"""Label values to class numbers and back; objects against a flood fill."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.arrays.labels import (
    decode_labels,
    draw_foreground,
    draw_objects,
    draw_positions,
    encode_labels,
    list_painted,
    make_membership,
    measure_objects,
    round_labels,
)
from autoseg.records.dataset import ClassLabel

CLASSES = (ClassLabel(name="liver", values=(3, 7)), ClassLabel(name="tumour", values=(200,)))
ONE = np.array([[False, True]])


@st.composite
def labellings(draw):
    """Background, classes of distinct values (some of several), and a map of class numbers."""
    values = draw(st.lists(st.one_of(st.integers(0, 300), st.integers(-5, 70000)), min_size=2, max_size=7, unique=True))
    background, *rest = values
    classes, index = [], 0
    while index < len(rest):
        count = draw(st.integers(1, len(rest) - index))
        classes.append(ClassLabel(name=f"class {index}", values=tuple(rest[index : index + count])))
        index += count
    shape = draw(st.lists(st.integers(1, 5), min_size=2, max_size=3).map(tuple))
    numbers = np.random.default_rng(draw(st.integers(0, 999))).integers(0, len(classes) + 1, shape)
    return background, tuple(classes), numbers


@settings(deadline=None, derandomize=True, max_examples=50)
@given(labellings())
def test_decoded_class_numbers_encode_to_themselves(labelling):
    background, classes, numbers = labelling
    encoded = encode_labels(decode_labels(numbers, classes, background), classes, background, None)
    assert encoded.dtype == np.int16
    np.testing.assert_array_equal(encoded, numbers)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(labellings())
def test_encoded_values_decode_to_the_first_value_of_their_class(labelling):
    background, classes, numbers = labelling
    generator = np.random.default_rng(0)
    values = np.vectorize(lambda number: background if number == 0 else int(generator.choice(classes[number - 1].values)))(numbers)
    first = {value: label.values[0] for label in classes for value in label.values} | {background: background}
    decoded = decode_labels(encode_labels(values, classes, background, None), classes, background)
    np.testing.assert_array_equal(decoded, np.vectorize(first.get)(values))


def test_ignored_values_become_minus_1_and_all_values_of_a_class_become_its_number():
    encoded = encode_labels(np.array([[0, 3, 7], [200, 255, 0]]), CLASSES, 0, 255)
    np.testing.assert_array_equal(encoded, [[0, 1, 1], [2, -1, 0]])


def test_values_of_no_class_are_named_together_with_the_known_ones():
    with pytest.raises(ValueError, match=r"\[9, 11\].*\[0, 3, 7, 200\]"):
        encode_labels(np.array([0, 9, 3, 11]), CLASSES, 0, None)


@pytest.mark.parametrize(("value", "kind"), [(255, np.uint8), (256, np.uint16), (65536, np.uint32), (-1, np.int32)])
def test_masks_are_written_in_the_smallest_type_that_holds_them(value, kind):
    decoded = decode_labels(np.array([0, 1]), (ClassLabel(name="a", values=(value,)),), 0)
    assert decoded.dtype == kind
    assert decoded.tolist() == [0, value]


def test_floats_close_to_integers_are_rounded():
    rounded = round_labels(np.array([0.0, 0.9995, 2.0004]))
    assert rounded.dtype == np.int32
    assert rounded.tolist() == [0, 1, 2]


@pytest.mark.parametrize(("values", "message"), [([0, 0.5], r"0\.5"), ([1.002], r"1\.002"), ([np.nan], "NaN"), ([np.inf], "infinite")])
def test_labels_that_are_not_integers_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        round_labels(np.array(values))


def flood(mask):
    """Components of face, edge and corner neighbours as lists of positions: slow and obvious."""
    left, components = {position for position in product(*map(range, mask.shape)) if mask[position]}, []
    while left:
        open_, component = [left.pop()], []
        while open_:
            position = open_.pop()
            component.append(position)
            for step in product((-1, 0, 1), repeat=mask.ndim):
                neighbour = tuple(p + s for p, s in zip(position, step))
                if neighbour in left:
                    left.remove(neighbour)
                    open_.append(neighbour)
        components.append(component)
    return components


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.integers(0, 9999), st.sampled_from(((6, 7), (4, 5, 6))), st.sampled_from((0.05, 0.2)))
def test_objects_are_those_of_a_flood_fill_measured_in_mm(seed, shape, share):
    generator = np.random.default_rng(seed)
    label = (generator.random(shape) < share) * generator.integers(1, 3, shape)
    spacing = (2.5, 0.5, 1.0)[: len(shape)]
    measured = measure_objects(label, "tumour", (2,), spacing)
    objects = flood(label == 2)
    assert (measured.name, measured.voxels, measured.objects) == ("tumour", int((label == 2).sum()), len(objects))
    assert measured.volume == pytest.approx(measured.voxels * np.prod(spacing))
    volumes = [len(positions) * float(np.prod(spacing)) for positions in objects]
    edges = [max((max(axis) - min(axis) + 1) * step for axis, step in zip(zip(*positions), spacing)) for positions in objects]
    for found, expected in ((measured.object_volumes, volumes), (measured.object_extents, edges)):
        assert found == (pytest.approx(np.quantile(expected, (0, 0.25, 0.5, 0.75, 1))) if objects else ())
    positions = [position for component in objects for position in component]
    middles = [sum(position[axis] + 0.5 for position in positions) / max(1, len(positions)) / size for axis, size in enumerate(shape)]
    assert measured.centre == (pytest.approx(middles) if objects else ())


def test_a_mirrored_class_has_a_mirrored_centre_and_a_full_one_lies_in_the_middle():
    label = np.random.default_rng(0).integers(0, 2, (4, 5, 6))
    spacing = (3.0, 1.0, 1.0)
    centre = measure_objects(label, "organ", (1,), spacing).centre
    for axis in range(3):
        expected = [1 - share if axis == own else share for own, share in enumerate(centre)]
        assert measure_objects(np.flip(label, axis), "organ", (1,), spacing).centre == pytest.approx(expected)
    assert measure_objects(np.ones((4, 5, 6), int), "organ", (1,), spacing).centre == pytest.approx((0.5,) * 3)


def test_drawn_positions_belong_to_their_class_and_never_repeat():
    label = np.random.default_rng(0).integers(0, 3, (6, 7, 8))
    drawn = draw_foreground(label, np.eye(4, dtype=bool)[1:], 20, np.random.default_rng(1))
    assert [len(positions) for positions in drawn] == [20, 20, 0]
    assert drawn[2].shape == (0, 3)
    for number, positions in enumerate(drawn, 1):
        assert len({tuple(position) for position in positions}) == len(positions)
        assert all(label[tuple(position)] == number for position in positions)


def test_a_class_of_few_voxels_is_drawn_whole_and_the_same_generator_draws_the_same():
    label = np.zeros((4, 4), int)
    label[1, 2] = label[3, 0] = 1
    assert draw_foreground(label, ONE, 5, np.random.default_rng(0))[0].tolist() == [[1, 2], [3, 0]]
    large = np.ones((9, 9), int)
    first, second = (draw_foreground(large, ONE, 5, np.random.default_rng(7))[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_objects_are_drawn_each_with_voxels_of_its_own():
    label = np.zeros((30, 30, 30), np.int16)
    label[2:12, 2:12, 2:12] = 1
    label[20, 20, 20] = label[21, 21, 21] = 1  # one object, over a corner
    label[25:27, 2, 2] = 2
    found = draw_objects(label == 1, 10, 5, np.random.default_rng(0))
    assert sorted(len(voxels) for voxels in found) == [2, 5]
    assert all(label[tuple(voxel)] == 1 for voxels in found for voxel in voxels)
    small = min(found, key=len)
    assert small.tolist() == [[20, 20, 20], [21, 21, 21]]
    assert [voxels.tolist() for voxels in draw_objects(label == 2, 10, 5, np.random.default_rng(0))] == [[[25, 2, 2], [26, 2, 2]]]
    assert draw_objects(label == 3, 10, 5, np.random.default_rng(0)) == []


def test_of_very_many_objects_some_are_drawn():
    label = np.zeros((21, 21), np.int16)
    label[::3, ::3] = 1
    found = draw_objects(label == 1, 10, 5, np.random.default_rng(0))
    assert len(found) == 10
    assert len({tuple(voxels[0]) for voxels in found}) == 10
    assert all(label[tuple(voxels[0])] == 1 for voxels in found)


REGIONS = (ClassLabel(name="whole", values=(1, 2, 5)), ClassLabel(name="core", values=(5, 2)), ClassLabel(name="rim", values=(2,)))


def test_label_numbers_of_regions_say_the_same_as_the_values_in_the_file():
    values = np.random.default_rng(0).choice([0, 1, 2, 5, 9], (4, 5, 6))
    numbers = encode_labels(values, REGIONS, 0, 9)
    assert set(np.unique(numbers)) == {-1, 0, 1, 2, 3}
    membership = make_membership(REGIONS)
    for own, label in zip(membership, REGIONS):
        for place in np.ndindex(values.shape):
            assert (numbers[place] >= 0 and own[numbers[place]]) == (values[place] in label.values)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(labellings())
def test_classes_that_share_nothing_have_their_own_numbers(labelling):
    _, classes, _ = labelling
    np.testing.assert_array_equal(make_membership(classes), np.eye(len(classes) + 1, dtype=bool)[1:])
    np.testing.assert_array_equal(list_painted(classes), np.arange(len(classes) + 1))


def test_painted_classes_have_the_label_number_of_the_value_that_is_written():
    numbers = np.arange(4)
    np.testing.assert_array_equal(list_painted(REGIONS)[numbers], encode_labels(decode_labels(numbers, REGIONS, 0), REGIONS, 0, None))


def test_positions_are_drawn_for_each_region_and_never_where_nothing_is_labelled():
    label = np.array([[0, 1, 2, 3, -1], [-1, 3, 3, 1, 0]])
    drawn = draw_foreground(label, make_membership(REGIONS), 99, np.random.default_rng(0))
    for own, positions in zip(([1, 2, 3], [2, 3], [2]), drawn, strict=True):  # numbers: 1 of value 1, 2 of value 2, 3 of value 5
        assert positions.tolist() == np.argwhere(np.isin(label, own)).tolist()
    assert draw_positions(label >= 0, 99, np.random.default_rng(0)).tolist() == np.argwhere(label >= 0).tolist()


def test_a_region_is_measured_as_one_object_though_its_values_differ():
    label = np.zeros((5, 6, 7), int)
    label[1:4, 1:4, 1:4], label[2, 2, 2] = 1, 2
    whole = measure_objects(label, "whole", (1, 2), (1.0, 1.0, 1.0))
    assert (whole.voxels, whole.objects, whole.object_extents[2]) == (27, 1, 3)
    assert measure_objects(label, "rim", (2,), (1.0, 1.0, 1.0)).voxels == 1
