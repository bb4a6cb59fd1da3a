"""Folds side by side, one per GPU: each is a process `autoseg train RUN --fold K`, which stops and goes on as one typed by hand."""

import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch

from autoseg.commands.job import TrainOptions
from autoseg.errors import CasesFailed, InputError, Interrupted
from autoseg.progress import Progress
from autoseg.records.machine import DeviceName
from autoseg.training.signals import StopRequest

LOOK_SECONDS = 0.2  # between two looks at whether to stop
KEPT_LINES = 4  # the last ones of a fold that failed, which say why
NOT_PASSED_ON = ("device", "gpus", "distribution")

Start = Callable[[int, int], "subprocess.Popen[str]"]


def choose_gpus(options: TrainOptions, device: DeviceName, folds: int) -> tuple[int, ...]:
    """Numbers of the GPUs over which the folds are spread; none where this process trains them itself."""
    here = torch.cuda.device_count() if device == "cuda" else 0
    if not options.gpus:
        return tuple(range(here)) if folds > 1 and here > 1 and options.distribution.size == 1 else ()
    missing = [str(gpu) for gpu in options.gpus if gpu >= here]
    if missing:
        raise InputError(f"There is no GPU {', '.join(missing)}.", f"The device is {device}; GPUs here: {here}, counted from 0.")
    if folds == 1 and len(options.gpus) > 1:
        count = len(options.gpus)
        raise InputError(
            f"One fold is not spread over {count} GPUs by --gpus.", todo=f"torchrun --nproc-per-node {count} -m autoseg train RUN --fold K"
        )
    return options.gpus


def make_starter(run: Path, configuration: str, device: DeviceName, options: TrainOptions) -> Start:
    """Starts the training of a fold on a GPU by command, out of reach of the terminal's signals; what it says comes through its pipe."""
    words = ["train", str(run), "--configuration", configuration, "--device", device, *format_options(options)]

    def start(fold: int, gpu: int) -> "subprocess.Popen[str]":
        line = [sys.executable, "-m", "autoseg", *words, "--fold", str(fold), "--gpus", str(gpu)]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)

    return start


def format_options(options: TrainOptions) -> list[str]:
    """What was asked for, as it is typed; each field's name is its flag's.

    >>> format_options(TrainOptions(steps=5, overwrite=True, gpus=(0, 1)))
    ['--steps=5', '--overwrite']
    """
    plain = TrainOptions()
    names = [each.name for each in fields(options) if each.name not in NOT_PASSED_ON]
    asked = {name: getattr(options, name) for name in names if getattr(options, name) != getattr(plain, name)}
    return [f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in asked.items()]


@dataclass
class _Folds:
    """What is to be done, what runs where, and how it ended."""

    waiting: deque[int]
    free: deque[int]
    running: dict[int, "subprocess.Popen[str]"] = field(default_factory=dict)
    gpus: dict[int, int] = field(default_factory=dict)
    codes: dict[int, int] = field(default_factory=dict)
    last: dict[int, deque[str]] = field(default_factory=dict)
    lines: "queue.Queue[tuple[int, str | None]]" = field(default_factory=queue.Queue)


def spread(numbers: Sequence[int], gpus: Sequence[int], start: Start, progress: Progress, request: StopRequest) -> None:
    """Trains all folds, as many at a time as there are GPUs.

    Raises CasesFailed (3) that names the folds which failed, after the others are done, and Interrupted (75) when asked to stop, after
    every running fold has been asked and has ended.
    """
    folds = _Folds(deque(numbers), deque(gpus))
    stop = request.asked
    asked = False
    try:
        with request.be_patient(True):
            while folds.running or (folds.waiting and not stop.is_set()):
                while folds.waiting and folds.free and not stop.is_set():
                    _start_next(folds, start, progress)
                if stop.is_set() and not asked:
                    asked = True
                    progress.say("Stopping: every running fold writes a checkpoint.", event="stopping")
                    _ask_to_stop(folds)
                _hear(folds, progress)
    finally:
        _ask_to_stop(folds)
        for process in folds.running.values():
            process.wait()
    _conclude(folds, stop.is_set())


def _start_next(folds: _Folds, start: Start, progress: Progress) -> None:
    fold, gpu = folds.waiting.popleft(), folds.free.popleft()
    process = start(fold, gpu)
    folds.running[fold], folds.gpus[fold], folds.last[fold] = process, gpu, deque(maxlen=KEPT_LINES)
    threading.Thread(target=_read_lines, args=(fold, process, folds.lines), daemon=True, name=f"autoseg-fold-{fold}").start()
    progress.say(f"Fold {fold} starts on GPU {gpu}.", event="fold_started", fold=fold, gpu=gpu)


def _read_lines(fold: int, process: "subprocess.Popen[str]", lines: "queue.Queue[tuple[int, str | None]]") -> None:
    """Passes on what a process says; None when it has ended."""
    if process.stdout is not None:
        for line in process.stdout:
            lines.put((fold, line.rstrip()))
    process.wait()
    lines.put((fold, None))


def _ask_to_stop(folds: _Folds) -> None:
    for process in folds.running.values():
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)


def _hear(folds: _Folds, progress: Progress) -> None:
    """One line of one fold, or its end."""
    try:
        fold, line = folds.lines.get(timeout=LOOK_SECONDS)
    except queue.Empty:
        return
    if line is None:
        folds.codes[fold] = folds.running.pop(fold).returncode
        folds.free.append(folds.gpus[fold])
        if folds.codes[fold] not in (0, Interrupted.exit_code):
            progress.warn(f"Fold {fold} failed (exit {folds.codes[fold]}).", event="fold_failed", fold=fold, exit=folds.codes[fold])
    elif line:
        folds.last[fold].append(line)
        progress.say(f"fold {fold}: {line}", event="fold_line", fold=fold)


def _conclude(folds: _Folds, stopped: bool) -> None:
    finished = sorted(fold for fold, code in folds.codes.items() if code == 0)
    done = f"Finished: fold {', '.join(map(str, finished))}." if finished else ""
    if stopped or Interrupted.exit_code in folds.codes.values():
        raise Interrupted(
            "The training of the folds was stopped.", done=done, todo="Type the same command again: each goes on from its checkpoint."
        )
    failed = {fold: code for fold, code in sorted(folds.codes.items()) if code}
    if failed:
        told = [f"fold {fold} (exit {code}): " + " ".join(folds.last[fold]) for fold, code in failed.items()]
        names = ", ".join(map(str, failed))
        raise CasesFailed(
            f"Training failed for fold {names}.", "\n".join(told), done, "Type the same command again: what is finished is left as it is."
        )
