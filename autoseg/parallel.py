"""Work case by case in processes that may die: the dead are named, the others' work is done all the same."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from autoseg.errors import AutosegError, CasesFailed

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome(Generic[Task, Result]):
    """One task with its result, or with the error that ended it."""

    task: Task
    result: Result | None
    error: AutosegError | None


def run_cases(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, make_executor: Callable[[int], Executor] | None = None
) -> Iterator[Outcome[Task, Result]]:
    """Yields the outcome of every task, in the order in which they end.

    With one worker the tasks run in this process. Where a worker dies, the tasks that were running are repeated alone, one process each;
    one that kills its process again is reported with the way it died. `make_executor` puts another pool in place (a cluster's).
    """
    if workers <= 1 and make_executor is None:
        for task in tasks:
            yield _run_here(function, task)
        return
    build = make_executor or _make_pool
    waiting = list(tasks)
    while waiting:
        suspects: list[Task] = []
        executor = build(min(workers, len(waiting)))
        try:
            yield from _drain(executor, function, waiting, suspects, workers)
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
        for task in suspects:
            yield _run_alone(function, task, build)


def _make_pool(workers: int) -> ProcessPoolExecutor:
    """Spawned, not forked: safe beside threads, the same on every platform."""
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _run_here(function: Callable[[Task], Result], task: Task) -> Outcome[Task, Result]:
    try:
        return Outcome(task, function(task), None)
    except AutosegError as error:
        return Outcome(task, None, error)


def _drain(
    executor: Executor, function: Callable[[Task], Result], waiting: list[Task], suspects: list[Task], workers: int
) -> Iterator[Outcome[Task, Result]]:
    """Works off `waiting`; where the pool breaks, the tasks in flight are left in `suspects` and the rest in `waiting`."""
    running: dict[Future[Result], Task] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            task = waiting.pop(0)
            try:
                running[executor.submit(function, task)] = task
            except BrokenProcessPool:
                waiting.insert(0, task)
                break
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            task = running.pop(future)
            try:
                yield Outcome(task, future.result(), None)
            except BrokenProcessPool:
                suspects.append(task)
            except AutosegError as error:
                yield Outcome(task, None, error)
        if suspects:
            suspects += running.values()
            return


def _run_alone(function: Callable[[Task], Result], task: Task, build: Callable[[int], Executor]) -> Outcome[Task, Result]:
    executor = build(1)
    try:
        future = executor.submit(function, task)
        children: list[Any] = multiprocessing.active_children()
        return Outcome(task, future.result(), None)
    except BrokenProcessPool:
        executor.shutdown(wait=True)  # two threads waiting for one child: the slower gets no code
        codes = [child.exitcode for child in children if child.exitcode]
        return Outcome(task, None, CasesFailed("The worker process died twice.", _explain_death(codes)))
    except AutosegError as error:
        return Outcome(task, None, error)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _explain_death(codes: list[int]) -> str:
    if codes and codes[0] < 0:
        reason = " The system does that when memory runs out." if codes[0] == -9 else ""
        return f"It was killed by signal {-codes[0]}, also when repeated alone.{reason}"
    return f"It ended with code {codes[0]}." if codes else "It left no exit code."
