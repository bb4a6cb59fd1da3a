"""Classes that share values are regions; what label maps tell apart are their parts."""

from autoseg.records.base import decode, encode
from autoseg.records.dataset import Channel, ClassLabel, Dataset, are_regions, count_outputs, list_parts

WHOLE, CORE, RIM = (
    ClassLabel(name="whole", values=(1, 2, 3, 4)),
    ClassLabel(name="core", values=(3, 4)),
    ClassLabel(name="rim", values=(4,)),
)
ORGANS = (ClassLabel(name="liver", values=(3, 7)), ClassLabel(name="spleen", values=(1,)))


def make_dataset(classes):
    channels = (Channel(name="MR", pattern="{case}.nii.gz"),)
    return Dataset(root="/", dimension=3, unit="mm", layout="flat", channels=channels, classes=classes, cases=())


def test_values_of_the_same_regions_are_one_part():
    parts = list_parts((WHOLE, CORE, RIM))
    assert [(part.values, part.classes) for part in parts] == [((1, 2), (0,)), ((3,), (0, 1)), ((4,), (0, 1, 2))]


def test_classes_that_share_nothing_are_their_own_parts_in_their_order():
    assert [(part.values, part.classes) for part in list_parts(ORGANS)] == [((3, 7), (0,)), ((1,), (1,))]


def test_regions_are_answered_without_a_background():
    assert are_regions((WHOLE, RIM))
    assert not are_regions(ORGANS)
    assert (count_outputs((WHOLE, CORE, RIM)), count_outputs(ORGANS)) == (3, 3)


def test_a_data_set_knows_its_regions_and_writes_no_field_for_them():
    dataset = make_dataset((WHOLE, CORE))
    assert dataset.regions
    assert not make_dataset(ORGANS).regions
    assert b"regions" not in encode(dataset)
    assert decode(Dataset, encode(dataset), "dataset.json") == dataset
