"""Devices, precisions and layouts."""

import pytest
import torch

from autoseg.errors import InputError
from autoseg.networks.devices import Compute, choose_device


def test_auto_is_the_best_device_there_is():
    available = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto") == available
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["tpu", "cuda"])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=f"'{name}' is not available") as caught:
        choose_device(name)
    assert "cpu" in caught.value.why


@pytest.mark.parametrize("ndim", [4, 5])
def test_channels_last_moves_channels_in_memory_and_changes_no_value(ndim):
    x = torch.randn(2, 3, *(4, 5, 6)[: ndim - 2])
    placed = Compute("cpu", channels_last=True).place(x)
    assert placed.stride(1) == 1
    assert torch.equal(placed, x)
    assert Compute("cpu").place(placed).is_contiguous()


def test_a_networks_convolutions_take_the_layout_and_give_the_same():
    network, x = torch.nn.Conv3d(2, 3, 3), torch.randn(1, 2, 4, 4, 4)
    expected = network(x)
    compute = Compute("cpu", channels_last=True)
    placed = compute.place_network(network)
    assert placed.weight.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(placed(compute.place(x)), expected)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_precision_is_that_of_the_convolutions(precision, dtype):
    with Compute("cpu", precision).autocast():
        assert torch.nn.Conv2d(1, 1, 1)(torch.randn(1, 1, 2, 2)).dtype == dtype
