"""Files of pretraining for others: which weights they hold, by which names."""

import pytest
import torch
from golden_models import load
from pretraining_models import tiny_fastmim, tiny_mae

from mimdet.checkpoint.export import encoder_weights, full_weights
from mimdet.pretraining.mae import ViTEncoder

CASES = load("pretraining/fastmim_tiny.json.gz")


def test_the_full_file_has_the_weights_of_the_model():
    model = tiny_mae()
    weights = full_weights({"model": model.state_dict(), "trainer": {"iteration": 3}})
    tiny_mae().load_state_dict(weights)  # every name, and no other


def test_the_encoder_of_mae_is_what_public_encoder_files_have():
    weights = encoder_weights(tiny_mae().state_dict())
    assert {name.split(".")[0] for name in weights} == {
        *("cls_token", "pos_embed", "patch_embed", "blocks", "norm")
    }
    ViTEncoder(img_size=64, embed_dim=48, depth=2, num_heads=4).load_state_dict(weights)


@pytest.mark.parametrize("name", ["swin_hog_block32", "pvtv2_hog_block32"])
def test_the_encoder_of_fastmim_has_the_names_of_timm(name):
    model = tiny_fastmim(CASES[name]["arch"], CASES[name]["config"])
    model.encoder.model.load_state_dict(encoder_weights(model.state_dict()))


def test_the_encoder_of_fastmim_cmt_has_the_names_of_the_backbone():
    case = CASES["cmt_hog_block32"]
    model = tiny_fastmim("cmt", case["config"])
    model.encoder.load_state_dict(encoder_weights(model.state_dict()))


def test_averaged_weights_come_from_the_hook():
    model, average = tiny_mae().state_dict(), tiny_mae().state_dict()
    checkpoint = {"model": model, "trainer": {"hooks": {"EMA": average}}}
    assert torch.equal(full_weights(checkpoint)["cls_token"], model["cls_token"])
    assert torch.equal(full_weights(checkpoint, averaged=True)["cls_token"], average["cls_token"])


def test_averaged_weights_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="no averaged weights: the run had no train.ema.decay"):
        full_weights({"model": tiny_mae().state_dict(), "trainer": {"iteration": 3}}, averaged=True)


@pytest.mark.parametrize("content", [{"model": {"fc.weight": torch.ones(1)}}, {"other": 1}])
def test_a_checkpoint_of_something_else_is_refused(content):
    with pytest.raises(ValueError, match="a checkpoint of pretraining must be given"):
        full_weights(content)
