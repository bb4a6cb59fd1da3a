"""Made-up cells on the disk: what the demo of instance tasks and the benchmarks learn from."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from autoseg.arrays.phantoms import Balls, draw_balls
from autoseg.io.files import write_aside

SEED = 11
USUAL = Balls()


def make_cells(folder: Path, numbers: range, shape: tuple[int, ...], spacing: tuple[float, ...], balls: Balls = USUAL) -> None:
    """Writes images/cells_NNN and labels/cells_NNN, a case for each of `numbers`: PNG of 8 and 16 bits in 2D, NIfTI in 3D.

    A label holds the numbers of objects. The same every time; cases that are there are kept. Spacing in mm, array order; 1 in 2D.
    """
    ending = ".png" if len(shape) == 2 else ".nii.gz"
    for number in numbers:
        image_path, label_path = (folder / name / f"cells_{number:03d}{ending}" for name in ("images", "labels"))
        if image_path.is_file() and label_path.is_file():
            continue
        image, ids = draw_balls(np.random.default_rng((SEED, number)), shape, spacing, balls)
        grey = np.clip(np.rint(image * 200 + 30), 0, 255).astype(np.uint8)
        for path, array in ((image_path, grey), (label_path, ids.astype(np.uint16))):
            picture = sitk.GetImageFromArray(array)
            picture.SetSpacing(tuple(reversed(spacing)))
            with write_aside(path) as partial:
                sitk.WriteImage(picture, str(partial), useCompression=True)
