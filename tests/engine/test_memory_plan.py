"""What a training step needs, and what activation checkpointing "auto" makes of it."""

import pytest
from config_files import REPOSITORY, path_of
from toy_runs import CONFIG, TINY, metrics, train_net

from mimdet.config import load_config
from mimdet.engine import memory_plan
from mimdet.engine.memory_plan import GIB, plan_step, state_bytes, step_memory, training_size

PARTS = [f"model.backbone.bottom_up.{part}.checkpointing" for part in ("encoder", "decoder")]
AUTO = [f"{key}=auto" for key in PARTS]


def test_auto_keeps_activations_where_they_fit_and_says_what_they_take():
    cfg = load_config(CONFIG, AUTO)
    needed = step_memory(cfg, 8, checkpointing=False).needed
    recomputes, line = plan_step(cfg, processes=1, memory=needed)
    assert not recomputes
    assert line.startswith("memory: about 1.")  # a process alone takes a GiB, and a toy little
    assert " GiB of cpu: " in line and "activations of 8 images of 128x224" in line
    assert line.endswith("activation checkpointing: auto keeps activations")

    recomputes, line = plan_step(cfg, processes=1, memory=needed - 1)
    assert recomputes and "auto recomputes activations, which would need 1." in line
    assert step_memory(cfg, 8, checkpointing=True).needed < needed


def test_auto_recomputes_what_cannot_be_measured():
    cfg = load_config(CONFIG, [*AUTO, "++model.backbone.bottom_up.sample_ratio=none"])
    recomputes, line = plan_step(cfg, processes=1, memory=80 * GIB)
    assert recomputes and line.startswith("memory: not known, this model cannot be measured (")
    assert line.endswith("activation checkpointing: auto recomputes activations")


@pytest.mark.parametrize("memory, answer", [(80 * GIB, "false"), (1, "true")])
def test_a_run_with_auto_has_the_numbers_of_one_without(
    toy_root, trained, tmp_path, monkeypatch, memory, answer
):
    monkeypatch.setattr(memory_plan, "device_memory", lambda *_: memory)
    folders = (f"toy.root={toy_root}", f"train.output_dir={tmp_path}")
    train_net(*TINY, *folders, *AUTO, "train.max_iter=2", "train.eval_period=0")
    assert (tmp_path / "config.yaml").read_text().count(f"checkpointing: {answer}") == 2
    log = (tmp_path / "log.txt").read_text()
    assert log.count("activation checkpointing: auto") == 1
    losses, others = (
        [line["total_loss"] for line in metrics(of)[:2]] for of in (tmp_path, trained)
    )
    assert losses == others


@pytest.mark.parametrize(
    "stem, size",
    [
        ("mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x", (800, 1344)),
        ("mask_rcnn_vitdet_b_100ep", (1024, 1024)),
        ("mask_rcnn_swin_base_scp_3x", (1024, 1024)),  # in a mapper of mappers
        ("mask_rcnn_r50_fpn_1x", (800, 1344)),
        ("vitdet_mask_rcnn_toy", (128, 128)),
    ],
)
def test_the_largest_batch_follows_from_the_augmentations(stem, size):
    assert training_size(load_config(str(path_of(stem)), [])) == size


def test_the_state_of_an_optimizer_is_counted():
    adam, average = load_config(CONFIG, []), load_config(CONFIG, ["train.ema.decay=0.9"])
    weights = 4 * 2_173_496  # float32
    assert state_bytes(adam) == pytest.approx(4 * weights, rel=0.01)
    assert state_bytes(average) - state_bytes(adam) == weights
    sgd = load_config(str(path_of("mask_rcnn_r50_fpn_1x")), [])
    weights = 4 * 44_343_216
    assert 2 * weights < state_bytes(sgd) < 3 * weights  # two of its stages are frozen


def test_the_table_of_the_documents_is_that_of_this_code():
    from benchmarks.memory_table import BASE
    from mimdet.analysis.memory_table import row

    measured = row("MIMDet-B", load_config(BASE, []), 2, (800, 1344))
    assert measured in (REPOSITORY / "docs/memory.md").read_text().splitlines()
