"""Paths with holes: `{case}` for what varies from case to case, `{ext}` for any scan ending, `{channel}` for what tells channels apart."""

import re
from collections.abc import Iterable
from pathlib import Path

from autoseg.errors import InputError
from autoseg.io.scans import ENDINGS, get_ending

_HOLES = {
    "case": "(?P<case>[^/]+?)",
    "ext": f"(?P<ext>(?i:{'|'.join(re.escape(ending) for ending in ENDINGS)}))",
    "channel": "(?P<channel>[^/]+?)",
    "number": r"(?P<channel>\d{4})",
}


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression of a pattern; a hole that occurs again must hold the same text. Raises InputError for unknown holes."""
    pattern = pattern.removeprefix("./")
    seen: set[str] = set()
    parts = []
    for text, hole in re.findall(r"([^{}]*)(?:\{(\w*)\})?", pattern):
        parts.append("[^/]*".join(re.escape(piece) for piece in text.split("*")))
        if not hole:
            continue
        if hole not in _HOLES:
            raise InputError(f"The pattern '{pattern}' has an unknown hole {{{hole}}}.", todo="Write {case} for what varies between cases.")
        group = "channel" if hole == "number" else hole
        parts.append(f"(?P={group})" if group in seen else _HOLES[hole])
        seen.add(group)
    if "case" not in seen:
        raise InputError(f"The pattern '{pattern}' has no {{case}}.", todo="Write {case} for what varies between cases.")
    return re.compile("".join(parts) + r"\Z")


def match_paths(pattern: str, paths: Iterable[str]) -> dict[str, str]:
    """Case → path for the scan files among `paths` that fit a pattern without a channel hole. Raises InputError where two fit one case."""
    return match_channels(pattern, paths).get("", {})


def match_channels(pattern: str, paths: Iterable[str]) -> dict[str, dict[str, str]]:
    """Channel → case → path for a pattern with a channel hole ("" is the only channel of a pattern without one).

    Raises InputError where two files fit one case and channel.
    """
    expression = compile_pattern(pattern)
    found: dict[str, dict[str, str]] = {}
    for path in paths:
        match = expression.match(path)
        if not match or not get_ending(path):
            continue
        files = found.setdefault(match.groupdict().get("channel") or "", {})
        if match["case"] in files:
            raise InputError(
                f"Two files fit '{pattern}' for case {match['case']}: {files[match['case']]} and {path}.",
                todo="Write a narrower pattern; where every object has a file of its own, name their folder: --labels '{case}/masks'",
            )
        files[match["case"]] = path
    return found


def match_folders(pattern: str, paths: Iterable[str]) -> dict[str, str]:
    """Case → folder for the folders that fit a pattern and hold scan files of `paths` themselves; for labels of one file per object."""
    expression = compile_pattern(pattern.rstrip("/"))
    found: dict[str, str] = {}
    for folder in dict.fromkeys(path.rpartition("/")[0] for path in paths if get_ending(path)):
        match = expression.match(folder)
        if not match:
            continue
        if match["case"] in found:
            raise InputError(f"Two folders fit '{pattern}' for case {match['case']}: {found[match['case']]} and {folder}.")
        found[match["case"]] = folder
    return found


def is_folder_pattern(pattern: str) -> bool:
    """Whether a pattern means folders: its last part has no ending of a scan.

    >>> is_folder_pattern("{case}/masks"), is_folder_pattern("masks/{case}.png"), is_folder_pattern("masks/{case}{ext}")
    (True, False, False)
    """
    return not pattern.endswith("{ext}") and not get_ending(pattern)


def fill_channel(pattern: str, channel: str) -> str:
    """The pattern of one channel."""
    return pattern.replace("{channel}", channel).replace("{number}", channel)


def get_file_part(pattern: str) -> str:
    """The pattern without its folders; the folder stays where the file name alone does not tell the case.

    >>> get_file_part("imagesTr/{case}_0000.nii.gz"), get_file_part("{case}/T1.nii.gz")
    ('{case}_0000.nii.gz', '{case}/T1.nii.gz')
    """
    parts = pattern.split("/")
    first = max(index for index, part in enumerate(parts) if "{case}" in part)
    return "/".join(parts[first:])


def split_pattern(pattern: str) -> tuple[Path, str]:
    """The folder before the first hole, and the rest of the pattern.

    >>> split_pattern("data/{case}/T1.nii.gz")  # doctest: +ELLIPSIS
    (...Path('data'), '{case}/T1.nii.gz')
    """
    parts = Path(pattern).parts
    first = next(index for index, part in enumerate(parts) if "{" in part or "*" in part)
    return Path(*parts[:first]), "/".join(parts[first:])
