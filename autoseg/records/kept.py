"""What lies beside the kept probabilities of a validation case."""

from typing import Literal

from autoseg.records.base import SavedRecord
from autoseg.records.dataset import ClassLabel
from autoseg.records.prepared import Geometry


class KeptProbabilities(SavedRecord, frozen=True, kw_only=True):
    """`CASE_probabilities.json`: all that leads from `CASE_probabilities.b2nd` back to the grid of the mask beside it.

    The array (class or region, …; uint8 of 255, without the background) lies on the network's own grid: axes as `axes` transposes them,
    voxels of `target` mm. `spacing` (mm) is the scan's own, transposed likewise. The mask whose digest this is was made of the same answer.
    """

    case: str
    configuration: str
    geometry: Geometry
    spacing: tuple[float, ...]
    target: tuple[float, ...]
    axes: tuple[int, ...]
    orientation: Literal["LPS", "stored"]
    classes: tuple[ClassLabel, ...]
    background_value: int
    mask_digest: str
