"""The picture of a result: slices of a scan with the outlines of its masks, or of its objects, in true proportions."""

from io import BytesIO

import numpy as np
from matplotlib.figure import Figure

from autoseg.report.outlines import find_busiest, paint_outlines

PANEL = 5.0  # inches: width of a panel of objects
COLOURS = ("tab:red", "tab:cyan", "tab:orange", "tab:green", "tab:purple", "tab:pink", "tab:olive", "tab:brown")


def choose_slices(label: np.ndarray) -> list[tuple[int, int]]:
    """For each axis of a label map the slice with most foreground, the middle one where there is none: (axis, index)."""
    if label.ndim == 2:
        return [(0, 0)]
    chosen = []
    for axis in range(3):
        areas = (label > 0).sum(axis=tuple(other for other in range(3) if other != axis))
        chosen.append((axis, int(areas.argmax()) if areas.any() else label.shape[axis] // 2))
    return chosen


def draw_overlay(image: np.ndarray, masks: dict[str, np.ndarray], spacing: tuple[float, ...], names: tuple[str, ...], title: str) -> bytes:
    """A PNG: one row per mask (name → class numbers, on the image's voxels), one column per axis. image (z, y, x) or (y, x)."""
    reference = next(iter(masks.values()))
    slices = choose_slices(reference)
    figure = Figure(figsize=(3.4 * len(slices), 3.4 * len(masks) + 0.6), layout="constrained")
    axes = figure.subplots(len(masks), len(slices), squeeze=False)
    low, high = np.quantile(image, (0.005, 0.995))
    for row, (mask_name, mask) in zip(axes, masks.items()):
        for place, (axis, index) in zip(row, slices):
            flat = image if image.ndim == 2 else np.take(image, index, axis=axis)
            outline = mask if mask.ndim == 2 else np.take(mask, index, axis=axis)
            steps = spacing if image.ndim == 2 else tuple(step for other, step in enumerate(spacing) if other != axis)
            place.imshow(flat, cmap="gray", vmin=low, vmax=high, aspect=steps[0] / steps[1], origin="upper" if image.ndim == 2 else "lower")
            for number in range(1, len(names) + 1):
                if (outline == number).any():
                    place.contour(outline == number, levels=[0.5], colors=COLOURS[(number - 1) % len(COLOURS)], linewidths=1.2)
            place.set_axis_off()
        row[0].set_title(mask_name, loc="left", fontsize=10)
    handles = [figure.gca().plot([], [], color=COLOURS[i % len(COLOURS)], label=name)[0] for i, name in enumerate(names[:12])]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), fontsize=9)
    return _save(figure, title)


def draw_objects(image: np.ndarray, maps: dict[str, np.ndarray], spacing: tuple[float, ...], title: str) -> bytes:
    """A PNG: one column per map (name → numbers of objects, on the image's voxels), each with the outlines of its own objects.

    image (channel, y, x), or (channel, z, y, x), of which the slices that cut most objects of the first map are shown.
    """
    places = find_busiest(next(iter(maps.values())))
    panels = {name: paint_outlines(image, ids, spacing, places) for name, ids in maps.items()}
    height, width = next(iter(panels.values())).shape[:2]
    figure = Figure(figsize=(PANEL * len(panels), PANEL * height / width + 0.6), layout="constrained")
    for place, (name, panel) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        place.imshow(panel)
        place.set_title(f"{name}: {np.count_nonzero(np.bincount(maps[name].ravel())[1:])} objects", loc="left", fontsize=10)
        place.set_axis_off()
    return _save(figure, title)


def _save(figure: Figure, title: str) -> bytes:
    figure.suptitle(title, fontsize=11)
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()
