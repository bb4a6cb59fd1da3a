"""What a fold of an instance task needs of its command: tables of objects, outputs, and clear words for what it cannot do."""

from dataclasses import replace

import msgspec
import pytest
from builders import make_object_configuration, write_objects

from autoseg.commands.job import Job, TrainOptions, make_loader
from autoseg.commands.train import _refuse_untrainable
from autoseg.errors import InputError
from autoseg.networks.devices import Compute
from autoseg.progress import Silent
from autoseg.records.dataset import Channel, ClassLabel, Dataset
from autoseg.records.splits import Fold
from autoseg.training.distribution import Distribution

CPU = Compute("cpu")
CLASSES = (ClassLabel(name="cell", values=(1,)), ClassLabel(name="gland", values=(1,)))  # values say nothing where labels are numbers
DATASET = Dataset(
    root="",
    task="instance",
    dimension=2,
    unit="px",
    layout="",
    label_form="ids",
    channels=(Channel(name="0", pattern=""),),
    classes=CLASSES,
    cases=(),
)


@pytest.fixture
def job(tmp_path):
    problem = write_objects(tmp_path, (48, 40))
    fold = Fold(training=("case0", "case1", "case2"), validation=())
    return Job(None, None, DATASET, make_object_configuration(), 0, fold, None, problem.store, TrainOptions(), Silent())


def test_batches_have_tables_of_objects_and_no_regions(job):
    loader = make_loader(job, CPU, 0)
    batch = loader.make_batch(loader.read(0))
    assert batch.regions is None
    assert len(batch.object_classes) == len(batch.cases) == 2
    boundaries = replace(job, configuration=msgspec.structs.replace(job.configuration, detection=None))
    assert (job.classes, boundaries.classes) == (3, 4)
    assert make_loader(boundaries, CPU, 0).read(0).object_classes


def test_the_reference_recipe_is_not_for_objects(job):
    other = replace(job, options=TrainOptions(augmentation="batchgenerators"))
    with pytest.raises(InputError, match="not for objects") as caught:
        make_loader(other, CPU, 0)
    assert "--augmentation autoseg" in caught.value.todo


def test_a_mask_r_cnn_is_not_trained_by_several_processes_together(job):
    together = TrainOptions(distribution=Distribution(0, 2))
    _refuse_untrainable(job.configuration, TrainOptions())
    _refuse_untrainable(msgspec.structs.replace(job.configuration, detection=None), together)
    with pytest.raises(InputError, match="cannot be trained by 2 processes") as caught:
        _refuse_untrainable(job.configuration, together)
    assert "--fold all" in caught.value.todo
