"""What the ranks of a distributed training do in tests: here, because spawned processes must be able to import it."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from builders import make_configuration
from safetensors.torch import save_file

from autoseg.errors import Interrupted
from autoseg.networks.devices import Compute
from autoseg.records.plan import AugmentationSpec, Configuration, LossSpec
from autoseg.training.distribution import ALONE, Distribution, join_group
from autoseg.training.loader import Batch
from autoseg.training.trainer import start_state, take_step

CPU = Compute("cpu")
PLAIN = LossSpec()


@dataclass(frozen=True)
class Question:
    """One step to take: how Dice is summed, how large the batch is, which of its samples hold only ignored voxels."""

    batch_dice: bool
    batch_size: int = 3
    ignored: tuple[int, ...] = ()
    loss: LossSpec = PLAIN
    accumulation: int = 1
    regions: bool = False

    @property
    def configuration(self) -> Configuration:
        spec = AugmentationSpec()
        return make_configuration(batch_dice=self.batch_dice, batch_size=self.batch_size, loss=self.loss, augmentation=spec)


def make_batches(question: Question, distribution: Distribution) -> list[Batch]:
    """This rank's part of made-up batches with three classes and uneven numbers of ignored voxels."""
    batches = []
    for number in range(question.accumulation):
        generator = torch.Generator().manual_seed(number)
        images = torch.randn((question.batch_size, 1, 8, 8, 8), generator=generator)
        labels = torch.randint(0, 3, (question.batch_size, 8, 8, 8), generator=generator)
        for place in range(question.batch_size):
            labels[place, : 8 if place in question.ignored else place] = -1
        places = list(distribution.deal(question.batch_size))
        table = torch.tensor([[False, True, True], [False, False, True], [False, True, False]]) if question.regions else None
        batches.append(Batch(images[places], labels[places], tuple(f"case{place}" for place in places), table))
    return batches


def answer(question: Question, distribution: Distribution = ALONE) -> dict[str, torch.Tensor]:
    """Loss, gradients before clipping and weights after one step."""
    torch.set_num_threads(1)
    configuration = question.configuration
    optimizer = msgspec.structs.replace(configuration.optimizer, gradient_clip=1e9)
    configuration = msgspec.structs.replace(configuration, optimizer=optimizer)
    state = start_state(configuration, 1, 3, 0, CPU)
    state.join(distribution, configuration.loss)
    loss = take_step(state, make_batches(question, distribution), configuration, CPU).loss
    gradients = {name: value.grad for name, value in state.network.named_parameters() if value.grad is not None}
    weights = {f"after.{name}": value for name, value in state.network.state_dict().items()}
    return {"loss": loss, **gradients, **weights}


def answer_all(rank: int, size: int, questions: list[Question], folder: str) -> None:
    """A rank's answers to all questions, each in FOLDER/rank_question.safetensors."""
    distribution = Distribution(rank, size, rank)
    with join_group(distribution, "cpu"):
        for number, question in enumerate(questions):
            save_file(answer(question, distribution), Path(folder) / f"{rank}_{number}.safetensors")
        agreed = [distribution.any(rank == 1), distribution.any(False)]
        (Path(folder) / f"{rank}_agreed").write_text(str(agreed))


def lose_a_rank(rank: int, size: int, _: list[Question], folder: str) -> None:
    """Rank 1 is killed; the others wait for it and write down what they are told."""
    distribution = Distribution(rank, size, rank)
    try:
        with join_group(distribution, "cpu"):
            distribution.wait()
            if rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            distribution.wait()
    except Interrupted as error:
        (Path(folder) / f"{rank}_told").write_text(str(error))
