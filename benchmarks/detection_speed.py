"""Milliseconds of what Mask R-CNN does beside convolutions: NMS of 1,000 boxes, and RoIAlign of 512 boxes, 7x7x256 with 2 samples.

python benchmarks/detection_speed.py [CORES]

The boxes lie in heaps of ten as proposals do, or anywhere; the maps are those of a 512² image at strides 4 to 32. The table of all maps,
which every head of a step shares, is timed beside.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from machine import save

from autoseg.networks.roi_align import Regions, align_rois, flatten_maps
from autoseg.networks.suppression import suppress

EDGE, CHANNELS, STRIDES = 512, 256, (4, 8, 16, 32)
BOXES, REGIONS, BINS, SAMPLES = 1000, 512, (7, 7), 2
REPEATS = 30


def time_calls(call: Callable[[], object]) -> dict[str, float]:
    """Median and fastest of many calls in milliseconds; the first warms up."""
    call()
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return {"median_ms": 1000 * statistics.median(seconds), "fastest_ms": 1000 * min(seconds)}


def draw_boxes(count: int, generator: torch.Generator) -> torch.Tensor:
    low = torch.rand(count, 2, generator=generator) * (EDGE - 54)
    return torch.cat([low, low + 4 + torch.rand(count, 2, generator=generator) * 50], dim=1)


def measure_suppression(generator: torch.Generator) -> dict[str, dict[str, float]]:
    heaps = draw_boxes(BOXES // 10, generator).repeat_interleave(10, 0) + torch.randn(BOXES, 4, generator=generator) * 3
    scores = torch.rand(BOXES, generator=generator)
    problems = {"heaps": heaps, "anywhere": draw_boxes(BOXES, generator)}
    return {name: time_calls(lambda boxes=boxes: suppress(boxes, scores, 0.5)) for name, boxes in problems.items()}  # type: ignore[misc]


def measure_alignment(generator: torch.Generator) -> dict[str, dict[str, float]]:
    shapes = [(1, CHANNELS, EDGE // stride, EDGE // stride) for stride in STRIDES]
    maps = [torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last) for shape in shapes]
    strides = [(stride, stride) for stride in STRIDES]
    levels = torch.randint(0, len(STRIDES), (REGIONS,), generator=generator)
    regions = Regions(draw_boxes(REGIONS, generator), torch.zeros_like(levels), levels)
    leaves = [level.requires_grad_() for level in maps]
    flat = flatten_maps(leaves, strides)
    crops = align_rois(flat, regions, BINS, SAMPLES)
    upstream = torch.randn_like(crops)
    return {
        "table": time_calls(lambda: flatten_maps(leaves, strides)),
        "forward": time_calls(lambda: align_rois(flat, regions, BINS, SAMPLES)),
        "backward": time_calls(lambda: torch.autograd.grad(crops, flat.table, upstream, retain_graph=True)),
    }


def main() -> None:
    cores = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    torch.set_num_threads(cores)
    generator = torch.Generator().manual_seed(0)
    results = {"nms_1000": measure_suppression(generator), "roi_align_512x7x7x256": measure_alignment(generator)}
    save("detection_speed", {"threads": cores, "aims_ms": {"nms_1000": 20, "roi_align_512x7x7x256": 60}, **results})


if __name__ == "__main__":
    main()
