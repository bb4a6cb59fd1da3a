"""log.csv: what a training did, one row per epoch."""

import csv
import io
from pathlib import Path

from autoseg.training.trainer import EpochRow


def format_log(rows: list[EpochRow], classes: list[str], metric: str) -> str:
    """log.csv: one row per epoch; the columns of the validation's metric are empty where whole cases were not predicted."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    numbers = ["epoch", "step", "seconds", "learning_rate", "loss", f"validation_{metric}"]
    writer.writerow([*numbers, *(f"validation_{metric}_{name}" for name in classes), "predicted_foreground"])
    for row in rows:
        cells = [
            f"{value:.5f}" if value is not None else "" for value in (row.mean_score, *map(row.validation.get, classes), row.foreground)
        ]
        writer.writerow([row.epoch, row.step, f"{row.seconds:.1f}", f"{row.learning_rate:.3e}", f"{row.loss:.5f}", *cells])
    return stream.getvalue()


def read_log(path: Path, classes: list[str], metric: str, until: int) -> list[EpochRow]:
    """The rows of an earlier log up to step `until`, so that a resumed training goes on with its curves."""
    if not path.is_file():
        return []
    rows = []
    for line in csv.DictReader(io.StringIO(path.read_text())):
        if int(line["step"]) <= until:
            columns = {name: line.get(f"validation_{metric}_{name}") for name in classes}
            validation = {name: float(value) for name, value in columns.items() if value}
            seconds, rate, loss = (float(line[name]) for name in ("seconds", "learning_rate", "loss"))
            foreground = float(line["predicted_foreground"]) if line.get("predicted_foreground") else None
            rows.append(EpochRow(int(line["epoch"]), int(line["step"]), seconds, rate, loss, dict(validation), foreground))
    return rows
