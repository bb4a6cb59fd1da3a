"""The command line: one subcommand per verb, the verb imported late; the only place that prints or reads the environment."""

import argparse
import difflib
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from autoseg import __version__
from autoseg import arguments as kinds
from autoseg.commands.launch import read_place, take_gpus
from autoseg.errors import AutosegError, InputError

LINE_SECONDS = 60.0  # between two lines of progress where there is no terminal
RESULTS = ("scores", "comparison", "plan", "explain", "change", "update", "choice", "status", "run")
LOG_FOLDERS = {
    **{"plan": "output", "prepare": "run", "train": "run", "stop": "run", "select": "run"},
    **{"run": "output", "predict": "output", "ensemble": "output"},
}  # by verb: the argument
SCAN_FLAGS = (
    *("output", "task", "profile", "memory", "minutes", "hours", "device", "images", "labels", "channels"),
    *("classes", "spacing", "groups", "stratify", "folds", "splits", "exclude", "format"),
)


class Parser(argparse.ArgumentParser):
    """Exits 2 with the nearest flag or command when one is mistyped."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"ERROR   {message}\nNext    {self.prog} --help\n")


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(prog="autoseg", description="Self-configuring segmentation: plan, train, predict, evaluate.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"autoseg {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True, parser_class=Parser)
    for name, (help_text, add_arguments, _) in VERBS.items():
        verb = verbs.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)
        add_arguments(verb)
        common = verb.add_argument_group("common")
        common.add_argument("-q", "--quiet", action="store_true", help="only warnings, results and errors")
        common.add_argument("-v", "--verbose", action="store_true", help="every detail")
        common.add_argument("--json", action="store_true", help="one JSON object per event")
        common.add_argument("--workers", type=kinds.positive_int, metavar="N", help="processes for work case by case")
    return parser


def _minutes(arguments: argparse.Namespace) -> float | None:
    return arguments.hours * 60 if arguments.hours else arguments.minutes


def _plan(arguments: argparse.Namespace, progress: Any) -> None:
    from autoseg.commands.plan import format_plan, plan

    if arguments.explain is not None or arguments.set or arguments.update:
        _plan_later(arguments, progress)
        return
    if arguments.output is None:
        raise InputError("No run folder is given.", todo=f"autoseg plan {arguments.dataset} -o RUN")
    made = plan(arguments.dataset, arguments.output, _plan_options(arguments), progress)
    progress.say(format_plan(made, arguments.output), event="plan", default_configuration=made.default_configuration)


def _plan_options(arguments: argparse.Namespace) -> Any:
    from autoseg.commands.plan import PlanOptions

    if arguments.channels and arguments.images:
        raise InputError("--images is one channel; with --channels leave it out.")
    return PlanOptions(
        task=arguments.task,
        profile=arguments.profile,
        memory=arguments.memory,
        minutes=_minutes(arguments),
        device=arguments.device,
        images=dict(arguments.channels) if arguments.channels else {"image": arguments.images} if arguments.images else None,
        labels=arguments.labels,
        classes=arguments.classes,
        spacing=arguments.spacing,
        groups=arguments.groups,
        splits=arguments.splits,
        exclude=arguments.exclude,
        stratify=arguments.stratify,
        folds=arguments.folds,
        format=arguments.format or "autoseg",
        workers=arguments.workers,
    )


def _plan_later(arguments: argparse.Namespace, progress: Any) -> None:
    """What is done with a run that is planned already; flags about scans have no meaning there."""
    from autoseg.commands.change import change
    from autoseg.commands.explain import explain
    from autoseg.commands.update import update

    word = "--set" if arguments.set else "--update" if arguments.update else "--explain"
    given = [flag for flag in SCAN_FLAGS if getattr(arguments, flag) not in (None, "", (), "auto")]
    if arguments.update and given in ([], ["exclude"]):
        update(arguments.dataset, arguments.exclude, arguments.workers, progress)
        return
    if given:
        flag = "-o" if given[0] == "output" else f"--{given[0]}"
        raise InputError(f"{flag} does not go with {word}, which is given the run folder alone.")
    if not arguments.set:
        progress.say(explain(arguments.dataset, arguments.explain or None), event="explain")
        return
    settings = dict(arguments.set)
    if len(settings) < len(arguments.set):
        raise InputError("A field is given twice with --set.", ", ".join(name for name, _ in arguments.set))
    change(arguments.dataset, settings, progress)


def _prepare(arguments: argparse.Namespace, progress: Any) -> None:
    from autoseg.commands.prepare import prepare

    store = prepare(arguments.run, arguments.configuration, arguments.workers, progress)
    progress.say(f"Prepared: {store.folder}\nNext: autoseg train {arguments.run} --fold 0", event="prepared", folder=str(store.folder))


def _train(arguments: argparse.Namespace, progress: Any) -> None:
    from autoseg.commands.job import Distribution, TrainOptions
    from autoseg.commands.train import train

    options = TrainOptions(
        minutes=_minutes(arguments),
        epochs=arguments.epochs,
        steps=arguments.steps,
        device=arguments.device,
        precision=arguments.precision,
        seed=arguments.seed,
        overwrite=arguments.overwrite,
        workers=arguments.workers,
        patience=arguments.patience,
        init=arguments.init,
        extend=arguments.extend,
        augmentation=arguments.augmentation,
        gpus=take_gpus(os.environ, arguments.gpus),
        distribution=Distribution(*read_place(os.environ)),
    )
    train(arguments.run, arguments.fold, arguments.configuration, options, progress)


def _run(arguments: argparse.Namespace, progress: Any) -> None:
    gpus = take_gpus(os.environ, arguments.gpus)  # before torch looks
    from autoseg.commands.job import TrainOptions
    from autoseg.commands.run import RunOptions, run

    asked = {name: getattr(arguments, name) for name in ("steps", "device", "precision", "seed", "workers")}
    options = RunOptions(_minutes(arguments), replace(_plan_options(arguments), minutes=None), TrainOptions(**asked, gpus=gpus))
    run(arguments.dataset, arguments.output, options, progress)


def _status(arguments: argparse.Namespace, progress: Any) -> None:
    from autoseg.commands.status import format_status, status, to_plain

    found = status(arguments.run)
    progress.say(format_status(found), event="status", status=to_plain(found))


def _stop(arguments: argparse.Namespace, progress: Any) -> None:
    from autoseg.commands.stop import stop

    stop(arguments.run, arguments.fold, progress)


def _predict(arguments: argparse.Namespace, progress: Any) -> None:
    from autoseg.commands.predict import PredictOptions, predict

    options = PredictOptions(
        configuration=arguments.configuration,
        folds=arguments.folds,
        cases=arguments.cases,
        tta=arguments.tta,
        probabilities=arguments.probabilities,
        preview=arguments.preview,
        reference=arguments.reference,
        device=arguments.device,
    )
    predict(arguments.model, arguments.scans, arguments.output, options, progress)


def _evaluate(arguments: argparse.Namespace, progress: Any) -> None:
    from autoseg.commands.evaluate import Wanted, evaluate

    wanted = Wanted(arguments.task, arguments.metrics, arguments.tolerance, arguments.only_predicted, arguments.limits)
    evaluate(arguments.predictions, arguments.references, arguments.output, arguments.workers, progress, wanted)


def _compare(arguments: argparse.Namespace, progress: Any) -> None:
    from autoseg.commands.compare import CompareOptions, compare
    from autoseg.commands.evaluate import Wanted

    options = CompareOptions(Wanted(arguments.task, arguments.metrics), arguments.common, arguments.workers)
    compare(arguments.first, arguments.second, arguments.reference, arguments.output, options, progress)


def _ensemble(arguments: argparse.Namespace, progress: Any) -> None:
    from autoseg.commands.ensemble import ensemble

    ensemble(arguments.folders, arguments.output, progress)


def _select(arguments: argparse.Namespace, progress: Any) -> None:
    from autoseg.commands.select import select

    select(arguments.run, progress, arguments.workers, arguments.configurations)


def _demo(arguments: argparse.Namespace, progress: Any) -> None:
    from autoseg.commands.demo import demo

    demo(arguments.output, arguments.task, progress)


Verb = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace, Any], None]]
VERBS: dict[str, Verb] = {
    "plan": ("measure a folder of scans and decide everything", kinds.add_plan, _plan),
    "run": ("the whole way: plan, train every fold, select, score", kinds.add_run, _run),
    "status": ("what is done in a run, what runs, what it will take", kinds.add_status, _status),
    "prepare": ("crop, normalise and resample (train does it when needed)", kinds.add_prepare, _prepare),
    "train": ("train one fold, or all", kinds.add_train, _train),
    "stop": ("bring a training to its end early: last steps, validation, model", kinds.add_stop, _stop),
    "predict": ("write masks for scans", kinds.add_predict, _predict),
    "evaluate": ("score masks against references", kinds.add_evaluate, _evaluate),
    "compare": ("two sets of masks of the same cases: is one better by more than noise?", kinds.add_compare, _compare),
    "ensemble": ("join folders of masks: mean of probabilities, or votes", kinds.add_ensemble, _ensemble),
    "select": ("choose configuration, ensemble and post-processing by the validation of all folds", kinds.add_select, _select),
    "demo": ("the whole way on made-up scans, in about three minutes", kinds.add_demo, _demo),
}


class Display:
    """Progress on a terminal (rich), as a line a minute elsewhere, or as JSON lines; everything goes to the log as well."""

    def __init__(self, arguments: argparse.Namespace, log: Path | None) -> None:
        self.quiet, self.verbose, self.json = arguments.quiet, arguments.verbose, arguments.json
        self.log = log
        self.bar: Any = None
        self.task: Any = None
        self.title, self.total, self.done, self.begun, self.told = "", 0, 0, 0.0, 0.0

    def say(self, text: str, **event: Any) -> None:
        self._record(text)
        if self.json:
            print(json.dumps({"event": "message", **event, "text": text}), flush=True)
        elif not self.quiet or event.get("event") in RESULTS:
            self._print(text)

    def warn(self, text: str, **event: Any) -> None:
        self._record(f"WARNING {text}")
        if self.json:
            print(json.dumps({"event": "warning", **event, "text": text}), flush=True)
        else:
            self._print(f"WARNING {text}")

    def detail(self, text: str) -> None:
        self._record(text)
        if self.verbose and not self.json:
            self._print(text)

    def start(self, title: str, total: int) -> None:
        self.title, self.total, self.done, self.begun = title, total, 0, time.monotonic()
        self.told = self.begun
        self._record(f"{title}: {total}")
        if sys.stdout.isatty() and not self.quiet and not self.json:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            note = TextColumn("{task.fields[note]}")
            done = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self.bar = Progress(*done, TimeElapsedColumn(), TimeRemainingColumn(), note)
            self.bar.start()
            self.task = self.bar.add_task(title, total=total, note="")

    def advance(self, note: str = "") -> None:
        self.done += 1
        if self.bar is not None:
            self.bar.update(self.task, advance=1, note=note)
        elif time.monotonic() - self.told > LINE_SECONDS:
            self.told = time.monotonic()
            remaining = (self.told - self.begun) / self.done * (self.total - self.done)
            self.say(
                f"{self.title}: {self.done} of {self.total} ({note}), about {remaining / 60:.1f} minutes left",
                event="progress",
                done=self.done,
                total=self.total,
                seconds_left=round(remaining),
            )

    def finish(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
        if self.title:
            self._record(f"{self.title}: done in {time.monotonic() - self.begun:.1f} s")
            self.title = ""

    def _print(self, text: str) -> None:
        if self.bar is not None:
            self.bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

    def _record(self, text: str) -> None:
        """Appends to log.txt; a log that cannot be written does not stop the work."""
        if self.log is None or not self.log.parent.is_dir():
            return
        try:
            with self.log.open("a", encoding="utf-8") as stream:
                stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")
        except OSError:
            self.log = None


def _log_path(arguments: argparse.Namespace) -> Path | None:
    """RUN/log.txt, or OUT/log.txt for predictions; none where no run is (scans, by mistake), for demo, evaluate and what only reads."""
    if arguments.verb == "plan" and arguments.output is None:
        run = Path(arguments.dataset)
        return run / "log.txt" if (arguments.set or arguments.update) and (run / "plan.json").is_file() else None
    name = LOG_FOLDERS.get(arguments.verb)
    if name is None:
        return None
    folder = Path(getattr(arguments, name))
    return folder / "log.txt" if name == "output" or (folder / "plan.json").is_file() else None


def _check_words(words: Sequence[str], parser: Parser) -> None:
    """Names the nearest command or flag for a mistyped one, before argparse misses what it should have given."""
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb is None:
        return
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.5)
        parser.error(f"there is no command '{verb}'" + (f"; did you mean {near[0]}?" if near else f" (commands: {', '.join(VERBS)})"))
    verbs = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    known = [flag for action in verbs.choices[verb]._actions for flag in action.option_strings]
    for word in words:
        flag = word.split("=")[0]
        if flag.startswith("--") and flag not in ("--", "--version", *known):
            near = difflib.get_close_matches(flag, known, n=1, cutoff=0.5)
            verbs.choices[verb].error(f"there is no flag {flag}" + (f"; did you mean {near[0]}?" if near else ""))


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    words = sys.argv[1:] if words is None else list(words)
    parser = build_parser()
    _check_words(words, parser)
    arguments = parser.parse_args(words)
    rank, *_ = read_place(os.environ)
    arguments.quiet = arguments.quiet or rank > 0
    display = Display(arguments, _log_path(arguments) if rank == 0 else None)
    display.detail(f"autoseg {__version__}, Python {platform.python_version()}, {platform.platform()}: autoseg {' '.join(words)}")
    try:
        VERBS[arguments.verb][2](arguments, display)
        sys.stdout.flush()
    except AutosegError as error:
        return _end(display, error, error.exit_code)
    except KeyboardInterrupt:
        return _end(display, InputError("Stopped by the keyboard.", todo="The same command goes on where it stopped."), 75)
    except BrokenPipeError:  # `autoseg … | head`: whoever read the output has gone
        display.finish()
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be flushed
        return 75
    except Exception as error:
        return _end_unexpected(display, error)
    return 0


def _end(display: Display, error: AutosegError, code: int) -> int:
    display.finish()
    display._record(f"{error}\n(exit {code})\n{traceback.format_exc()}")
    if display.json:
        print(json.dumps({"event": "error", "exit": code, "what": error.what, "why": error.why, "next": error.todo}), flush=True)
    else:
        print(error, file=sys.stderr, flush=True)
        if display.log is not None and display.log.is_file():
            print(f"Log     {display.log}", file=sys.stderr)
    return code


def _end_unexpected(display: Display, error: Exception) -> int:
    """A fault of ours: the traceback goes to the log, or to the screen where there is no log."""
    if display.log is None or not display.log.parent.is_dir() or os.environ.get("AUTOSEG_TRACEBACK"):
        traceback.print_exc()
    return _end(
        display, AutosegError(f"This should not have happened: {type(error).__name__}: {error}", todo="Please report it with the log."), 1
    )
