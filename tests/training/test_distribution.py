"""Several processes take the step that one takes with the joined batch."""

import multiprocessing
import socket

import pytest
import torch
from builders import make_configuration, write_problem
from processes_for_tests import Question, answer, answer_all, lose_a_rank
from safetensors.torch import load_file

from autoseg.errors import InputError
from autoseg.networks.devices import Compute
from autoseg.records.plan import LossSpec
from autoseg.training.distribution import Distribution
from autoseg.training.loader import Loader
from autoseg.training.sampling import Sampler

QUESTIONS = [
    Question(batch_dice=True),
    Question(batch_dice=False),
    Question(batch_dice=True, ignored=(1,)),
    Question(batch_dice=False, ignored=(1,)),  # the only sample of rank 1
    Question(batch_dice=True, ignored=(0, 1, 2)),
    Question(batch_dice=True, loss=LossSpec(deep_supervision=False)),
    Question(batch_dice=True, loss=LossSpec(coarsest_head=False)),
    Question(batch_dice=True, batch_size=2, accumulation=2),
    Question(batch_dice=True, regions=True),
    Question(batch_dice=False, regions=True, ignored=(1,)),
    *(
        Question(batch_dice=dice, ignored=ignored, loss=LossSpec(name=name, class_weights=(1.0, 2.0, 3.0)))
        for name in ("weighted_ce", "focal", "tversky", "unified_focal", "boundary")
        for dice, ignored in ((True, ()), (False, (1,)))
    ),
]


def run_ranks(function, size, questions, folder, monkeypatch) -> list[int]:
    """Exit codes of `size` spawned processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=function, args=(rank, size, questions, str(folder))) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What two ranks answered to each question."""
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patch:
        assert run_ranks(answer_all, 2, QUESTIONS, folder, patch) == [0, 0]
    assert {(folder / f"{rank}_agreed").read_text() for rank in range(2)} == {"[True, False]"}
    return [[load_file(folder / f"{rank}_{number}.safetensors") for rank in range(2)] for number in range(len(QUESTIONS))]


@pytest.mark.parametrize("number", range(len(QUESTIONS)), ids=str)
def test_two_ranks_have_the_loss_the_gradient_and_the_weights_of_one_process(answers, number):
    torch.set_num_threads(1)
    alone = answer(QUESTIONS[number])
    for rank in answers[number]:
        assert rank.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(rank[name], value, rtol=1e-5, atol=1e-5 if not name.startswith("after.") else 1e-4, msg=name)
    for name, value in answers[number][0].items():
        assert torch.equal(value, answers[number][1][name]), name


def test_losing_a_rank_ends_the_others_with_a_clear_message(tmp_path, monkeypatch):
    assert run_ranks(lose_a_rank, 2, [], tmp_path, monkeypatch) == [0, -9]
    told = (tmp_path / "0_told").read_text()
    assert "Another process of this training ended; rank 0 of 2 ends with it" in told
    assert "same command" in told


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_the_ranks_share_out_the_batch_of_one(tmp_path, size):
    problem = write_problem(tmp_path)
    sampler = Sampler(tuple(case.case for case in problem.cases), problem.store.load, make_configuration(batch_size=5), 4)
    whole = next(Loader(problem.store, sampler, Compute("cpu")).iterate(3, 4))
    parts = [
        next(Loader(problem.store, sampler, Compute("cpu"), distribution=Distribution(rank, size)).iterate(3, 4)) for rank in range(size)
    ]
    counts = [len(part.cases) for part in parts]
    assert max(counts) - min(counts) <= 1
    for rank, part in enumerate(parts):
        assert torch.equal(part.images, whole.images[rank::size])
        assert torch.equal(part.labels, whole.labels[rank::size])
        assert part.cases == whole.cases[rank::size]
    assert sum(counts) == 5


def test_a_batch_smaller_than_the_ranks_is_refused():
    Distribution(0, 2).check_batch(2)
    with pytest.raises(InputError, match="batch of 2 cannot be dealt out to 3") as told:
        Distribution(0, 3).check_batch(2)
    assert "--nproc-per-node 2" in str(told.value)
