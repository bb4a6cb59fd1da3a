"""Lists of found objects: a JSON beside each mask, and one table of the folder."""

import csv
from io import StringIO
from pathlib import Path

from autoseg.io.files import load_record, save_record, write_bytes
from autoseg.records.objects import CaseObjects, ListedObject

TABLE = "objects.csv"
AXES = "zyx"


def get_list_name(case: str) -> str:
    """The file beside a case's mask that lists its objects."""
    return f"{case}_objects.json"


def write_list(folder: Path, listed: CaseObjects) -> None:
    """Writes CASE_objects.json, whole or not at all."""
    save_record(folder / get_list_name(listed.case), listed)


def write_table(folder: Path, cases: list[str]) -> None:
    """Writes the objects of these cases, as their lists have them, into one objects.csv, whole or not at all."""
    lists = [load_record(CaseObjects, folder / get_list_name(case)) for case in cases]
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    if lists:
        writer.writerow(_make_heading(lists[0]))
    writer.writerows(_make_row(listed, found) for listed in lists for found in listed.objects)
    write_bytes(folder / TABLE, stream.getvalue().encode())


def _make_heading(listed: CaseObjects) -> list[str]:
    axes, unit = AXES[-len(listed.shape) :], listed.unit
    edges = [f"{end}_{axis}" for end in ("low", "high") for axis in axes]
    size = ("area" if len(axes) == 2 else "volume") + f"_{unit}" + ("" if unit == "px" else str(len(axes)))
    places = [*(f"centroid_{axis}" for axis in axes), *(f"world_{axis}" for axis in axes[::-1])]
    measured = ["voxels", size, f"diameter_{unit}", "touches_border", "merged"]
    return ["case", "id", "class", "score", *edges, *(f"{edge}_{unit}" for edge in edges if unit != "px"), *places, *measured]


def _make_row(listed: CaseObjects, found: ListedObject) -> list[object]:
    edges = [*found.box, *(found.box_mm if listed.unit != "px" else ())]
    measured = [found.voxels, found.size, found.diameter, int(found.touches_border), int(found.merged)]
    return [listed.case, found.id, found.class_name, found.score, *edges, *found.centroid, *found.world, *measured]
