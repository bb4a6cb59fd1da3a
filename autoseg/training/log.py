"""log.csv: what a training did, one row per epoch."""

import csv
import io
from pathlib import Path

from autoseg.training.trainer import EpochRow


def format_log(rows: list[EpochRow], classes: list[str]) -> str:
    """log.csv: one row per epoch; validation columns are empty where whole cases were not predicted."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["epoch", "step", "seconds", "learning_rate", "loss", "validation_dice", *(f"validation_dice_{n}" for n in classes)])
    for row in rows:
        values = [row.validation.get(name) for name in classes]
        defined = [value for value in values if value is not None]
        mean = f"{sum(defined) / len(defined):.5f}" if defined else ""
        cells = [f"{value:.5f}" if value is not None else "" for value in values]
        writer.writerow([row.epoch, row.step, f"{row.seconds:.1f}", f"{row.learning_rate:.3e}", f"{row.loss:.5f}", mean, *cells])
    return stream.getvalue()


def read_log(path: Path, classes: list[str], until: int) -> list[EpochRow]:
    """The rows of an earlier log up to step `until`, so that a resumed training goes on with its curves."""
    if not path.is_file():
        return []
    rows = []
    for line in csv.DictReader(io.StringIO(path.read_text())):
        if int(line["step"]) <= until:
            validation = {n: float(line[f"validation_dice_{n}"]) for n in classes if line.get(f"validation_dice_{n}")}
            rows.append(
                EpochRow(
                    int(line["epoch"]),
                    int(line["step"]),
                    float(line["seconds"]),
                    float(line["learning_rate"]),
                    float(line["loss"]),
                    dict(validation),
                )
            )
    return rows
