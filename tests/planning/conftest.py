"""One way to describe a data set in a line, shared by the planning tests."""

import pytest

from autoseg.records.dataset import Case, Channel, ClassLabel, Dataset
from autoseg.records.fingerprint import CaseFingerprint, ChannelIntensities, ClassObjects, Fingerprint, Intensities

NOTHING = Intensities(count=0, mean=0.0, std=0.0, quantiles=())


@pytest.fixture(scope="session")
def describe():
    """(rows of (cases, spacing in mm, cropped shape), names of foreground classes, channels, uncropped shape) → dataset, fingerprint."""

    def make(rows, classes=("organ",), channels=("MRI",), shape=None, extent=30.0, foreground=NOTHING):
        described, measured = [], []
        for cases, spacing, cropped in rows:
            for _ in range(cases):
                name = f"case {len(described):04d}"
                objects = ClassObjects(
                    name=classes[0], voxels=9, volume=9.0, objects=1, object_volumes=(9.0,) * 5, object_extents=(extent,) * 5
                )
                described.append(Case(id=name, images=tuple(f"{name} {channel}.nii" for channel in channels)))
                measured.append(
                    CaseFingerprint(
                        case=name,
                        digest="",
                        shape=shape or cropped,
                        spacing=spacing,
                        orientation="LPS",
                        cropped_shape=cropped,
                        channels=tuple(ChannelIntensities(whole=NOTHING, foreground=foreground) for _ in channels),
                        classes=(objects,),
                    )
                )
        dataset = Dataset(
            root="/data",
            dimension=len(rows[0][1]),
            unit="mm",
            layout="paired",
            channels=tuple(Channel(name=channel, pattern=f"{{case}} {channel}.nii") for channel in channels),
            classes=tuple(ClassLabel(name=name, values=(number,)) for number, name in enumerate(classes, 1)),
            cases=tuple(described),
        )
        return dataset, Fingerprint(cases=tuple(measured))

    return make
