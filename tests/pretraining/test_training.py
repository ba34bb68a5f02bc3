"""Every model learns; what a run saves is what it goes on from and what detectors start from."""

import shutil
from pathlib import Path

import pytest
import torch
from golden_models import load
from pretraining_models import dyadic, imagenet, images, tiny_fastmim, tiny_mae
from toy_runs import REPOSITORY, command, metrics, start_from_files, started, train_net

from detectron2.config import LazyConfig, instantiate
from mimdet.config import apply_overrides

CASES = load("pretraining/fastmim_tiny.json.gz")
CONFIG = str(REPOSITORY / "configs/toy/mae_vit_toy.py")
DETECTOR = str(REPOSITORY / "configs/toy/mimdet_mask_rcnn_fpn_sr_0p5_toy.py")
TINY = (
    "train.device=cpu",
    "train.log_period=1",
    "dataloader.train.total_batch_size=4",
    "dataloader.train.num_workers=0",
    "dataloader.train.dataset.source=synthetic:10",
)


# --- Learning -------------------------------------------------------------------------------------


def model_of(name: str):
    if name == "mae":
        return tiny_mae()
    return tiny_fastmim(CASES[name]["arch"], {**CASES[name]["config"], "img_size": 64})


@pytest.mark.parametrize(
    "name",
    ["mae", "vit_hog_block16", "vit_l2_block16", "swin_hog_block32"]
    + ["pvtv2_hog_block32", "cmt_hog_block32"],
)
def test_30_steps_on_8_images_lower_the_loss(name):
    torch.manual_seed(0)
    model = model_of(name).train()
    batch = imagenet(images("wave", list(range(8)), model.img_size))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-3)
    block_size = getattr(model, "block_size", 16)
    noise = torch.rand(8, (64 // block_size) ** 2)  # always the same task
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model.loss(batch, noise)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0], losses
    assert all(p.grad.isfinite().all() for p in trained)


def test_a_batch_in_pieces_has_the_gradient_of_the_whole():
    model = tiny_mae()
    batch, noise = dyadic(images("random", list(range(4)), 64)), torch.rand(4, 16)
    model.loss(batch, noise).backward()
    expected = model.decoder_pred.weight.grad.clone()
    model.zero_grad()
    for part, part_noise in zip(batch.split(2), noise.split(2), strict=True):
        (model.loss(part, part_noise) / 2).backward()
    torch.testing.assert_close(model.decoder_pred.weight.grad, expected, rtol=1e-4, atol=1e-7)


# --- Runs -----------------------------------------------------------------------------------------


def weights_of(folder: Path, name: str = "model_final.pth") -> dict:
    return torch.load(folder / name, weights_only=True)["model"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """The folder of a run of 6 iterations with a drawn seed, checkpoints after each 3, and EMA."""
    output = tmp_path_factory.mktemp("pretrained")
    train_net(*TINY, *run_options(output), config=CONFIG)
    return output


def run_options(output: Path) -> tuple[str, ...]:
    options = ("train.seed=-1", "train.checkpointer.period=3", "train.ema.decay=0.5")
    return (*options, f"train.output_dir={output}", "train.max_iter=6")


def test_a_run_logs_losses_learning_rates_norms_and_speed(pretrained):
    lines = metrics(pretrained)
    assert [line["iteration"] for line in lines if "total_loss" in line] == list(range(6))
    assert {"lr", "grad_norm", "[metric]images_per_second"} <= lines[-1].keys()
    log = (pretrained / "log.txt").read_text()
    assert "10 images in synthetic:10: synthetic:train:0" in log
    assert "[metric]images_per_second" in log


def test_an_interrupted_run_ends_with_the_same_weights(pretrained, tmp_path):
    shutil.copy(pretrained / "model_0000002.pth", tmp_path)
    (tmp_path / "last_checkpoint").write_text("model_0000002.pth")
    train_net("--resume", *TINY, *run_options(tmp_path), config=CONFIG)
    assert [line["iteration"] for line in metrics(tmp_path) if "total_loss" in line] == [3, 4, 5]
    expected, actual = weights_of(pretrained), weights_of(tmp_path)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    ema = [
        torch.load(folder / "model_final.pth", weights_only=True)["trainer"]["hooks"]["EMA"]
        for folder in (pretrained, tmp_path)
    ]
    assert all(torch.equal(ema[1][name], ema[0][name]) for name in ema[0])
    assert not torch.equal(ema[0]["norm.weight"], expected["norm.weight"])


def started_detector(*overrides: str):
    cfg = apply_overrides(LazyConfig.load(DETECTOR), list(overrides))
    model = instantiate(cfg.model)
    start_from_files(cfg, model)
    return model


def test_the_file_of_a_run_starts_encoder_and_decoder_of_mimdet(pretrained, caplog):
    path = pretrained / "model_final.pth"
    with caplog.at_level("INFO"):
        model = started_detector(f"mae_checkpoint.path={path}")
    mae, bottom_up = weights_of(pretrained), model.backbone.bottom_up
    taken = {**bottom_up.encoder.state_dict(), **bottom_up.decoder.state_dict()}
    new = {n for n in taken if not (n in mae and torch.equal(taken[n], mae[n]))}
    # the convolution stem and the projection of what fills holes are MIMDet's own
    assert all(n.startswith(("patch_embed.", "conv_feat_proj.")) for n in new)
    assert {"blocks.3.mlp.fc2.weight", "decoder_blocks.1.attn.qkv.weight"} <= set(taken) - new
    assert {"decoder_embed.weight", "decoder_norm.bias", "decoder_pos_embed"} <= set(taken) - new


def test_the_file_of_another_architecture_is_refused(pretrained):
    path = pretrained / "model_final.pth"
    wider = "model.backbone.bottom_up.encoder.embed_dim=192"
    with pytest.raises(ValueError, match="does not fit .* is of another model size"):
        started_detector(f"mae_checkpoint.path={path}", wider)


@pytest.mark.lite
def test_fastmim_runs_through_the_same_script(tmp_path):
    small = ("model.encoder.embed_dim=48", "model.encoder.depth=1", "model.img_size=64")
    options = ("train.amp.dtype=bfloat16", "train.accumulation_steps=2", "train.max_iter=2")
    config = REPOSITORY / "configs/pretrain/fastmim_vit_base.py"
    folder = f"train.output_dir={tmp_path}"
    train_net(*TINY, *small, *options, folder, config=config)
    assert "loss_mim" in metrics(tmp_path)[-1]
    assert "encoder.blocks.0.attn.qkv.weight" in weights_of(tmp_path)


def test_a_crop_of_another_size_is_refused_by_the_key_to_change(tmp_path):
    with pytest.raises(
        ValueError, match=r"must be 128x128 \(model.img_size\), got 96x96; .*input_size"
    ):
        train_net(
            *TINY,
            "dataloader.train.mapper.transform.input_size=96",
            f"train.output_dir={tmp_path}",
            config=CONFIG,
        )


def test_two_processes_train_as_one_does(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests"))
    config = str(REPOSITORY / "tests/deterministic_mae.py")
    one, two = tmp_path / "one", tmp_path / "two"
    train_net(f"train.output_dir={one}", config=config)
    flags = ("--config-file", config, "--num-gpus", "2", "--dist-url", "auto")
    with started(command(*flags, f"train.output_dir={two}")) as process:
        log = process.communicate(timeout=200)[0]
    assert process.returncode == 0, log[-3000:]
    assert (two / "log.txt.rank1").exists()
    losses = [[line["total_loss"] for line in metrics(folder)] for folder in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    torch.testing.assert_close(weights_of(two), weights_of(one), rtol=1e-5, atol=1e-6)
