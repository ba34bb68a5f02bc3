"""Files that a config names are told from names and shapes before anything is built."""

import pytest
import torch
from toy_runs import CONFIG, REPOSITORY

from detectron2.config import instantiate
from mimdet.config import load_config
from mimdet.engine.check_checkpoints import check_checkpoints
from mimdet.engine.preflight import preflight

MIMDET = str(CONFIG)
MAE = str(REPOSITORY / "configs/toy/mae_vit_toy.py")
VITDET = str(REPOSITORY / "configs/toy/vitdet_mask_rcnn_toy.py")
MPVIT = str(REPOSITORY / "configs/toy/mask_rcnn_mpvit_tiny_toy.py")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Checkpoints by what they are."""
    folder = tmp_path_factory.mktemp("files")
    contents = {"mae": weights(MAE), "mimdet": weights(MIMDET), "vitdet": weights(VITDET)}
    contents["encoder"] = {n: t for n, t in contents["mae"].items() if "decoder" not in n}
    del contents["encoder"]["mask_token"]
    contents["fastmim"] = {
        "blocks.0.attn.qkv.weight": torch.ones(3, 1),
        "mask_token": torch.ones(1, 3, 1, 1),
        "decoder_pred.bias": torch.ones(1),
    }
    contents["dinov2"] = {**contents["encoder"], "blocks.0.ls1.gamma": torch.ones(1)}
    contents["mpvit_classifier"] = {"mhca_stages.0.mhca_blks.0.cpe.proj.weight": torch.ones(1)}
    for name, content in contents.items():
        torch.save({"model": content}, folder / f"{name}.pth")
    (folder / "page.pth").write_text("<html>")
    return folder


def weights(config: str) -> dict:
    return instantiate(load_config(config, []).model).state_dict()


def errors(config: str, *overrides: str) -> list[str]:
    return check_checkpoints(load_config(config, list(overrides)))


@pytest.mark.parametrize(
    "config, override",
    [
        (MIMDET, "mae_checkpoint.path={}/mae.pth"),
        (VITDET, "mae_checkpoint.path={}/encoder.pth"),
        (MIMDET, "train.init_checkpoint={}/mimdet.pth"),
        (MAE, "train.init_checkpoint={}/mae.pth"),
        (MPVIT, "train.init_checkpoint={}/mpvit_classifier.pth"),
        (MIMDET, "mae_checkpoint.path=https://nowhere.invalid/a.pth"),
        (MIMDET, "train.init_checkpoint='https://nowhere.invalid/a.pth'"),
        (MIMDET, "train.init_checkpoint='{}/mae.pth?matching_heuristics=True'"),
        (VITDET, "mae_checkpoint.path={}/dinov2.pth model.backbone.net._target_=timm.create_model"),
        (MIMDET, "train.max_iter=1"),
    ],
)
def test_files_of_the_right_kind_are_passed(config, override, files):
    assert errors(config, *override.format(files).split()) == []


@pytest.mark.parametrize(
    "config, override, message",
    [
        (
            MIMDET,
            "train.init_checkpoint={}/mae.pth",
            "must be a checkpoint of the whole detector (train.init_checkpoint), but it is a full "
            "MAE checkpoint of ViT of width 128/16, encoder and decoder; start a detector or "
            "classifier from it with mae_checkpoint.path=FILE",
        ),
        (
            MIMDET,
            "mae_checkpoint.path={}/mimdet.pth",
            "must be a file that a part of a model can start from (mae_checkpoint.path), but it is "
            "a MIMDet detector",
        ),
        (
            VITDET,
            "mae_checkpoint.path={}/dinov2.pth",
            "must be a file that a part of a model can start from (mae_checkpoint.path), but it is "
            "ViT of width 128/16 with the layer scale of DINOv2",
        ),
        (
            MIMDET,
            "mae_checkpoint.path={}/encoder.pth",
            "must hold MAE's decoder for backbone.bottom_up.decoder, but it is an encoder-only "
            "file (mae_checkpoint.path); use the full MAE checkpoint, or train the decoder from "
            "its initial weights with mae_checkpoint.decoder_from_scratch=True",
        ),
        (MIMDET, "mae_checkpoint.path={}/fastmim.pth", "but it is a file of FastMIM"),
        (
            MIMDET,
            "mae_checkpoint.path={}/page.pth",
            "must be a torch checkpoint of tensors (mae_checkpoint.path), but it is a web page",
        ),
        (VITDET, "train.init_checkpoint={}/page.pth", "(train.init_checkpoint), but it is a web"),
        (VITDET, "train.init_checkpoint={}/lost.pth", "there is no checkpoint"),
    ],
)
def test_a_wrong_file_is_one_finding_with_the_way_out(config, override, message, files):
    (found,) = errors(config, override.format(files))
    assert message in found
    assert str(files) in found


def test_a_decoder_that_starts_at_random_needs_none_in_the_file(files):
    path = f"mae_checkpoint.path={files}/encoder.pth"
    assert errors(MIMDET, path, "mae_checkpoint.decoder_from_scratch=True") == []


def test_preflight_looks_at_files_unless_the_run_goes_on_from_its_own(files, tmp_path):
    cfg = load_config(MAE, [f"train.init_checkpoint={files}/page.pth"])
    for options, is_looked_at in (
        ({}, True),
        ({"resuming": True}, False),
        ({"resuming": True, "eval_only": True}, True),
    ):
        found = [e for e in preflight(cfg, **options).errors if "a web page" in e]
        assert len(found) == is_looked_at
