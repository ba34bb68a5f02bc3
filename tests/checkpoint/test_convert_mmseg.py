"""FastMIM's segmentors in mmsegmentation's names: there and back, and into a model."""

import logging

import pytest
import torch
from segmentation_models import build, fill, fill_value, load, published_name
from toy_runs import load_script

from mimdet.checkpoint.convert import detect_source
from mimdet.checkpoint.convert.mmseg import from_native, to_native
from mimdet.checkpoint.file import read_checkpoint
from mimdet.checkpoint.identity import START, WHOLE, identify
from mimdet.checkpoint.strict import StrictCheckpointer
from mimdet.layers.rel_pos import joint_index_with_class

TINY = load("keys_tiny_square.json.gz")["config"]


def released() -> dict[str, torch.Tensor]:
    """All names of the released ViT-B, with few numbers in each but its tables."""
    file = {}
    for name, shape, dtype, _ in load("keys_vit_base_upernet.json.gz")["state_dict"]:
        if name.endswith("relative_position_index"):
            file[name] = joint_index_with_class((32, 32))
        elif name.endswith("relative_position_bias_table"):
            file[name] = torch.zeros(shape)
        else:
            small = [min(n, 3) for n in shape]
            x = torch.from_numpy(fill_value(name, tuple(small))) if small else torch.zeros(())
            file[name] = x.to(getattr(torch, dtype))
    return file


def test_there_and_back_gives_the_same_bits_and_the_index_again():
    theirs = released()
    ours = to_native(theirs)
    with torch.device("meta"):
        names = build({}).state_dict().keys()
    assert ours.keys() == names
    assert {name: published_name(name) for name in ours}.items() <= {
        (name, published_name(name)) for name in names
    }
    back = from_native(ours)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], value) for name, value in theirs.items())


def test_a_file_for_inference_may_lack_the_auxiliary_head():
    theirs = {n: x for n, x in released().items() if not n.startswith("auxiliary_head.")}
    assert from_native(to_native(theirs)).keys() == theirs.keys()
    assert detect_source(theirs).name == "mmseg"


def test_names_without_a_row_are_an_error():
    theirs = released() | {"backbone.blocks.0.attn.q_bias": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"1 have none: backbone\.blocks\.0\.attn\.q_bias"):
        to_native(theirs)
    with pytest.raises(ValueError, match=r"1 have none: roi_heads\.x"):
        from_native({"roi_heads.x": torch.zeros(3)})


@pytest.mark.parametrize("rows", [4, 24, 27])
def test_a_table_of_no_square_map_has_no_way_back(rows):
    name = "backbone.blocks.0.attn.relative_position_bias_table"
    if rows == 4:  # a map of one token, which is one
        assert from_native({name: torch.zeros(rows, 2)})[name].shape == (4, 2)
        return
    with pytest.raises(ValueError, match=rf"square map of h x h tokens, got {rows}"):
        from_native({name: torch.zeros(rows, 2)})


def test_the_tool_writes_their_file_and_ours(tmp_path, capsys):
    main = load_script("tools/convert_checkpoint.py").main
    theirs, ours, again = (tmp_path / name for name in ("mmseg.pth", "ours.pth", "again.pth"))
    file = released()
    torch.save({"meta": {"CLASSES": ("wall",)}, "state_dict": file, "optimizer": {}}, theirs)
    main([str(theirs), str(ours)])
    main([str(ours), str(again), "--to", "mmseg"])
    assert "mmseg" in capsys.readouterr().out
    found = read_checkpoint(str(again), "test")["state_dict"]
    assert found.keys() == file.keys()
    assert all(torch.equal(found[name], value) for name, value in file.items())


def save_theirs(path, img_size: int) -> dict[str, torch.Tensor]:
    """A filled tiny model in a file of theirs."""
    model = fill(build(TINY | {"img_size": img_size}))
    file = from_native(model.state_dict())
    torch.save({"meta": {}, "state_dict": file}, path)
    return model.state_dict()


def test_a_file_of_theirs_loads_into_the_model(tmp_path):
    expected = save_theirs(tmp_path / "mmseg.pth", 64)
    model = build(TINY | {"img_size": 64})
    StrictCheckpointer(model).load(str(tmp_path / "mmseg.pth"))
    found = model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_tables_of_another_crop_are_resized_and_told(tmp_path, caplog):
    expected = save_theirs(tmp_path / "mmseg.pth", 64)
    model = build(TINY | {"img_size": 96})
    with caplog.at_level(logging.INFO):
        StrictCheckpointer(model).load(str(tmp_path / "mmseg.pth"))
    assert (
        "backbone.pos_embed is resized to the model's grid: 17 slots of the checkpoint to 37"
        in (caplog.text)
    )
    table = "backbone.blocks.0.attn.relative_position_bias_table"
    assert f"{table} is resized to the model's grid: 52 slots of the checkpoint to 124" in (
        caplog.text
    )
    found = model.state_dict()
    assert torch.equal(found[table][-3:], expected[table][-3:])
    assert torch.equal(found["backbone.cls_token"], expected["backbone.cls_token"])
    # what the smaller model computes by resizing as it runs
    image = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    small = fill(build(TINY | {"img_size": 64})).eval()
    with torch.no_grad():
        for ours, theirs in zip(
            model.eval().backbone(image).values(), small.backbone(image).values(), strict=True
        ):
            torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)


def test_files_of_segmentors_are_recognised_by_their_names():
    theirs = released()
    identity = identify(theirs)
    assert identity.kind == "mmseg_upernet" and identity.keys == (WHOLE,)
    with torch.device("meta"):
        identity = identify(build({}).state_dict())
    assert identity.kind == "upernet" and START not in identity.keys
    assert "width 768, 150 classes" in identity.what
    assert identity.config == "configs/fastmim/upernet_vit_base_ade20k_160k.py"
