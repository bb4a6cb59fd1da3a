"""Batches of numbers of objects keep them whole, and know their classes and sizes."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from builders import STILL, make_object_configuration, write_objects

from autoseg.networks.devices import Compute
from autoseg.records.dataset import ClassLabel
from autoseg.records.plan import AugmentationSpec, count_network_outputs
from autoseg.training.loader import Loader
from autoseg.training.precision import time_candidates, time_steps
from autoseg.training.sampling import Sampler

torch.set_num_threads(1)
CPU = Compute("cpu")
TURNED = AugmentationSpec(rotation_probability=0.7, scaling_probability=0.5, foreground_probability=0.5)
PRODUCTS = {"objects": {}, "boundaries": {"detection": None}}


def make_loader(folder, configuration, shape=(48, 40), counts=(6, 9, 0)):
    problem = write_objects(folder, shape, counts)
    return Loader(problem.store, Sampler(tuple(case.case for case in problem.cases), problem.store.load, configuration, 0), CPU)


@pytest.mark.parametrize("product", PRODUCTS)
def test_steps_on_objects_are_timed(product, tmp_path, monkeypatch):
    configuration = make_object_configuration(**PRODUCTS[product])
    loader = make_loader(tmp_path / "store", configuration)
    monkeypatch.setattr("autoseg.training.precision.TIMED_STEPS", 1)
    monkeypatch.setattr("autoseg.training.precision.FINAL_STEPS", 1)
    outputs = 3 if product == "objects" else 4
    assert all(seconds > 0 for seconds in time_candidates(configuration, 1, outputs, loader, "fp32").values())
    assert time_steps(configuration, 1, outputs, loader) > 0


def test_batches_name_the_classes_and_sizes_of_their_objects(tmp_path):
    zoomed = msgspec.structs.replace(STILL, scaling_probability=1.0, scaling=(2.0, 2.0))
    for augmentation, factor in ((STILL, 1.0), (zoomed, 4.0)):
        configuration = make_object_configuration(augmentation=augmentation)
        loader = make_loader(tmp_path / "store", configuration)
        for step in range(3):
            batch = loader.make_batch(loader.read(step))
            for case, classes, voxels in zip(batch.cases, batch.object_classes, batch.object_voxels, strict=True):
                record = loader.store.load(case)
                assert classes.tolist() == [0, *record.object_classes]
                assert voxels.tolist() == pytest.approx([0, *(count / factor for count in record.object_voxels)])
    plain = msgspec.structs.replace(configuration, detection=None, thresholds=None)
    batch = (other := replace(loader, sampler=Sampler(loader.sampler.cases, loader.store.load, plain, 0))).make_batch(other.read(0))
    assert batch.object_classes is None
    assert batch.object_voxels is None


def test_sizes_are_not_known_in_slices_of_a_volume(tmp_path):
    configuration = make_object_configuration()
    loader = make_loader(tmp_path / "store", configuration, (12, 48, 40))
    batch = loader.make_batch(loader.read(0))
    assert [len(table) for table in batch.object_voxels] == [len(table) for table in batch.object_classes]
    assert not torch.cat(batch.object_voxels).any()


class LargeNumbers:
    """A store whose labels count from beyond 16 bits, every voxel its own."""

    first = 100_000

    def __init__(self, store):
        self.store = store

    def read_image(self, case, box):
        return self.store.read_image(case, box)

    def read_label(self, case, box):
        voxels = np.arange(self.first, self.first + 48 * 40, dtype=np.int32).reshape(48, 40)
        return voxels[tuple(slice(*ends) for ends in box)]


def test_numbers_beyond_16_bits_stay_whole(tmp_path):
    straight = msgspec.structs.replace(STILL, scaling_probability=1.0)
    for augmentation in (STILL, straight, TURNED):
        configuration = make_object_configuration(augmentation=augmentation)
        loader = make_loader(tmp_path / "store", configuration)
        loader = replace(loader, store=LargeNumbers(loader.store))
        labels = torch.cat([loader.make_batch(loader.read(step)).labels for step in range(3)])
        assert labels.dtype == torch.int64
        inside = labels[labels != 0]
        assert inside.min() >= LargeNumbers.first
        assert inside.max() < LargeNumbers.first + 48 * 40
        assert len(inside.unique()) > 700


def test_outputs_are_counted_by_product():
    classes = (ClassLabel(name="cell", values=(1,)), ClassLabel(name="gland", values=(2,)))
    mask_r_cnn = make_object_configuration()
    boundaries = msgspec.structs.replace(mask_r_cnn, detection=None)
    plain = msgspec.structs.replace(boundaries, thresholds=None)
    assert [count_network_outputs(one, classes) for one in (plain, mask_r_cnn, boundaries)] == [3, 3, 4]
