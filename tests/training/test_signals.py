"""A signal waits where a step is under way, and ends the work at once elsewhere."""

import os
import signal

import pytest

from autoseg.training.signals import listen_to_signals

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_patient_listener_notes_it(number):
    with listen_to_signals() as request, request.be_patient(True):
        assert not request.asked.is_set()
        os.kill(os.getpid(), number)
        assert request.asked.is_set()


@pytest.mark.parametrize("number", NUMBERS)
def test_elsewhere_it_ends_the_work(number):
    with listen_to_signals() as request, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    assert request.asked.is_set()


def test_one_that_has_come_ends_impatient_work_before_it_begins():
    with listen_to_signals() as request, request.be_patient(True):
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(KeyboardInterrupt), request.be_patient(False):
            pytest.fail("it began")


def test_only_a_second_ctrl_c_ends_a_patient_one():
    with listen_to_signals() as request, request.be_patient(True):
        for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_handlers_of_before_come_back():
    before = [signal.getsignal(number) for number in NUMBERS]
    with listen_to_signals():
        assert [signal.getsignal(number) for number in NUMBERS] != before
    assert [signal.getsignal(number) for number in NUMBERS] == before
