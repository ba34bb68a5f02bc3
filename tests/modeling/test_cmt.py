"""CMT: any size, checkpointing, what is refused.

Its outputs and names are compared with stored ones in tests/pretraining and tests/configs.
"""

import pytest
import torch
from golden_models import fill

from mimdet.modeling.backbone.cmt import CMT, CMTBlock

TINY = dict(stem_channels=8, embed_dims=(8, 16, 32, 64), depths=(1, 1, 2, 1), img_size=64)


def tiny(**changes) -> CMT:
    return fill(CMT(**(TINY | changes)))


def test_maps_have_the_strides_and_channels_that_are_declared():
    model = tiny(out_features=("c3", "c5")).eval()
    maps = model(torch.randn(2, 3, 64, 96))
    assert list(maps) == ["c3", "c5"]
    for name, spec in model.output_shape().items():
        size = (64 // spec.stride, 96 // spec.stride)
        assert maps[name].shape == (2, spec.channels, *size)


def test_position_tables_are_resized_for_images_of_another_size():
    model = tiny().eval()
    larger = tiny(img_size=128).eval()
    weights = model.state_dict()
    for name, table in larger.state_dict().items():
        if name.startswith("relative_pos_"):
            weights[name] = torch.nn.functional.interpolate(
                weights[name][None], size=table.shape[1:], mode="bicubic"
            )[0]
    larger.load_state_dict(weights)
    images = torch.randn(1, 3, 128, 128)
    torch.testing.assert_close(model(images)["c5"], larger(images)["c5"])


def test_checkpointing_changes_neither_gradients_nor_running_statistics():
    images = torch.randn(2, 3, 64, 64)
    models = [tiny(checkpointing=flag).train() for flag in (False, True)]
    for model in models:
        sum(x.square().mean() for x in model(images).values()).backward()
    plain, checkpointed = models
    for (name, expected), actual in zip(
        plain.named_parameters(), checkpointed.parameters(), strict=True
    ):
        torch.testing.assert_close(actual.grad, expected.grad, msg=name)
    for (name, expected), actual in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        torch.testing.assert_close(actual, expected, msg=name)


def test_drop_path_grows_to_its_full_rate():
    model = tiny(drop_path_rate=0.2)
    blocks = [m for m in model.modules() if isinstance(m, CMTBlock)]
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


def test_the_table_of_a_stage_has_the_keys_that_its_reduction_gives_even_with_a_rest():
    model = tiny(sr_ratios=(6, 3, 2, 1))  # maps of 16, 8, 4 and 2 cells a side
    assert model.relative_pos_a.shape == (1, 16 * 16, 2 * 2)
    assert model.relative_pos_b.shape == (2, 8 * 8, 2 * 2)
    model(torch.zeros(1, 3, 64, 64))


def test_size_that_is_no_multiple_of_32_is_refused():
    with pytest.raises(ValueError, match="img_size of CMT must be a multiple of 32, got 100"):
        CMT(img_size=100)
    with pytest.raises(ValueError, match="sides that are multiples of 32, got 64x80; pad them"):
        tiny()(torch.zeros(1, 3, 64, 80))


def test_unknown_output_is_refused():
    with pytest.raises(ValueError, match=r"among \['c2', 'c3', 'c4', 'c5'\], got \['c6'\]"):
        CMT(out_features=("c5", "c6"))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="num_heads must divide the width, got 3 heads for 8"):
        tiny(num_heads=(3, 2, 4, 8))
