"""An image in memory: its values and where they lie."""

from dataclasses import dataclass

import numpy as np

from autoseg.records.grid import Grid


@dataclass(frozen=True)
class Volume:
    """`array` is float32 (channel, z, y, x) or (channel, y, x) on `grid`, in canonical orientation; `stored` and `orientation` say how

    the file had it, so that a mask can be written on the scan's own grid. `unit` is "px" where the file knows no physical size.
    """

    array: np.ndarray
    grid: Grid
    stored: Grid
    orientation: str
    unit: str
