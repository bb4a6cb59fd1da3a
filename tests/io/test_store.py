"""What is written to the store is read back, in any box; the record vouches for the arrays."""

import numpy as np
import pytest
from builders import make_prepared_case
from hypothesis import given, settings
from hypothesis import strategies as st

import autoseg.io.store as store_module
from autoseg.errors import InputError
from autoseg.io.store import Store


@st.composite
def arrays_and_boxes(draw):
    shape = draw(st.lists(st.integers(1, 70), min_size=2, max_size=2)) + draw(st.lists(st.integers(1, 9), max_size=1))
    box = []
    for size in shape:
        low = draw(st.integers(0, size - 1))
        box.append((low, draw(st.integers(low + 1, size))))
    return tuple(shape), draw(st.integers(1, 3)), tuple(box), draw(st.integers(0, 2**31))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(arrays_and_boxes())
def test_any_box_is_read_back_as_it_was_written(tmp_path_factory, drawn):
    shape, channels, box, seed = drawn
    generator = np.random.default_rng(seed)
    image = generator.normal(0, 10, (channels, *shape)).astype(np.float32)
    label = generator.integers(-1, 300, shape).astype(np.int16)
    store = Store(tmp_path_factory.mktemp("store"))
    store.write(make_prepared_case("A", shape), image, label)
    place = tuple(slice(low, high) for low, high in box)
    read = store.read_image("A", box)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, image[(slice(None), *place)], rtol=5e-4, atol=1e-6)
    assert np.array_equal(store.read_label("A", box), label[place])


def test_values_too_large_for_half_precision_are_kept_exactly(tmp_path):
    image = np.array([[[1e6, 1.0], [3.25, 123456.0]]], np.float32)
    store = Store(tmp_path)
    store.write(make_prepared_case("A", (2, 2)), image, np.zeros((2, 2), np.int16))
    assert np.array_equal(store.read_image("A", ((0, 2), (0, 2))), image)


def test_the_record_is_written_last_and_removed_before_the_arrays_change(tmp_path, monkeypatch):
    store, record = Store(tmp_path), make_prepared_case("A", (2, 2))
    image, label = np.zeros((1, 2, 2), np.float32), np.zeros((2, 2), np.int16)
    store.write(record, image, label)
    assert store.load("A") == record

    def fail(path, array, leading):
        raise OSError("torn off")

    monkeypatch.setattr(store_module, "_write_array", fail)
    with pytest.raises(OSError, match="torn off"):
        store.write(record, image + 1, label)
    with pytest.raises(InputError, match="does not exist"):
        store.load("A")


def test_seventy_thousand_objects_keep_their_numbers(tmp_path):
    ids = np.arange(-1, 71_999, dtype=np.int32).reshape(240, 300)
    store = Store(tmp_path)
    store.write(make_prepared_case("A", ids.shape), np.zeros((1, *ids.shape), np.float32), ids)
    found = store.read_label("A", tuple((0, size) for size in ids.shape))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, ids)
