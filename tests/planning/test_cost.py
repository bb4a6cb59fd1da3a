"""Feature maps, operations and weights of residual encoders; nnU-Net's own count of both kinds."""

import msgspec
import pytest

from autoseg.planning.cost import count_operations, count_reference_elements, count_weights
from autoseg.records.plan import NetworkSpec

TINY = NetworkSpec(
    kind="residual_encoder",
    strides=((1, 1), (2, 2), (1, 2)),
    kernel_sizes=((3, 3), (1, 3), (3, 3)),
    features=(4, 8, 8),
    blocks=(1, 2, 1),
    decoder_convolutions=(1, 1),
)


@pytest.mark.parametrize(
    ("kind", "patch", "poolings", "elements"),
    [
        ("plain", (128,) * 3, 5, 452_796_416),
        ("residual_encoder", (128,) * 3, 5, 557_420_544),
        ("plain", (512,) * 2, 6, 82_771_968),
        ("residual_encoder", (512,) * 2, 6, 129_531_904),
    ],
)
def test_reference_elements_are_those_of_the_reference(kind, patch, poolings, elements):
    dimension, stages = len(patch), poolings + 1
    limit = 512 if dimension == 2 else 320
    network = NetworkSpec(
        kind=kind,
        strides=((1,) * dimension,) + ((2,) * dimension,) * poolings,
        kernel_sizes=((3,) * dimension,) * stages,
        features=tuple(min(32 * 2**stage, limit) for stage in range(stages)),
        convolutions=(2,) * stages if kind == "plain" else (),
        blocks=(1, 3, 4, 6, 6, 6, 6)[:stages] if kind == "residual_encoder" else (),
        decoder_convolutions=(2 if kind == "plain" else 1,) * poolings,
    )
    assert count_reference_elements(network, patch, 3) == elements


def test_reference_elements_count_a_shortcut_where_a_stage_only_pools():
    """8 × 8, 4 × 4 and 4 × 2 pixels; stem, two maps a block, one per changing stage; decoder: transposed and one convolution."""
    encoder = (1 + 2) * 4 * 64 + (4 + 1) * 8 * 16 + (2 + 1) * 8 * 8
    assert count_reference_elements(TINY, (8, 8), 3) == encoder + 2 * 4 * 64 + 2 * 8 * 16 + 3 * 64


def test_operations_of_a_tiny_network_are_those_counted_by_hand():
    """2 channels, 3 classes; a shortcut has a convolution only where the channels change."""
    encoder = 9 * 64 * (2 * 4 + 4 * 4 + 4 * 4) + 16 * (4 * 8 + 3 * (4 * 8 + 3 * 8 * 8)) + 8 * 9 * 2 * 8 * 8
    middle = 16 * (8 * 8 + 3 * 16 * 8 + 8 * 3)
    finest = 64 * (8 * 4 + 9 * 8 * 4 + 4 * 3)
    assert count_operations(TINY, (8, 8), 2, 3) == 3 * 2 * (encoder + middle + finest)


def test_weights_of_a_tiny_network_are_those_counted_by_hand():
    first = 9 * (2 * 4 + 2 * 4 * 4) + 3 * 2 * 4
    second = 4 * 8 + 3 * (4 * 8 + 3 * 8 * 8) + 5 * 2 * 8
    third = 9 * 2 * 8 * 8 + 2 * 2 * 8
    middle = (2 * 8 * 8 + 8) + (3 * 16 * 8 + 2 * 8) + (8 * 3 + 3)
    finest = (4 * 8 * 4 + 4) + (9 * 8 * 4 + 2 * 4) + (4 * 3 + 3)
    assert count_weights(TINY, 2, 3) == first + second + third + middle + finest


def test_prelu_adds_a_slope_per_channel_behind_every_norm_but_those_of_shortcuts():
    learned = count_weights(msgspec.structs.replace(TINY, activation="prelu"), 2, 3) - count_weights(TINY, 2, 3)
    assert learned == 3 * 4 + 4 * 8 + 2 * 8 + 8 + 4
