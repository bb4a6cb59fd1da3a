"""Batches by the reference recipe (batchgenerators), made sample by sample in loader processes; the surface is that of `Loader`."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from autoseg.training.loader import AHEAD, Batch, Loader
from autoseg.training.reference_recipe import Draft, augment, make_sample, read_around

Made = tuple[np.ndarray, np.ndarray]


def ignore_warning(text: str) -> None:
    """For those who do not wish to hear of a worker's death."""


@dataclass(frozen=True)
class ReferenceLoader(Loader):
    """Equal steps give equal batches, whatever the number of workers (`threads`); `warn` is told of one that died."""

    warn: Callable[[str], None] = ignore_warning
    make: Callable[[Draft], Made] = make_sample

    def draft(self, step: int) -> list[Draft]:
        """A step's samples, this process's part of them."""
        configuration = self.sampler.configuration
        numbers = (step * configuration.batch_size + place for place in self.distribution.deal(configuration.batch_size))
        return [Draft(self.store, self.sampler.draw(number), configuration) for number in numbers]

    def read(self, step: int) -> list[tuple[Draft, np.ndarray, np.ndarray]]:  # type: ignore[override]
        """The enlarged patches of a step's samples, read in this process."""
        return [(draft, *read_around(draft)) for draft in self.draft(step)]

    def make_batch(self, parts: list[tuple[Draft, np.ndarray, np.ndarray]]) -> Batch:  # type: ignore[override]
        """Augments in this process."""
        return self._join([draft for draft, _, _ in parts], [augment(image, label, draft) for draft, image, label in parts])

    def iterate(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of steps first … last - 1, made ahead by the workers; an error while reading is raised here."""
        steps = deque[list[Draft]]()
        drafts = _count_steps((self.draft(step) for step in range(first, last)), steps)
        made = _make_ahead(drafts, self)
        for _ in range(first, last):
            samples = [next(made) for _ in self.distribution.deal(self.sampler.configuration.batch_size)]
            yield self._join(steps.popleft(), samples)

    def _join(self, drafts: list[Draft], made: list[Made]) -> Batch:
        images = torch.from_numpy(np.stack([image for image, _ in made]))
        labels = torch.from_numpy(np.stack([label for _, label in made]).astype(np.int16)).to(self.compute.device)
        return Batch(self.compute.place(images), labels, tuple(draft.sample.case for draft in drafts), self.regions)


def _count_steps(all_steps: Iterator[list[Draft]], kept: deque[list[Draft]]) -> Iterator[Draft]:
    """The drafts one by one; whole steps are kept for when their samples are there."""
    for drafts in all_steps:
        kept.append(drafts)
        yield from drafts


def _make_ahead(drafts: Iterator[Draft], loader: ReferenceLoader) -> Iterator[Made]:
    """Samples in their order. Where a worker dies, the sample that was waited for is made here and the others in fresh processes."""
    ahead = max(loader.threads, AHEAD * loader.sampler.configuration.batch_size)
    pool = _open_pool(loader.threads)
    waiting: deque[tuple[Draft, Future[Made]]] = deque()
    processes: list[Any] = []  # noted while they live: those that have ended are no longer listed
    try:
        while True:
            waiting += [(draft, pool.submit(loader.make, draft)) for draft in islice(drafts, ahead - len(waiting))]
            if not waiting:
                return
            processes = processes or multiprocessing.active_children()
            draft, future = waiting.popleft()
            try:
                made = future.result()
            except BrokenProcessPool:
                loader.warn(_describe_death(draft, processes))
                pool.shutdown(wait=True, cancel_futures=True)
                pool, processes = _open_pool(loader.threads), []
                waiting = deque((other, pool.submit(loader.make, other)) for other, _ in waiting)
                made = make_sample(draft)
            yield made
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _open_pool(workers: int) -> ProcessPoolExecutor:
    """Spawned, not forked: safe beside threads, the same on every platform."""
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _describe_death(draft: Draft, processes: list[Any]) -> str:
    for process in processes:
        process.join(1)
    codes = sorted({process.exitcode for process in processes if process.exitcode})
    ways = ", ".join(f"killed by signal {-code}" if code < 0 else f"ended with code {code}" for code in codes)
    return f"A loader process died ({ways or 'it left no exit code'}) near a sample of {draft.sample.case}, which is made once more here."
