"""Equal steps give equal batches, whatever threads and interruptions do."""

import gc
from dataclasses import replace

import pytest
import torch
from builders import make_configuration, write_problem

from autoseg.networks.devices import Compute
from autoseg.records.plan import AugmentationSpec
from autoseg.training.loader import Batch, Loader
from autoseg.training.sampling import Sampler

torch.set_num_threads(1)


def make_loader(folder, dimension: int = 3, **changes) -> Loader:
    problem = write_problem(folder)
    configuration = make_configuration(dimension, augmentation=AugmentationSpec(), **changes)
    return Loader(problem.store, Sampler(tuple(case.case for case in problem.cases), problem.store.load, configuration, 4), Compute("cpu"))


def assert_same(one: Batch, other: Batch) -> None:
    assert one.cases == other.cases
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.labels, other.labels)


@pytest.mark.parametrize("dimension", [2, 3])
def test_batches_have_the_planned_shape_and_types(tmp_path, dimension):
    batch = next(make_loader(tmp_path, dimension).iterate(0, 1))
    assert batch.images.shape == (2, 1, *(8,) * dimension)
    assert batch.labels.shape == (2, *(8,) * dimension)
    assert (batch.images.dtype, batch.labels.dtype) == (torch.float32, torch.int16)
    assert len(batch.cases) == 2


@pytest.mark.parametrize("dimension", [2, 3])
def test_repeated_and_later_iterations_give_the_same_batches(tmp_path, dimension):
    loader = make_loader(tmp_path, dimension)
    first = list(loader.iterate(0, 12))
    assert len(first) == 12
    for one, other in zip(first, loader.iterate(0, 12), strict=True):
        assert_same(one, other)
    for one, other in zip(first[7:], loader.iterate(7, 12), strict=True):
        assert_same(one, other)
    assert not torch.equal(first[0].images, first[1].images)


def test_the_number_of_threads_changes_nothing(tmp_path):
    loader = make_loader(tmp_path)
    for one, other in zip(loader.iterate(0, 100), replace(loader, threads=5).iterate(0, 100), strict=True):
        assert_same(one, other)


def test_every_batch_carries_the_table_of_regions(tmp_path):
    loader = make_loader(tmp_path)
    assert next(loader.iterate(0, 1)).regions is None
    table = torch.tensor([[False, True]])
    assert all(batch.regions is table for batch in replace(loader, regions=table).iterate(0, 2))


def test_no_steps_are_no_batches(tmp_path):
    assert list(make_loader(tmp_path).iterate(3, 3)) == []


def test_an_error_while_reading_is_raised_where_the_batches_are_used(tmp_path):
    loader = make_loader(tmp_path)
    for path in tmp_path.glob("*.image.b2nd"):
        path.unlink()
    with pytest.raises(Exception, match=r"b2nd|exist"):
        list(loader.iterate(0, 2))


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_batch_leaves_no_garbage_that_only_a_collection_frees(tmp_path, dimension):
    """Tensors in a cycle of references stay for hundreds of steps: memory that looks like a leak."""
    loader = make_loader(tmp_path, dimension)
    parts = [loader.read(step) for step in range(40)]
    assert {warp.straight for part in parts for warp in part.warps} == {False, True}
    loader.make_batch(parts[0])
    gc.collect()
    gc.disable()
    try:
        for part in parts:
            loader.make_batch(part)
        assert gc.collect() == 0
    finally:
        gc.enable()
