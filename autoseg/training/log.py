"""log.csv: what a training did, one row per epoch."""

import csv
import io
from pathlib import Path

from autoseg.training.trainer import EpochRow


def format_log(rows: list[EpochRow], classes: list[str]) -> str:
    """log.csv: one row per epoch; validation columns are empty where whole cases were not predicted."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    numbers = ["epoch", "step", "seconds", "learning_rate", "loss", "validation_dice"]
    writer.writerow([*numbers, *(f"validation_dice_{name}" for name in classes), "predicted_foreground"])
    for row in rows:
        cells = [
            f"{value:.5f}" if value is not None else "" for value in (row.mean_dice, *map(row.validation.get, classes), row.foreground)
        ]
        writer.writerow([row.epoch, row.step, f"{row.seconds:.1f}", f"{row.learning_rate:.3e}", f"{row.loss:.5f}", *cells])
    return stream.getvalue()


def read_log(path: Path, classes: list[str], until: int) -> list[EpochRow]:
    """The rows of an earlier log up to step `until`, so that a resumed training goes on with its curves."""
    if not path.is_file():
        return []
    rows = []
    for line in csv.DictReader(io.StringIO(path.read_text())):
        if int(line["step"]) <= until:
            validation = {n: float(line[f"validation_dice_{n}"]) for n in classes if line.get(f"validation_dice_{n}")}
            seconds, rate, loss = (float(line[name]) for name in ("seconds", "learning_rate", "loss"))
            foreground = float(line["predicted_foreground"]) if line.get("predicted_foreground") else None
            rows.append(EpochRow(int(line["epoch"]), int(line["step"]), seconds, rate, loss, dict(validation), foreground))
    return rows
