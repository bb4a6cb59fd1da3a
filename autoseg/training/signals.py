"""A polite request to stop: inside the loop a signal waits for the end of the step, elsewhere it ends the work at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGBREAK")  # a keyboard, a cluster, SLURM's --signal=USR1@120, Windows' CTRL_BREAK


@dataclass
class StopRequest:
    """Whether a signal has come. While `patient`, it is noted only, so that the step can end; else it is a KeyboardInterrupt at once."""

    asked: threading.Event = field(default_factory=threading.Event)
    patient: bool = False

    def note(self, number: int, _: object) -> None:
        """The handler. Only a person's second Ctrl-C ends a patient process: clusters send a signal more than once."""
        again = self.asked.is_set() and number == signal.SIGINT
        self.asked.set()
        if again or not self.patient:
            raise KeyboardInterrupt

    @contextmanager
    def be_patient(self, patient: bool) -> Iterator[None]:
        """Inside, signals wait (or do not); one that has come already ends impatient work before it begins."""
        before, self.patient = self.patient, patient
        try:
            if self.asked.is_set() and not patient:
                raise KeyboardInterrupt
            yield
        finally:
            self.patient = before


@contextmanager
def listen_to_signals() -> Iterator[StopRequest]:
    """Signals become a request to stop instead of ending the process. Only the main thread may listen."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    previous = {number: signal.signal(number, request.note) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
