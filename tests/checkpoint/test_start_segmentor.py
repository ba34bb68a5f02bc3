"""FastMIM's classifier and pretraining file into the segmentor's backbone."""

import math

import numpy as np
import pytest
import torch
from segmentation_models import arrays, fill_value, load

from mimdet.checkpoint.convert.match import resized_table
from mimdet.checkpoint.start import StartingWeights, load_starting_weights
from mimdet.modeling.backbone.beit import BEiTViT

CASES = load("loading.json.gz")
NEW = ["*.gamma_[12]", "*.relative_position_bias_table", "fpn[12].*"]  # as in the config


def saved(case: dict, folder) -> str:
    """The file of a case, by the fill rule."""
    tensors = {
        name: torch.from_numpy(fill_value(f"checkpoint.{name}", tuple(shape)))
        for name, shape in case["file_keys"]
    }
    torch.save({"model": tensors}, folder / "file.pth")
    return str(folder / "file.pth")


def backbone(case: dict) -> BEiTViT:
    a = case["arguments"]
    names = ("img_size", "embed_dim", "depth", "num_heads")
    # four maps need four blocks; two are enough for the case
    arguments = {name: a[name] for name in names} | {"depth": max(a["depth"], 4)}
    return BEiTViT(**arguments, out_indices=[0, 1, 2, 3], norm="BN")


@pytest.mark.parametrize("name", ["finetuned", "pretrained"])
def test_the_backbone_takes_what_the_released_one_takes(name, tmp_path, caplog):
    case = CASES[name]
    model = backbone(case)
    model.blocks = model.blocks[: case["arguments"]["depth"]]
    before = {n: x.clone() for n, x in model.state_dict().items()}
    with caplog.at_level("INFO"):
        load_starting_weights(
            model, [StartingWeights(saved(case, tmp_path), "", allow_missing=NEW)]
        )
    found = model.state_dict()
    expected = {
        n: row for n, row in case["result"].items() if not n.endswith("relative_position_index")
    }
    assert found.keys() - {"fpn1.1.num_batches_tracked"} == expected.keys() - {
        "fpn1.1.num_batches_tracked"
    }
    for key, (shape, origin, total, squares) in expected.items():
        value = found[key].double()
        assert list(value.shape) == shape, key
        if origin == "initial":
            assert torch.equal(found[key], before[key]), key
        if total is not None:
            assert value.sum().item() == pytest.approx(total, rel=1e-6, abs=1e-4), key
            assert value.square().sum().item() == pytest.approx(squares, rel=1e-6), key
    table = arrays("loading.npz")[f"{name}_pos_embed"]
    np.testing.assert_allclose(found["pos_embed"], table, atol=2e-5, rtol=2e-5)
    assert "pos_embed resized" in caplog.text


@pytest.mark.parametrize("mode", ["bicubic", "geometric"])
@pytest.mark.parametrize("old, new", [(4, 6), (6, 4), (14, 32)])
def test_relative_tables_keep_the_rows_of_the_class_token(old, new, mode):
    expected = torch.from_numpy(arrays("loading.npz")[f"table_{old}_to_{new}_{mode}"])
    heads = expected.shape[1]
    table = fill_value(f"table_{old}", ((2 * old - 1) ** 2 + 3, heads)) * np.float32(
        math.sqrt(heads)
    )
    name = "blocks.0.attn.relative_position_bias_table"
    found = resized_table(name, torch.from_numpy(table), torch.empty_like(expected), None, mode)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


def test_a_classifier_of_another_size_is_refused(tmp_path):
    case = CASES["finetuned"]
    file = saved(case, tmp_path)
    wider = BEiTViT(img_size=96, embed_dim=64, depth=4, num_heads=4, out_indices=[0, 1, 2, 3])
    wider.blocks = wider.blocks[:2]
    with pytest.raises(ValueError, match="the file is of another model size"):
        load_starting_weights(wider, [StartingWeights(file, "", allow_missing=NEW)])
    deeper = backbone(case)  # of four blocks, where the file has two
    with pytest.raises(ValueError, match="another architecture or depth"):
        load_starting_weights(deeper, [StartingWeights(file, "", allow_missing=NEW)])
