"""The ways in which people lay out scans and labels: a literal table of patterns."""

from dataclasses import dataclass

from autoseg.errors import InputError
from autoseg.io.patterns import fill_channel, is_folder_pattern, match_channels, match_folders, match_paths

LABEL_FOLDERS = ("labels", "masks", "label", "mask", "annotations", "segmentations", "groundtruth")
LABEL_SUFFIXES = (
    "_Annotation",
    "_annotation",
    "_anno",
    "_mask",
    "_Mask",
    "_seg",
    "_label",
    "_labels",
    "_segmentation",
    "_gt",
    "-mask",
    "-seg",
    "-label",
)
OBJECT_FOLDERS = ("masks", "mask", "labels", "instances", "objects")
LABEL_WORDS = ("seg", "mask", "label", "labels", "segmentation", "Segmentation", "ground_truth", "gt")


@dataclass(frozen=True)
class Layout:
    """A name, the images' pattern (with a channel hole where there are several), and the label's: a folder if every object has a file."""

    name: str
    images: str
    label: str


LAYOUTS = (
    Layout("nnunet", "imagesTr/{case}_{number}{ext}", "labelsTr/{case}{ext}"),
    Layout("decathlon", "imagesTr/{case}{ext}", "labelsTr/{case}{ext}"),
    *(
        Layout("two folders", f"{images}/{{case}}{{ext}}", f"{labels}/{{case}}{suffix}{{ext}}")
        for images in ("images", "image", "imgs", "scans")
        for labels in LABEL_FOLDERS
        for suffix in ("", *LABEL_SUFFIXES)
    ),
    *(Layout("label beside image", "{case}{ext}", f"{{case}}{suffix}{{ext}}") for suffix in LABEL_SUFFIXES),
    *(Layout("folder per case", "{case}/{case}_{channel}{ext}", f"{{case}}/{{case}}_{word}{{ext}}") for word in LABEL_WORDS),
    *(Layout("folder per case", "{case}/{channel}{ext}", f"{{case}}/{word}{{ext}}") for word in LABEL_WORDS),
    *(
        Layout("file per object", images, f"{{case}}/{folder}")
        for images in ("{case}/images/{case}{ext}", "{case}/image/{case}{ext}", "{case}/{case}{ext}", "{case}/image{ext}")
        for folder in OBJECT_FOLDERS
    ),
    *(
        Layout("file per object", f"{images}/{{case}}{{ext}}", f"{folder}/{{case}}")
        for images in ("images", "image")
        for folder in OBJECT_FOLDERS
    ),
)


@dataclass(frozen=True)
class Found:
    """A layout with the files that fit it: channel → pattern, channel → case → path, case → label path."""

    layout: str
    patterns: dict[str, str]
    images: dict[str, dict[str, str]]
    label_pattern: str
    labels: dict[str, str]

    def count_pairs(self) -> int:
        """Cases with a label and at least one image."""
        return len(set(self.labels) & {case for files in self.images.values() for case in files})


def fit_layout(layout: Layout, paths: list[str]) -> Found:
    """What of `paths` fits one layout; a file that fits the label pattern is never an image."""
    labels, rest = match_labels(layout.label, paths)
    images = match_channels(layout.images, rest)
    patterns = {channel: fill_channel(layout.images, channel) for channel in images}
    return Found(layout.name, patterns, images, layout.label, labels)


def match_labels(pattern: str, paths: list[str]) -> tuple[dict[str, str], list[str]]:
    """Case → label, a file or the folder of its objects' files, and the paths that belong to no label."""
    if is_folder_pattern(pattern):
        labels = match_folders(pattern, paths)
        folders = set(labels.values())
        return labels, [path for path in paths if path.rpartition("/")[0] not in folders]
    labels = match_paths(pattern, paths)
    taken = set(labels.values())
    return labels, [path for path in paths if path not in taken]


def recognise_layout(paths: list[str]) -> Found | None:
    """The layout that pairs most files, the first of the table on ties; None where none pairs any.

    Raises InputError where the only layouts that fit have two files for one case.
    """
    fits: list[Found] = []
    doubts: list[InputError] = []
    for layout in LAYOUTS:
        if _worth_trying(layout, paths):
            try:
                fits.append(fit_layout(layout, paths))
            except InputError as doubt:
                doubts.append(doubt)
    best = max(fits, key=Found.count_pairs, default=None)
    if best is not None and best.count_pairs():
        return best
    if doubts:
        raise doubts[0]
    return None


def _worth_trying(layout: Layout, paths: list[str]) -> bool:
    """False where the label pattern's fixed text occurs in no path: spares most of the table's expressions."""
    text = max(layout.label.replace("{ext}", "").replace("{case}", "\n").split("\n"), key=len)
    return any(text in path for path in paths)
