"""The R50 baselines against Detectron2's."""

import pickle

import pytest
import torch
from config_files import build_on_meta, load_stem

from detectron2.config import instantiate
from mimdet.checkpoint.strict import StrictCheckpointer

# config -> parameters and state-dict entries of Detectron2's own config of that detector
BASELINES = {
    "mask_rcnn_r50_fpn_1x": (44_343_216, 307),
    "retinanet_r50_fpn_1x": (37_915_572, 301),
    "cascade_mask_rcnn_r50_fpn_1x": (71_984_926, 323),
}


@pytest.mark.parametrize("stem", BASELINES)
def test_baseline_has_the_parameters_and_entries_of_detectron2s(stem):
    model = build_on_meta(load_stem(stem))
    count = sum(p.numel() for p in model.parameters())
    assert (count, len(model.state_dict())) == BASELINES[stem]
    frozen = {n.split(".")[2] for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"stem", "res2"}


@pytest.mark.parametrize("stem", BASELINES)
def test_baseline_starts_from_imagenet_weights_that_are_complete(stem, tmp_path):
    cfg = load_stem(stem)
    stages = cfg.model.backbone.bottom_up.stages
    stages.depth = 18  # the same names in a fraction of the memory
    del stages.stride_in_1x1  # which its blocks have not
    if "retinanet" in stem:
        cfg.model.backbone.top_block.in_channels = 512
    model = instantiate(cfg.model)
    prefix = "backbone.bottom_up."
    own = {n: torch.full_like(v, 0.5) for n, v in model.state_dict().items() if prefix in n}
    checkpointer = StrictCheckpointer(model, allow_missing=cfg.train.allow_missing)

    torch.save({"model": own}, tmp_path / "full_names.pth")
    checkpointer.load(str(tmp_path / "full_names.pth"))
    assert all((model.state_dict()[name] == 0.5).all() for name in own)

    short = {n.removeprefix(prefix): torch.full_like(v, 0.25).numpy() for n, v in own.items()}
    converted = {"model": short, "__author__": "torchvision", "matching_heuristics": True}
    (tmp_path / "R-18.pkl").write_bytes(pickle.dumps(converted))
    checkpointer.load(str(tmp_path / "R-18.pkl"))
    assert all((model.state_dict()[name] == 0.25).all() for name in own)

    del own["backbone.bottom_up.res3.0.conv1.weight"]
    torch.save({"model": own}, tmp_path / "incomplete.pth")
    with pytest.raises(ValueError, match="res3.0.conv1.weight"):
        checkpointer.load(str(tmp_path / "incomplete.pth"))


def test_baselines_train_for_90000_iterations_of_16_images():
    for stem in BASELINES:
        cfg = load_stem(stem)
        assert cfg.dataloader.train.total_batch_size == 16
        assert cfg.dataloader.train.mapper.use_instance_mask == ("mask" in stem)
        assert cfg.optimizer.lr == (0.01 if "retinanet" in stem else 0.02)
        schedule = instantiate(cfg.lr_multiplier)
        multipliers = [schedule(i / 90000) for i in (0, 1, 999, 1000, 60000, 80000)]
        assert multipliers == pytest.approx([0.001, 0.001999, 0.999001, 1, 0.1, 0.01], abs=1e-9)
