"""How objects are told apart: Mask R-CNN in numbers, and the limits that turn its answers, or a boundary network's, into objects."""

from autoseg.records.base import Record


class DetectionSpec(Record, frozen=True, kw_only=True):
    """Mask R-CNN (He 2017, arXiv 1703.06870) on the encoder of a NetworkSpec. Sides in voxels at the configuration's spacing, one per axis.

    `levels` are the encoder's stages whose maps, brought to `pyramid_features` channels (Lin 2017, arXiv 1612.03144), carry the heads, the
    finest first; `anchors` the shapes at each of them. An anchor is positive from an IoU of `anchor_positive` on, and negative below
    `anchor_negative`; `anchor_samples` of them per patch are trained. `proposals_per_level` are kept before and `proposals` after NMS
    (at `proposal_nms`), in training and in prediction. `box_samples` proposals per patch train the box head, positive from
    `box_positive`, negative below `box_negative`; `mask_samples` of the positive ones the mask head. `box_bins` and `mask_bins` are what
    RoIAlign gives each head; the mask is 2^`mask_upsampling` times as fine. `detections` is the most that one tile may give.
    """

    levels: tuple[int, ...]
    pyramid_features: int
    anchors: tuple[tuple[tuple[float, ...], ...], ...]
    anchor_positive: float
    anchor_negative: float
    anchor_samples: int
    proposals_per_level: tuple[int, int]
    proposals: tuple[int, int]
    proposal_nms: float
    box_positive: float
    box_negative: float
    box_samples: int
    box_bins: tuple[int, ...]
    box_features: int
    mask_samples: int
    mask_bins: tuple[int, ...]
    mask_features: int
    mask_convolutions: int
    mask_upsampling: int = 1
    detections: int


class Thresholds(Record, frozen=True, kw_only=True):
    """From answers to objects; chosen on validation images and kept in the model.

    `score` is the least that an object needs (for a boundary network the mean probability over its voxels; for Mask R-CNN that of its
    class, times the square of the mean probability over its voxels), `nms` the IoU beyond which the
    weaker of two is dropped (`by_mask`: of masks, else of boxes), `mask` the probability from which a voxel belongs to an object (to
    any object, for a boundary network), `seed` the probability of the inside from which a boundary network's objects grow, and
    `smallest` the least number of voxels at the configuration's spacing.
    """

    score: float = 0.5
    nms: float = 0.5
    by_mask: bool = False
    mask: float = 0.5
    seed: float = 0.5
    smallest: float = 0.0
