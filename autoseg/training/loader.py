"""Batches, read ahead by a thread: the store is read in boxes while the network computes."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from autoseg.io.store import Store
from autoseg.networks.devices import Compute
from autoseg.training.augmentation import apply_intensities, cut_patch
from autoseg.training.distribution import ALONE, Distribution
from autoseg.training.sampling import Sample, Sampler

AHEAD = 4  # batches


@dataclass(frozen=True)
class Batch:
    """images (sample, channel, *patch) float32, labels (sample, *patch) int64, and the cases they came from."""

    images: Tensor
    labels: Tensor
    cases: tuple[str, ...]


Parts = list[tuple[Sample, Tensor, Tensor]]


@dataclass(frozen=True)
class Loader:
    """Makes the batch of any step from the store; equal steps give equal batches, whatever the threads do."""

    store: Store
    sampler: Sampler
    compute: Compute
    distribution: Distribution = ALONE

    def read(self, step: int) -> Parts:
        """Draws a step's samples (this process's part of them) and reads the boxes that they need."""
        size = self.sampler.configuration.batch_size
        return [self._read_sample(self.sampler.draw(step * size + place)) for place in self.distribution.deal(size)]

    def _read_sample(self, sample: Sample) -> tuple[Sample, Tensor, Tensor]:
        box = sample.box
        if sample.slice_index is not None:
            box = ((sample.slice_index, sample.slice_index + 1), *box)
        image, label = self.store.read_image(sample.case, box), self.store.read_label(sample.case, box)
        if sample.slice_index is not None:
            image, label = image[:, 0], label[0]
        return sample, torch.from_numpy(image), torch.from_numpy(label)

    def make_batch(self, parts: Parts) -> Batch:
        """Cuts and augments on the training device."""
        patch = self.sampler.configuration.patch_size
        device = self.compute.device
        cut = [cut_patch(image.to(device), label.to(device), sample, patch) for sample, image, label in parts]
        samples = [sample for sample, _, _ in parts]
        images = apply_intensities(torch.stack([image for image, _ in cut]), samples)
        return Batch(self.compute.place(images), torch.stack([label for _, label in cut]), tuple(sample.case for sample in samples))

    def iterate(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of steps first … last - 1, read ahead by one thread; a reading error is raised here."""
        with ThreadPoolExecutor(1, thread_name_prefix="autoseg-read") as executor:
            waiting: deque[Future[Parts]] = deque()
            for step in range(first, last):
                while len(waiting) < AHEAD and step + len(waiting) < last:
                    waiting.append(executor.submit(self.read, step + len(waiting)))
                yield self.make_batch(waiting.popleft().result())
