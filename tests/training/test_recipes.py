"""Our augmentation and the one built from batchgenerators do the same to a phantom, in the statistics of many samples."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from builders import STILL, make_configuration, make_prepared_case
from scipy import ndimage
from workers_for_tests import make_sample_or_die

from autoseg.errors import InputError
from autoseg.io.store import Store
from autoseg.networks.devices import Compute
from autoseg.records.plan import AugmentationSpec
from autoseg.training.distribution import Distribution
from autoseg.training.loader import Batch, Loader
from autoseg.training.reference_loader import ReferenceLoader
from autoseg.training.reference_recipe import Draft, augment, compute_loader_patch, read_around, refuse_only_ours
from autoseg.training.sampling import Sampler

torch.set_num_threads(1)
PATCH = 20
EDGE = 44
SAMPLES = 240
BACKGROUND = -1.5

# Each transform alone, always; per channel where the recipe draws per channel.
# Fixed strengths compare effects more sharply (batchgenerators fixes no zoom below 1).
ALONE = {
    "nothing": {},
    "rotation": {"rotation_probability": 1.0},
    "scaling": {"scaling_probability": 1.0},
    "objects smaller": {"scaling_probability": 1.0, "scaling": (1.4, 1.4)},
    "half resolution": {
        "low_resolution_probability": 1.0,
        "low_resolution_channel_probability": 1.0,
        "low_resolution": (0.5, 0.5),
    },
    "noise": {"noise_probability": 1.0},
    "blur": {"blur_probability": 1.0, "blur_channel_probability": 1.0},
    "brightness": {"brightness_probability": 1.0},
    "contrast": {"contrast_probability": 1.0},
    "low resolution": {"low_resolution_probability": 1.0, "low_resolution_channel_probability": 1.0},
    "inverted gamma": {"inverted_gamma_probability": 1.0},
    "gamma": {"gamma_probability": 1.0},
}
# Beyond four standard errors of the difference: what a discrete kernel, a zoom drawn evenly in its logarithm, or an edge may make of it.
TOLERANCE = {"mean": 0.01, "std": 0.02, "low": 0.03, "median": 0.02, "high": 0.03, "foreground": 0.02, "gradient": 0.05}


def write_phantom(folder: Path, channels: int = 1) -> tuple[Store, Sampler]:
    """Two cases: a bright ball with texture in a dark, uneven surrounding; sampled evenly, without mirroring."""
    store = Store(folder)
    cases = []
    for seed, name in enumerate("AB"):
        generator = np.random.default_rng(seed)
        texture = ndimage.gaussian_filter(generator.normal(size=(channels, EDGE, EDGE, EDGE)), (0, 1.0, 1.0, 1.0))
        distance = np.linalg.norm(np.indices((EDGE,) * 3) - np.reshape([20, 22, 24], (3, 1, 1, 1)), axis=0)
        label = (distance < 11).astype(np.int16)
        record = msgspec.structs.replace(make_prepared_case(name, label.shape), background=(BACKGROUND,) * channels)
        store.write(record, (texture / texture.std() * 0.4 + 2.0 * label - 0.5).astype(np.float32), label)
        cases.append(record)
    configuration = make_configuration(patch=PATCH, batch_size=4, mirror_axes=())
    return store, Sampler(tuple(case.case for case in cases), store.load, configuration, 5)


def change_recipe(sampler: Sampler, **values: float) -> Sampler:
    spec = msgspec.structs.replace(STILL, **{"foreground_probability": 0.0, **values})
    return Sampler(sampler.cases, sampler.load, msgspec.structs.replace(sampler.configuration, augmentation=spec), sampler.seed)


def describe(batch: Batch) -> list[dict[str, float]]:
    """What is compared, of every sample."""
    rows = []
    for image, label in zip(batch.images.numpy()[:, 0], batch.labels.numpy()):
        low, median, high = np.quantile(image, [0.05, 0.5, 0.95])
        energy = sum(np.square(np.diff(image, axis=axis)).mean() for axis in range(3))
        rows.append(
            {
                "mean": image.mean(),
                "std": image.std(),
                "low": low,
                "median": median,
                "high": high,
                "foreground": (label == 1).mean(),
                "gradient": np.sqrt(energy),
            }
        )
    return rows


@dataclass(frozen=True)
class Recipes:
    """Both loaders' samples of one spec."""

    store: Store
    sampler: Sampler

    def measure(self, kind: type[Loader], **values: float) -> dict[str, np.ndarray]:
        loader = kind(self.store, change_recipe(self.sampler, **values), Compute("cpu"))
        steps = SAMPLES // self.sampler.configuration.batch_size
        rows = [row for step in range(steps) for row in describe(loader.make_batch(loader.read(step)))]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    return Recipes(*write_phantom(tmp_path_factory.mktemp("phantom")))


@pytest.mark.parametrize("name", ALONE)
def test_each_transform_alone_has_the_same_statistics(recipes, name):
    ours, theirs = (recipes.measure(kind, **ALONE[name]) for kind in (Loader, ReferenceLoader))
    for feature, tolerance in TOLERANCE.items():
        difference = ours[feature] - theirs[feature]  # of the same places, so that these cancel
        error = difference.std() / np.sqrt(SAMPLES)
        allowed = 4 * error + tolerance * max(abs(theirs[feature].mean()), theirs["std"].mean() if feature != "foreground" else 0)
        assert abs(difference.mean()) <= allowed, f"{feature}: {ours[feature].mean():.4f}, {theirs[feature].mean():.4f} ± {allowed:.4f}"
        spread = ours[feature].std(), theirs[feature].std()
        assert spread[0] == pytest.approx(spread[1], rel=0.3, abs=allowed), feature
    if name == "nothing":
        assert all(np.allclose(ours[feature], theirs[feature], atol=1e-5) for feature in TOLERANCE)


def list_batches(loader: Loader, first: int = 0, last: int = 3) -> list[Batch]:
    return list(loader.iterate(first, last))


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    assert [batch.cases for batch in one] == [batch.cases for batch in other]
    for a, b in zip(one, other):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)


def test_batches_are_the_same_for_any_number_of_workers_and_from_any_step(recipes):
    sampler = change_recipe(recipes.sampler, **{name: 0.5 for values in ALONE.values() for name in values if name.endswith("probability")})
    loader = ReferenceLoader(recipes.store, sampler, Compute("cpu"))
    here = [loader.make_batch(loader.read(step)) for step in range(3)]
    assert (here[0].images.shape, here[0].labels.shape) == ((4, 1, *(PATCH,) * 3), (4, *(PATCH,) * 3))
    assert (here[0].images.dtype, here[0].labels.dtype) == (torch.float32, torch.int16)
    assert_same(list_batches(loader), here)
    assert_same(list_batches(ReferenceLoader(recipes.store, sampler, Compute("cpu"), threads=2), 1), here[1:])
    (part,) = list_batches(ReferenceLoader(recipes.store, sampler, Compute("cpu"), distribution=Distribution(1, 3)), 1, 2)
    assert torch.equal(part.images, here[1].images[1:2])


def test_a_worker_that_dies_is_told_and_nothing_is_missing(recipes, tmp_path):
    store, sampler = write_phantom(tmp_path)
    told = []
    loader = ReferenceLoader(store, sampler, Compute("cpu"), warn=told.append, make=make_sample_or_die)
    batches = list_batches(loader, 0, 2)
    assert (tmp_path / "died").is_file()
    assert len(told) == 1
    assert "killed by signal 9" in told[0]
    assert_same(batches, [loader.make_batch(loader.read(step)) for step in range(2)])


def test_an_error_while_reading_is_raised_where_the_batches_are_used(tmp_path):
    store, sampler = write_phantom(tmp_path)
    for path in tmp_path.glob("*.image.b2nd"):
        path.unlink()
    with pytest.raises(Exception, match=r"b2nd|exist"):
        list_batches(ReferenceLoader(store, sampler, Compute("cpu")))


def test_the_enlarged_patch_is_the_image_where_it_is_and_its_background_beyond(recipes):
    """Against a padded whole array."""
    size, margin = compute_loader_patch((PATCH,) * 3, STILL), EDGE
    whole = np.pad(recipes.store.read_image("A", ((0, EDGE),) * 3)[0], margin, constant_values=BACKGROUND)
    for number in range(12):
        sample = recipes.sampler.draw(number)
        if sample.case != "A":
            continue
        image, label = read_around(Draft(recipes.store, sample, recipes.sampler.configuration))
        starts = [round(c - (PATCH - 1) / 2) - (s - PATCH) // 2 + margin for c, s in zip(sample.centre, size)]
        expected = whole[tuple(slice(low, low + edge) for low, edge in zip(starts, size))]
        np.testing.assert_array_equal(image[0], expected)
        assert not label[expected == BACKGROUND].any()


@pytest.mark.parametrize(
    ("patch", "degrees", "expected"),
    [
        ((128, 128, 128), 30.0, (205, 205, 205)),
        ((64, 192, 192), 30.0, (178, 308, 233)),
        ((512, 512), 180.0, (602, 602)),
    ],
)
def test_the_enlarged_patch_is_nnunets_or_a_voxel_more(patch, degrees, expected):
    size = compute_loader_patch(patch, AugmentationSpec(rotation=(degrees, degrees)))
    for edge, middle, least in zip(size, patch, expected):
        assert edge in (least, least + 1)
        assert (edge - middle) % 2 == 0


def test_channels_are_blurred_and_coarsened_one_by_one(tmp_path):
    store, sampler = write_phantom(tmp_path, channels=2)
    sampler = change_recipe(sampler, blur_probability=1.0)
    struck = []
    for number in range(40):
        draft = Draft(store, sampler.draw(number), sampler.configuration)
        image, label = read_around(draft)
        made, _ = augment(image, label, draft)
        inside = tuple(slice((s - PATCH) // 2, (s + PATCH) // 2) for s in label.shape)
        struck.append([not np.allclose(made[channel], image[(channel, *inside)], atol=1e-5) for channel in range(2)])
    assert np.mean(struck) == pytest.approx(0.5, abs=0.17)
    assert {tuple(row) for row in struck} == {(False, False), (False, True), (True, False), (True, True)}


def test_the_randomness_of_others_is_left_alone(recipes):
    np.random.seed(7)
    expected = np.random.random(3)
    np.random.seed(7)
    loader = ReferenceLoader(recipes.store, change_recipe(recipes.sampler, noise_probability=1.0), Compute("cpu"))
    loader.make_batch(loader.read(0))
    assert np.array_equal(np.random.random(3), expected)


def test_what_only_our_recipe_has_is_refused():
    refuse_only_ours(AugmentationSpec())
    with pytest.raises(InputError, match="has no elastic_probability, streak_probability"):
        refuse_only_ours(AugmentationSpec(elastic_probability=0.1, streak_probability=0.1))
