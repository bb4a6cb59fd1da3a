"""Reads scans into canonical volumes and writes masks back on the scan's own grid, through SimpleITK."""

import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from autoseg.arrays.labels import round_labels
from autoseg.arrays.volume import Volume
from autoseg.errors import InputError
from autoseg.io.files import write_aside
from autoseg.io.nifti import find_fault
from autoseg.records.dataset import Channel
from autoseg.records.grid import Grid

PIXEL_ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
NIFTI_ENDINGS = (".nii.gz", ".nii")
ENDINGS = (*NIFTI_ENDINGS, ".nrrd", ".mha", ".mhd", *PIXEL_ENDINGS)
CANONICAL = "LPS"  # axes point to the patient's Left, Posterior, Superior: DICOM's and ITK's world
GEOMETRY_TOLERANCE = 0.01  # of a voxel: header noise below this is not worth a word

sitk.ProcessObject.SetGlobalWarningDisplay(False)


def get_ending(name: str) -> str:
    """The scan ending of a file name in lower case, empty where it is none of ENDINGS.

    >>> get_ending("A.NII.gz"), get_ending("notes.txt")
    ('.nii.gz', '')
    """
    lower = name.lower()
    return next((ending for ending in ENDINGS if lower.endswith(ending)), "")


def strip_ending(name: str) -> str:
    """The file name without its scan ending."""
    return name[: len(name) - len(get_ending(name))]


def read_image(path: Path) -> sitk.Image:
    """Reads a file. Raises InputError with the file, its size and the reason."""
    reader = "NiftiImageIO" if path.name.lower().endswith(NIFTI_ENDINGS) else ""  # named, or ITK asks all its readers in turn
    try:
        image = sitk.ReadImage(str(path), imageIO=reader)
    except RuntimeError as error:
        if not path.exists():
            raise InputError(f"{path} does not exist.") from None
        raise _make_reading_error(path, _explain(str(error))) from None
    if image.HasMetaDataKey("vox_offset"):
        fault = find_fault(path, {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()})
        if fault:
            raise _make_reading_error(path, fault)
    return image


def _make_reading_error(path: Path, why: str) -> InputError:
    return InputError(f"{path} cannot be read ({path.stat().st_size} bytes).", why, todo="Copy the file again, or leave it out.")


def _explain(message: str) -> str:
    """The useful line of an ITK error: the last one, without the source file and the object's address."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return re.sub(r"^.*?ERROR: |\w+\(0x[0-9a-f]+\): ", "", lines[-1]) if lines else "The format is not recognised."


def split_components(image: sitk.Image) -> list[sitk.Image]:
    """The scalar images in a file: colour or vector components, or the volumes of a 4D file."""
    if image.GetDimension() == 4:
        size = list(image.GetSize())
        return [sitk.Extract(image, [*size[:3], 0], [0, 0, 0, index]) for index in range(size[3])]
    count = image.GetNumberOfComponentsPerPixel()
    if count == 1:
        return [image]
    return [sitk.VectorIndexSelectionCast(image, index) for index in range(count)]


def drop_repetition(components: list[sitk.Image]) -> list[sitk.Image]:
    """Colour components without the alpha channel (2 → 1, 4 → 3), and one of them where all are equal (grey stored as RGB)."""
    if components[0].GetDimension() == 2 and len(components) in (2, 4):
        components = components[:-1]
    if len(components) == 3:
        first = sitk.GetArrayViewFromImage(components[0])
        if all(np.array_equal(first, sitk.GetArrayViewFromImage(other)) for other in components[1:]):
            return components[:1]
    return components


def read_components(path: Path) -> list[sitk.Image]:
    """The scalar images in a file that differ: 1 for grey (also stored as RGB), 3 for colour, n for a 4D file."""
    return drop_repetition(split_components(read_image(path)))


def _grid_of(image: sitk.Image) -> Grid:
    return Grid(
        shape=tuple(reversed(image.GetSize())),
        spacing=tuple(reversed(image.GetSpacing())),
        origin=image.GetOrigin(),
        direction=image.GetDirection(),
    )


def _orientation_of(image: sitk.Image) -> str:
    if image.GetDimension() != 3:
        return ""
    return sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())


def _orient(image: sitk.Image, orientation: str) -> sitk.Image:
    """The image with its axes in the order and sense nearest to `orientation`; 2D images and "" stay as they are."""
    if image.GetDimension() != 3 or not orientation or _orientation_of(image) == orientation:
        return image
    return sitk.DICOMOrient(image, orientation)


def pick_component(components: list[sitk.Image], channel: Channel, path: Path) -> sitk.Image:
    """The component of a file that a channel means; a grey image serves for every colour. Raises InputError where it has another number."""
    if channel.component is None or len(components) == 1:
        if len(components) != 1:
            raise InputError(f"{path} has {len(components)} components, but channel '{channel.name}' is a grey image.")
        return components[0]
    if channel.component >= len(components):
        raise InputError(f"{path} has {len(components)} components, but channel '{channel.name}' is number {channel.component + 1}.")
    return components[channel.component]


def read_scan(paths: list[Path], channels: tuple[Channel, ...], orientation: str = CANONICAL) -> Volume:
    """Reads one file per channel into a float32 volume in canonical orientation ("stored" leaves it as it is).

    Raises InputError for unreadable files, for channels of different shapes, and for NaN or infinite values, naming the file.
    """
    files = {path: read_components(path) for path in dict.fromkeys(paths)}
    images = [(path, pick_component(files[path], channel, path)) for path, channel in zip(paths, channels, strict=True)]
    return make_volume(images, orientation, choose_unit(paths))


def choose_unit(paths: list[Path]) -> str:
    """ "px" where no file knows a physical size, else "mm"."""
    return "px" if all(get_ending(path.name) in PIXEL_ENDINGS for path in paths) else "mm"


def make_volume(images: list[tuple[Path, sitk.Image]], orientation: str, unit: str) -> Volume:
    """A volume of scalar ITK images, one per channel, each with the path to name in errors. Errors as in read_scan."""
    first_path, stored = images[0]
    for path, image in images:
        if image.GetSize() != stored.GetSize():
            raise InputError(f"{path} has {_size(image)} voxels, but {first_path} of the same case has {_size(stored)}.")
    oriented = [_orient(image, "" if orientation == "stored" else orientation) for _, image in images]
    array = np.stack([sitk.GetArrayFromImage(image).astype(np.float32) for image in oriented])
    for (path, _), channel in zip(images, array):
        bad = int((~np.isfinite(channel)).sum())
        if bad:
            raise InputError(f"{path} holds {bad} NaN or infinite values.", todo="Replace them, or leave the case out.")
    return Volume(array, _grid_of(oriented[0]), _grid_of(stored), _orientation_of(stored), unit)


def make_volume_of_array(array: np.ndarray, spacing: tuple[float, ...]) -> Volume:
    """A volume of an array (channel, …) with its spacing (mm, array order), taken as canonical."""
    dimension = array.ndim - 1
    direction = tuple(float(value) for value in np.eye(dimension).ravel())
    grid = Grid(shape=array.shape[1:], spacing=spacing, origin=(0.0,) * dimension, direction=direction)
    return Volume(array.astype(np.float32), grid, grid, CANONICAL if dimension == 3 else "", "mm")


def _size(image: sitk.Image) -> str:
    return "x".join(str(edge) for edge in image.GetSize())


def read_label(path: Path, orientation: str = CANONICAL) -> tuple[np.ndarray, Grid]:
    """Reads a label map as int32 in canonical orientation, and the grid that its file says it lies on.

    Masks stored as grey RGB(A) are read as grey. Raises InputError for colours and for values that are not integers.
    """
    components = read_components(path)
    if len(components) != 1:
        raise InputError(f"{path} is a colour image, not a label map.", f"It has {len(components)} different components.")
    image = components[0]
    try:
        values = round_labels(sitk.GetArrayFromImage(_orient(image, "" if orientation == "stored" else orientation)))
    except ValueError as error:
        raise InputError(f"{path}: {error}.") from None
    return values, _grid_of(image)


def orient_spacing(grid: Grid) -> tuple[float, ...]:
    """The spacing of a stored grid along the axes that read_label turns its values to, canonical array order."""
    return _orient_axes(grid)[0]


def _orient_axes(grid: Grid) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Spacing (array order) and direction of a stored grid whose axes are turned to the canonical ones."""
    image = sitk.Image([1] * len(grid.spacing), sitk.sitkUInt8)
    image.SetSpacing(tuple(reversed(grid.spacing)))
    image.SetDirection(grid.direction)
    turned = _orient(image, CANONICAL)
    return tuple(reversed(turned.GetSpacing())), turned.GetDirection()


def read_mask(path: Path, orientation: str = CANONICAL) -> tuple[np.ndarray, Grid]:
    """Where any component of a file but its alpha channel is not 0: bool in canonical orientation, and the grid that its file says."""
    components = read_components(path)
    parts = [sitk.GetArrayFromImage(_orient(image, "" if orientation == "stored" else orientation)) != 0 for image in components]
    return np.logical_or.reduce(parts), _grid_of(components[0])


def describe_grid_mismatch(image: Grid, label: Grid) -> str:
    """In words, how two stored grids of equal shape disagree by more than 1 % of a voxel; empty where they agree."""
    found = []
    smallest = min(image.spacing)
    if any(abs(a - b) > GEOMETRY_TOLERANCE * smallest for a, b in zip(image.spacing, label.spacing)):
        found.append(f"spacing {format_numbers(image.spacing)} and {format_numbers(label.spacing)}")
    if any(abs(a - b) > GEOMETRY_TOLERANCE * smallest for a, b in zip(image.origin, label.origin)):
        found.append(f"origin {format_numbers(image.origin)} and {format_numbers(label.origin)}")
    if any(abs(a - b) * max(image.shape) > 1 for a, b in zip(image.direction, label.direction)):
        found.append("direction")
    return ", ".join(found)


def describe_other_place(one: Grid, other: Grid) -> str:
    """In words, how two stored grids lie apart once both are turned as read_label turns them; empty where they agree.

    Both have one shape then. Centres are compared, which turning does not move; tolerance as for `describe_grid_mismatch`.
    """
    found = []
    (spacing, direction), (other_spacing, other_direction) = (_orient_axes(grid) for grid in (one, other))
    if any(abs(a - b) > GEOMETRY_TOLERANCE * min(spacing) for a, b in zip(spacing, other_spacing)):
        found.append(f"spacing {format_numbers(spacing)} and {format_numbers(other_spacing)}")
    if any(abs(a - b) * max(one.shape) > 1 for a, b in zip(direction, other_direction)):
        found.append("direction")
    apart = float(np.linalg.norm(_find_centre(one) - _find_centre(other)))
    if not found and apart > GEOMETRY_TOLERANCE * min(spacing):
        found.append(f"centres {apart:.3g} mm apart")
    return ", ".join(found)


def _find_centre(grid: Grid) -> np.ndarray:
    """The world position of the middle of all voxels, (x, y, z)."""
    steps = (np.array(grid.shape[::-1]) - 1) / 2 * grid.spacing[::-1]
    return np.array(grid.origin) + np.reshape(grid.direction, (len(steps), -1)) @ steps


def format_numbers(values: tuple[float, ...]) -> str:
    return "x".join(f"{value:.4g}" for value in values)


def get_mask_name(case: str, scan: Path) -> str:
    """The file that a case's mask is written to: the scan's own ending, PNG for JPEG (which would blur it).

    >>> get_mask_name("A", Path("A.jpg"))
    'A.png'
    """
    ending = get_ending(scan.name)
    return case + (".png" if ending in (".jpg", ".jpeg", ".bmp") else ".nii.gz" if ending in (".mhd", "") else ending)


def get_probabilities_name(case: str) -> str:
    """The file beside a case's mask that holds its probabilities on the scan's grid."""
    return f"{case}_probabilities.nii.gz"


def restore_image(array: np.ndarray, volume: Volume, vector: bool = False) -> sitk.Image:
    """An ITK image of a canonical array on the scan's own grid: re-oriented, geometry copied to the last bit."""
    image = sitk.GetImageFromArray(array, isVector=vector)
    image.SetOrigin(volume.grid.origin)
    image.SetSpacing(tuple(reversed(volume.grid.spacing)))
    image.SetDirection(volume.grid.direction)
    image = _orient(image, volume.orientation)
    if tuple(reversed(image.GetSize())) != volume.stored.shape:
        raise AssertionError(f"orientation {volume.orientation} did not lead back to {volume.stored.shape}")
    image.SetOrigin(volume.stored.origin)
    image.SetSpacing(tuple(reversed(volume.stored.spacing)))
    image.SetDirection(volume.stored.direction)
    return image


def find_turn(volume: Volume) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """How the file's array comes from the canonical one: per axis the canonical axis that it runs along, and whether backwards."""
    dimension = len(volume.grid.shape)
    canonical, stored = (np.array(grid.direction).reshape(dimension, dimension) for grid in (volume.grid, volume.stored))
    agreement = (canonical.T @ stored)[::-1, ::-1]  # array order: canonical axis, stored axis
    order = np.abs(agreement).argmax(axis=0)
    return tuple(int(axis) for axis in order), tuple(bool(agreement[axis, k] < 0) for k, axis in enumerate(order))


def write_mask(mask: np.ndarray, volume: Volume, path: Path) -> None:
    """Writes a canonical label map on the grid of the scan that `volume` was read from; whole or not at all.

    The file is read back before it takes its name: ITK does not report every full disk.
    """
    image = restore_image(mask, volume)
    with write_aside(path) as partial:
        _write(image, partial)
        if not np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(partial))), sitk.GetArrayViewFromImage(image)):
            raise OSError(28, "the mask read back differs from the mask written")


def _write(image: sitk.Image, path: Path) -> None:
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise OSError(28, _explain(str(error))) from error


def write_probabilities(probabilities: np.ndarray, volume: Volume, path: Path) -> None:
    """Writes class probabilities (class, …; canonical) as one vector image on the scan's grid, float32 NIfTI."""
    channels_last = np.ascontiguousarray(np.moveaxis(probabilities.astype(np.float32), 0, -1))
    with write_aside(path) as partial:
        _write(restore_image(channels_last, volume, vector=True), partial)


def read_probabilities(path: Path) -> np.ndarray:
    """What write_probabilities wrote: (class, …) as the file has its axes, float32."""
    return np.stack([sitk.GetArrayFromImage(component) for component in split_components(read_image(path))]).astype(np.float32)
