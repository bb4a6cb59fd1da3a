"""Weights go by name: channels and classes may have other places, numbers and companions."""

import pytest
import torch
from builders import make_detection_spec, make_network_spec

from autoseg.networks.build import build_network, export_weights
from autoseg.training.transfer import HEADS, Names, copy_weights

FIRST = "encoder.0.0.0.weight"


def transfer(names: Names, source: Names, features=(4, 8), source_features=(4, 8)):
    """The weights before, of the source, and after; and what was said."""
    old = build_network(make_network_spec(features=source_features), len(source.channels), len(source.outputs), seed=1)
    network = build_network(make_network_spec(features=features), len(names.channels), len(names.outputs), seed=2)
    with torch.no_grad():
        for part in (old, network):
            for parameter in part.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    told = copy_weights(network, names, export_weights(old), source)
    return fresh, old.state_dict(), network.state_dict(), told


def test_equal_names_copy_everything():
    names = Names(("T1",), ("liver",))
    _, old, new, told = transfer(names, names)
    assert told.left == ()
    assert all(torch.equal(value, old[name]) for name, value in new.items())


def test_channels_go_by_name_and_new_ones_share_the_mean():
    _, old, new, told = transfer(Names(("FLAIR", "T2", "T1", "PD"), ("liver",)), Names(("T1", "T2"), ("liver",)))
    mean = old[FIRST].mean(dim=1)
    torch.testing.assert_close(new[FIRST][:, 0], mean / 2)
    torch.testing.assert_close(new[FIRST][:, 3], mean / 2)
    assert torch.equal(new[FIRST][:, 1], old[FIRST][:, 1])
    assert torch.equal(new[FIRST][:, 2], old[FIRST][:, 0])
    assert told.left == ()


def test_heads_go_by_class_and_new_ones_stay_fresh():
    fresh, old, new, told = transfer(Names(("T1",), ("tumour", "liver")), Names(("T1",), ("liver", "spleen")))
    for name in ("heads.0.weight", "heads.0.bias"):
        assert torch.equal(new[name][0], old[name][0])
        assert torch.equal(new[name][1], fresh[name][1])
        assert torch.equal(new[name][2], old[name][1])
    text = told.describe(Names(("T1", "FLAIR"), ("tumour", "liver")), Names(("T1",), ("liver", "spleen")))
    assert f"copied {len(new)} of {len(new)} tensors; channels T1 ← T1, FLAIR new; classes tumour new, liver ← liver" in text


def test_what_has_another_shape_stays_fresh_and_is_named():
    names = Names(("T1",), ("liver",))
    fresh, old, new, told = transfer(names, names, features=(4, 16))
    assert FIRST in told.copied
    assert "encoder.1.0.0.weight" in told.left
    assert torch.equal(new["encoder.1.0.0.weight"], fresh["encoder.1.0.0.weight"])
    assert sorted(told.copied + told.left) == sorted(new)
    assert "encoder.1.0.0.weight" in told.describe(names, names)
    assert all(torch.equal(new[name], old[name]) for name in told.copied)


@pytest.mark.parametrize("features", [(5, 7, 9)])
def test_nothing_fits_another_network(features):
    names = Names(("T1",), ("liver",))
    assert all(name.startswith(HEADS) for name in transfer(names, names, features=features)[3].copied)


def test_a_mask_rcnn_s_heads_go_by_class_too():
    """The box head has a row for the background, the mask head has none."""
    spec, detection = make_network_spec(2, (4, 8, 8)), make_detection_spec(2, (1, 2))
    names, source = Names(("T1",), ("tumour", "liver")), Names(("T1",), ("liver", "spleen", "bone"))
    old, network = build_network(spec, 1, 4, 1, detection), build_network(spec, 1, 3, 2, detection)
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    told = copy_weights(network, names, export_weights(old), source)
    assert told.left == ()
    classes, masks = "box_head.classes.weight", "mask_head.masks.weight"
    before, new = old.state_dict(), network.state_dict()
    assert torch.equal(new[classes][[0, 2]], before[classes][[0, 1]])
    assert torch.equal(new[classes][1], fresh[classes][1])
    assert torch.equal(new[masks][1], before[masks][0])
    assert torch.equal(new[masks][0], fresh[masks][0])
