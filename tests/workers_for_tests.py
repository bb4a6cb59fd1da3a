"""What spawned workers do in the tests of autoseg.parallel and of loader processes: here, because they must be able to import it."""

import os
import signal
import time

import numpy as np

from autoseg.errors import InputError
from autoseg.training.reference_recipe import Draft, make_sample


def double(number: int) -> int:
    return 2 * number


def double_or_die(number: int) -> int:
    """Is killed at 3, as by a system without memory."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return 2 * number


def double_or_exit(number: int) -> int:
    if number == 1:
        os._exit(7)
    return 2 * number


def double_or_refuse(number: int) -> int:
    if number == 1:
        raise InputError("1 is not welcome.", "It is odd.", "The rest.", "Leave it out.")
    return 2 * number


def die_once(path: str) -> str:
    """Is killed the first time; leaves a file by which the second time is told."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return "second time"
    os.close(handle)
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def make_sample_or_die(draft: Draft) -> tuple[np.ndarray, np.ndarray]:
    """Makes a sample; the first process that comes here is killed instead, as by a system without memory."""
    die_once(str(draft.store.folder / "died"))
    return make_sample(draft)
