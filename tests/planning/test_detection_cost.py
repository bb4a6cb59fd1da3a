"""What a Mask R-CNN costs on paper, against the network that is built."""

from dataclasses import replace

import pytest
import torch
from instances_for_tests import make_instances, spread_boxes
from torch import nn

from autoseg.io.profiles import read_profile
from autoseg.planning.detection_cost import (
    Detector,
    Regions,
    count_detector_operations,
    count_detector_weights,
    count_training_regions,
    estimate_detector_prediction,
    estimate_detector_training,
    list_detector_convolutions,
)
from autoseg.planning.plan import Request, make_plan
from autoseg.records.machine import Machine

CPU = Machine(device="cpu", name="CPU", memory=16 * 10**9, cores=2, flops=120e9, flops_source="measured")
BUILT = "autoseg.networks.detector"


@pytest.fixture(scope="module", params=[2, 3])
def planned(request):
    """A small Mask R-CNN as it is planned, for images and for volumes of thick slices."""
    shape, spacing = ((96, 96), (1.0, 1.0)) if request.param == 2 else ((20, 64, 64), (3.0, 1.0, 1.0))
    data = make_instances([spread_boxes(shape, 12, (8, 30), spacing)] * 3, shape, spacing)
    configuration = make_plan(*data, read_profile("autoseg-cpu"), CPU, Request(minutes=10)).configurations[0]
    return Detector(configuration.network, configuration.detection, configuration.patch_size, channels=1, classes=2)


def build(planned):
    module = pytest.importorskip(BUILT, reason="the network of Mask R-CNN is not there")
    torch.manual_seed(0)
    return module.Detector(planned.network, planned.detection, planned.channels, planned.classes)


def test_weights_are_those_of_the_network_built(planned):
    assert count_detector_weights(planned) == sum(weights.numel() for weights in build(planned).parameters())


def test_operations_are_those_of_the_layers_run(planned):
    network, counted = build(planned), []

    def count(layer, inputs, answer):
        linear, transposed = isinstance(layer, nn.Linear), isinstance(layer, (nn.ConvTranspose2d, nn.ConvTranspose3d))
        kernel = 1 if linear or transposed else layer.weight[0, 0].numel()  # of a transposed one every output has one input
        counted.append(2.0 * kernel * inputs[0].shape[1] * answer.numel())

    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            layer.register_forward_hook(count)
    regions = count_training_regions(planned.detection)
    low, dimension = torch.zeros(regions.boxes, len(planned.patch)), len(planned.patch)
    boxes = torch.cat([low, low + 16.0], dim=1)
    with torch.no_grad():
        dense = network(torch.zeros(1, planned.channels, *planned.patch))
        network.classify(dense.features, boxes, torch.zeros(len(boxes), dtype=torch.long))
        network.draw_masks(dense.features, boxes[: regions.masks], torch.zeros(regions.masks, dtype=torch.long))
    assert dimension in (2, 3)
    assert count_detector_operations(planned) == pytest.approx(3 * sum(counted), rel=1e-6)


def test_bytes_grow_with_all_that_takes_memory(planned):
    plain = estimate_detector_training(planned, 2, "adamw", "fp32")
    assert estimate_detector_training(planned, 4, "adamw", "fp32") > 1.5 * plain
    assert estimate_detector_training(planned, 2, "sgd", "fp32") == plain - 4 * count_detector_weights(planned)
    assert estimate_detector_training(planned, 2, "adamw", "bf16") < 0.8 * plain
    assert estimate_detector_training(replace(planned, channels=3), 2, "adamw", "fp32") > plain
    larger = replace(planned, patch=tuple(2 * edge for edge in planned.patch))
    assert estimate_detector_training(larger, 2, "adamw", "fp32") > 2 * plain
    assert estimate_detector_prediction(larger, planned.patch) > estimate_detector_prediction(planned, planned.patch)
    assert estimate_detector_prediction(planned, larger.patch) > estimate_detector_prediction(planned, planned.patch)


def test_every_box_costs_the_same(planned):
    def sum_up(boxes, masks):
        layers = list_detector_convolutions(planned, Regions(boxes, masks))
        return sum(layer.kernel * layer.inputs * layer.outputs * layer.voxels for layer in layers)

    assert sum_up(20, 0) - sum_up(10, 0) == sum_up(10, 0) - sum_up(0, 0) > 0
    assert sum_up(0, 8) - sum_up(0, 4) == sum_up(0, 4) - sum_up(0, 0) > 0
