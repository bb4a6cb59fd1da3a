"""U-Nets of any strides: shapes, seeds, weights out and in."""

import msgspec
import numpy as np
import pytest
import torch
from builders import make_network_spec

from autoseg.errors import InputError
from autoseg.networks.build import build_network, export_weights, import_weights
from autoseg.records.plan import NetworkSpec

ANISOTROPIC = NetworkSpec(
    kind="plain",
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    features=(4, 6, 8),
    convolutions=(1, 2, 3),
    decoder_convolutions=(2, 1),
)


def make_residual(spec):
    """The same U-Net with residual blocks in its encoder."""
    return msgspec.structs.replace(spec, kind="residual_encoder", blocks=(1,) * len(spec.features), convolutions=())


SPECS = {
    "2d": (make_network_spec(2, (4, 8, 8)), (8, 12), [(8, 12), (4, 6)]),
    "3d": (make_network_spec(3), (4, 6, 8), [(4, 6, 8)]),
    "3d, anisotropic": (ANISOTROPIC, (4, 8, 12), [(4, 8, 12), (4, 4, 6)]),
    "residual 2d": (make_residual(make_network_spec(2, (4, 8, 8))), (8, 12), [(8, 12), (4, 6)]),
    "residual, anisotropic": (make_residual(ANISOTROPIC), (4, 8, 12), [(4, 8, 12), (4, 4, 6)]),
    "one stage": (make_network_spec(3, (4,)), (3, 4, 5), [(3, 4, 5)]),
}


@pytest.mark.parametrize("name", SPECS)
def test_logits_have_the_sizes_of_the_decoder_finest_first(name):
    spec, size, heads = SPECS[name]
    network, x = build_network(spec, 2, 3), torch.randn(2, 2, *size)
    network.train()
    assert [tuple(logits.shape) for logits in network(x)] == [(2, 3, *head) for head in heads]
    network.eval()
    assert [tuple(logits.shape) for logits in network(x)] == [(2, 3, *size)]


@pytest.mark.parametrize("name", SPECS)
def test_every_weight_gets_a_gradient(name):
    spec, size, _ = SPECS[name]
    network = build_network(spec, 1, 2)
    network.train()
    sum(logits.square().mean() for logits in network(torch.randn(1, 1, *size))).backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []


def test_the_same_seed_gives_the_same_weights_and_leaves_the_generator_alone():
    spec = make_network_spec()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (export_weights(build_network(spec, 1, 2, seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert any(not np.array_equal(one[name], other[name]) for name in one)


def test_the_exported_weights_make_another_network_the_same():
    spec, size, _ = SPECS["3d, anisotropic"]
    source, target = build_network(spec, 1, 2, 1).eval(), build_network(spec, 1, 2, 2).eval()
    weights = export_weights(source)
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in weights.values())
    import_weights(target, weights, "here")
    x = torch.randn(1, 1, *size)
    assert torch.equal(source(x)[0], target(x)[0])
    expected = target(x)[0]
    next(iter(weights.values()))[...] = 0
    assert torch.equal(target(x)[0], expected)


@pytest.mark.parametrize("change", ["classes", "channels", "missing", "more", "features"])
def test_wrong_weights_are_refused_with_the_first_that_differs(change):
    spec = make_network_spec()
    network = build_network(spec, 1, 2)
    before = export_weights(network)
    weights = dict(before)
    match change:
        case "classes":
            weights = export_weights(build_network(spec, 1, 3))
        case "channels":
            weights = export_weights(build_network(spec, 2, 2))
        case "features":
            weights = export_weights(build_network(msgspec.structs.replace(spec, features=(4, 6)), 1, 2))
        case "missing":
            weights.pop("heads.0.bias")
        case "more":
            weights["a.b"] = np.zeros(3, np.float32)
    with pytest.raises(InputError, match=r"model.safetensors does not hold") as caught:
        import_weights(network, weights, "model.safetensors")
    assert "expected" in caught.value.why
    assert all(np.array_equal(before[name], value) for name, value in export_weights(network).items())
