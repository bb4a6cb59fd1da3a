"""One fold in training: what happens between its steps."""

import math
import time
from dataclasses import dataclass, field, replace

import torch

from autoseg.commands.job import Job
from autoseg.commands.validate import Metric, get_metric, validate_cases
from autoseg.io.files import load_record, save_record, write_bytes
from autoseg.networks.devices import Compute
from autoseg.records.base import digest_of
from autoseg.records.prepared import PreparedCase
from autoseg.records.training import Course, TrainingSettings, TrainingStatus
from autoseg.report.curves import Curve, draw_curves
from autoseg.training.alarms import find_alarms, is_stagnant
from autoseg.training.checkpoints import TrainingState, save_checkpoint
from autoseg.training.log import format_log, read_log
from autoseg.training.signals import StopRequest
from autoseg.training.trainer import PACE_STEPS, EpochRow, Pace, Validation

CURVES_SECONDS = 60.0
SURPRISE = 0.2  # share by which a step may take more or less than planned before it is told


@dataclass
class FoldHooks:
    """What the training loop asks of the command: validation, files, the display, and whether to stop or to end."""

    job: Job
    settings: TrainingSettings
    course: Course
    cases: list[PreparedCase]
    request: StopRequest
    rows: list[EpochRow] = field(default_factory=list)
    alarms: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    drawn: float = 0.0

    @property
    def names(self) -> list[str]:
        return [label.name for label in self.job.dataset.classes]

    @property
    def metric(self) -> Metric:
        return get_metric(self.job.configuration)

    @property
    def compute(self) -> Compute:
        """The precision of the settings, or the safer one of a rescue."""
        precision = self.course.rescue.precision if self.course.rescue else self.settings.precision
        return Compute(self.settings.device, precision, self.settings.channels_last, self.settings.compiled)

    def recall(self, step: int) -> None:
        """Takes up the rows, alarms and skipped cases of a training that goes on after `step`."""
        self.rows = read_log(self.job.folder.log, self.names, self.metric.name, step) if step else []
        for count in range(len(self.rows)):
            self.alarms |= find_alarms(self.rows[: count + 1], self.course.end)
        if self.job.folder.status.is_file():
            known = load_record(TrainingStatus, self.job.folder.status).skipped
            self.skipped = list(dict.fromkeys([*known, *self.skipped]))

    def validate(self, network: torch.nn.Module) -> Validation:
        """A checkpoint has been written just before: a signal need not wait."""
        with self.request.be_patient(False):
            validation = validate_cases(network, self.cases, self.job, self.compute)
        self.job.options.distribution.wait()
        return validation

    def finish_step(self, state: TrainingState, loss: float | None) -> None:
        self.job.progress.advance(f"step {state.step}" + (f", loss {loss:.3f}" if loss is not None else ""))

    def skip_step(self, step: int, cases: tuple[str, ...]) -> None:
        self.job.progress.warn(f"Step {step} is skipped: its loss or gradient was not finite. Cases: {', '.join(cases)}", event="skipped")
        self.skipped += [case for case in cases if case not in self.skipped]

    def finish_epoch(self, row: EpochRow) -> None:
        self.rows.append(row)
        self.job.progress.detail(f"epoch {row.epoch}: step {row.step}, loss {row.loss:.4f}, {row.seconds:.0f} s")
        self.write_log(row)

    def is_validated(self, step: int) -> bool:
        """Also where the log has no row of this step (any more)."""
        return self.job.options.distribution.any(all(row.foreground is not None for row in self.rows if row.step == step))

    def finish_validation(self, step: int, validation: Validation) -> None:
        row = replace(self.rows[-1], validation=validation.scores, foreground=validation.foreground)
        self.rows[-1] = row
        score = f"{row.mean_score:.3f}" if row.mean_score is not None else "not defined"
        self.job.progress.detail(f"epoch {row.epoch}: validation {self.metric.title} {score}")
        found = find_alarms(self.rows, self.course.end)
        for name in found.keys() - self.alarms.keys():
            self.job.progress.warn(found[name], event="alarm", name=name)
        self.alarms = found | self.alarms
        self.write_log(row)

    def write_log(self, row: EpochRow) -> None:
        write_bytes(self.job.folder.log, format_log(self.rows, self.names, self.metric.name).encode())
        self.write_status("training", row.step, row.seconds, row.loss)
        if time.monotonic() - self.drawn > CURVES_SECONDS or row.step == self.course.end:
            self.draw()
            self.drawn = time.monotonic()

    def draw(self) -> None:
        loss = [(row.step, row.loss) for row in self.rows]
        rate = [(row.step, row.learning_rate) for row in self.rows]
        scores = [[(row.step, row.validation[n]) for row in self.rows if row.validation.get(n) is not None] for n in self.names]
        curves = [Curve(n, [s for s, _ in points], [float(v or 0) for _, v in points]) for n, points in zip(self.names, scores) if points]
        title = f"{self.job.configuration.name}, fold {self.job.number}"
        picture = draw_curves(Curve("loss", *_columns(loss)), Curve("rate", *_columns(rate)), curves, title, self.metric.title)
        write_bytes(self.job.folder.curves, picture)

    def write_status(self, state: str, step: int, seconds: float, loss: float | None = None) -> None:
        status = TrainingStatus(
            state=state,  # type: ignore[arg-type]
            step=step,
            steps=self.course.end,
            seconds=seconds,
            loss=loss if loss is not None and math.isfinite(loss) else None,
            alarms=tuple(self.alarms.values()),
            skipped=tuple(self.skipped),
        )
        save_record(self.job.folder.status, status)

    def tell_pace(self, pace: Pace) -> None:
        planned = self.settings.seconds_per_step
        text = f"After {PACE_STEPS} steps: {pace.seconds_per_step:.3g} s a step, {pace.waiting:.0%} of it waiting for data"
        if abs(pace.seconds_per_step - planned) > SURPRISE * planned:
            text += f" (planned: {planned:.3g} s)"
        clock = time.strftime("%H:%M", time.localtime(time.time() + pace.seconds_left))
        text += f"; ends at {clock} (in {pace.seconds_left / 60:.0f} min), then validation."
        self.job.progress.say(text, event="pace", seconds_per_step=pace.seconds_per_step, waiting=pace.waiting)

    def save(self, state: TrainingState) -> None:
        save_checkpoint(self.job.folder.checkpoints, state, digest_of(self.settings))
        if self.request.asked.is_set():
            self.write_status("interrupted", state.step, state.seconds)

    def should_stop(self) -> bool:
        asked = self.job.options.distribution.any(self.request.asked.is_set())
        if asked:
            self.request.asked.set()
        return asked

    def should_end(self) -> bool:
        """`autoseg stop` has left its file, or patience is over (counted anew in an extension)."""
        return self.job.options.distribution.any(self._wants_to_end())

    def _wants_to_end(self) -> bool:
        if self.job.folder.stop.exists():
            return True
        patience, first = self.settings.patience, self.course.legs[-1].first
        return patience is not None and is_stagnant([row for row in self.rows if row.step > first], patience)

    def change_course(self, course: Course) -> None:
        save_record(self.job.folder.course, course)
        self.course = course
        leg = course.legs[-1]
        self.job.progress.say(
            f"Bringing the learning rate to its end: {leg.last - leg.first} more steps, to step {leg.last}, then validation.",
            event="ending",
            step=leg.first,
            steps=leg.last,
        )


def _columns(points: list[tuple[int, float]]) -> tuple[list[float], list[float]]:
    return [float(x) for x, _ in points], [float(y) for _, y in points]
