"""Batches, read ahead by threads: the store is read in boxes while the network computes; the rest happens on the training device."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autoseg.io.store import Store
from autoseg.networks.devices import Compute
from autoseg.records.prepared import PreparedCase
from autoseg.training.augmentation import Change, apply_changes, collect_changes
from autoseg.training.distribution import ALONE, Distribution
from autoseg.training.sampling import Sample, Sampler
from autoseg.training.spatial import Warp, apply_warp, cut_on_voxels, make_warps

AHEAD = 2  # batches beside those that the threads work on
AHEAD_BYTES = 1.5e8  # of patches read ahead, so that large batches do not fill the memory


@dataclass(frozen=True)
class Batch:
    """images (sample, channel, *patch) float32, labels (sample, *patch) int16 (numbers of objects int64), and their cases.

    `regions` says which label numbers belong to which class, bool (class, number); None where classes exclude each other. Where labels
    are numbers of objects, `object_classes` holds per sample each number's class, (numbers,) int64 with 0 for the background, and
    `object_voxels` about how many voxels of the patch the whole object takes, (numbers,) float32 with 0 where that is not known.
    """

    images: Tensor
    labels: Tensor
    cases: tuple[str, ...]
    regions: Tensor | None = None
    object_classes: tuple[Tensor, ...] | None = None
    object_voxels: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class Parts:
    """A batch before the device has worked on it: patches that lie on voxels are in place, the others are in `warps`."""

    images: Tensor
    labels: Tensor
    warps: list[Warp]
    changes: list[Change]
    cases: tuple[str, ...]
    object_classes: tuple[Tensor, ...] = ()
    object_voxels: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Loader:
    """Makes the batch of any step from the store; equal steps give equal batches, whatever the threads do."""

    store: Store
    sampler: Sampler
    compute: Compute
    regions: Tensor | None = None  # of the batches, on the training device
    threads: int = 1
    distribution: Distribution = ALONE

    def read(self, step: int) -> Parts:
        """Draws a step's samples (this process's part of them) and reads the boxes that they need."""
        samples = self.draw(step)
        return self.assemble(samples, [self.read_box(sample) for sample in samples])

    def draw(self, step: int) -> list[Sample]:
        size = self.sampler.configuration.batch_size
        return [self.sampler.draw(step * size + place) for place in self.distribution.deal(size)]

    def assemble(self, samples: list[Sample], parts: list[tuple[np.ndarray, np.ndarray]]) -> Parts:
        """All that the host does: copies what lies on voxels into its place, and collects the numbers of the rest."""
        patch = self.sampler.configuration.patch_size
        backgrounds = np.array([sample.background for sample in samples], dtype=np.float32)
        images = np.empty((*backgrounds.shape, *patch), dtype=np.float32)
        images[:] = backgrounds.reshape(*backgrounds.shape, *(1,) * len(patch))
        labels = np.zeros((len(samples), *patch), dtype=parts[0][1].dtype)
        for place, (sample, (image, label)) in enumerate(zip(samples, parts)):
            if sample.on_voxels:
                cut_on_voxels(image, sample, images[place])
                cut_on_voxels(label, sample, labels[place])
        made = torch.from_numpy(images), torch.from_numpy(labels)
        most = 1 if self.compute.device == "cpu" else len(samples)  # a CPU gains nothing from more, which take memory
        tables = self._list_objects(samples)
        cases = tuple(sample.case for sample in samples)
        return self._pin(Parts(*made, make_warps(samples, parts, most), collect_changes(samples, patch), cases, *tables))

    def _list_objects(self, samples: list[Sample]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Classes and sizes of the objects of each sample's case; nothing where voxels have classes."""
        if self.sampler.configuration.product == "classes":
            return (), ()
        records = [self.sampler.load(sample.case) for sample in samples]
        classes = tuple(torch.tensor([0, *record.object_classes]) for record in records)
        return classes, tuple(_measure_objects(*pair) for pair in zip(records, samples))

    def read_box(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """Image (channel, *box) and label (*box) of a sample."""
        box = sample.box
        if sample.slice_index is not None:
            box = ((sample.slice_index, sample.slice_index + 1), *box)
        image, label = self.store.read_image(sample.case, box), self.store.read_label(sample.case, box)
        return (image, label) if sample.slice_index is None else (image[:, 0], label[0])

    def _pin(self, parts: Parts) -> Parts:
        """In memory that a GPU can fetch by itself."""
        return _move(parts, torch.Tensor.pin_memory) if self.compute.device == "cuda" else parts

    def make_batch(self, parts: Parts) -> Batch:
        """Warps and changes on the training device."""
        there = _move(parts, lambda tensor: tensor.to(self.compute.device, non_blocking=True))
        for warp in there.warps:
            apply_warp(warp, there.images, there.labels)
        images = apply_changes(there.images, there.changes)
        labels = there.labels.long() if there.object_classes else there.labels
        tables = there.object_classes or None, there.object_voxels or None
        return Batch(self.compute.place(images), labels, parts.cases, self.regions, *tables)

    def iterate(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of steps first … last - 1, read ahead; a reading error is raised here."""
        configuration = self.sampler.configuration
        voxels = configuration.batch_size * math.prod(configuration.patch_size) * len(configuration.normalization)
        ahead = max(
            1, min(self.threads + AHEAD, int(AHEAD_BYTES / (4 * 4 * voxels)))
        )  # a turned patch reads up to four times its own voxels
        with ThreadPoolExecutor(self.threads, thread_name_prefix="autoseg-read") as executor:
            waiting: deque[Future[Parts]] = deque()
            for step in range(first, last):
                while len(waiting) < ahead and step + len(waiting) < last:
                    waiting.append(executor.submit(self.read, step + len(waiting)))
                yield self.make_batch(waiting.popleft().result())


def _measure_objects(record: PreparedCase, sample: Sample) -> Tensor:
    """About how many voxels of the sample's patch each object takes, (numbers,) float32: not known in slices of a volume."""
    known = record.object_voxels if sample.slice_index is None else ()
    zoom = abs(float(np.linalg.det(sample.matrix)))  # voxels of the case in one of the patch
    return torch.tensor([0.0, *(known or (0,) * len(record.object_classes))]) / zoom


def _move(parts: Parts, place: Callable[[Tensor], Tensor]) -> Parts:
    """The same with its tensors placed elsewhere."""
    return Parts(
        images=place(parts.images),
        labels=place(parts.labels),
        warps=[warp.move(place) for warp in parts.warps],
        changes=[change.move(place) for change in parts.changes],
        cases=parts.cases,
        object_classes=tuple(place(table) for table in parts.object_classes),
        object_voxels=tuple(place(table) for table in parts.object_voxels),
    )
