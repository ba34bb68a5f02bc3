"""Accuracy by hand, and of a run on any number of processes."""

import json
import sys

import pytest
import torch
from config_files import load_stem, path_of
from toy_runs import started, train_net

from detectron2.config import instantiate
from detectron2.evaluation import inference_on_dataset
from detectron2.utils import comm
from mimdet.evaluation.imagenet import ImageNetEvaluator

CONFIG = path_of("finetune_cmt_toy")


def accuracy(logits: list[list[float]], labels: list[int], batch_size: int = 2) -> dict:
    evaluator = ImageNetEvaluator()
    evaluator.reset()
    for start in range(0, len(labels), batch_size):
        inputs = [{"label": label} for label in labels[start : start + batch_size]]
        outputs = [{"logits": torch.tensor(x)} for x in logits[start : start + batch_size]]
        evaluator.process(inputs, outputs)
    return evaluator.evaluate()["accuracy"]


def test_top1_and_top5_by_hand():
    falling = [7.0, 6, 5, 4, 3, 2, 1]
    labels = [0, 0, 1, 4, 5]
    assert accuracy([falling] * 5, labels) == {"top1": 40.0, "top5": 80.0}


def test_few_classes_make_top5_certain():
    assert accuracy([[0.0, 1], [1, 0], [1, 0]], [1, 1, 0]) == pytest.approx(
        {"top1": 200 / 3, "top5": 100.0}
    )


def test_reset_forgets_what_was_counted():
    evaluator = ImageNetEvaluator()
    for label in (0, 1):
        evaluator.reset()
        evaluator.process([{"label": label}], [{"logits": torch.tensor([1.0, 0])}])
    assert evaluator.evaluate()["accuracy"]["top1"] == 0


@pytest.mark.parametrize("main_process", [True, False])
def test_an_evaluation_without_images_is_refused_on_every_process(monkeypatch, main_process):
    monkeypatch.setattr(comm, "is_main_process", lambda: main_process)
    message = "needs at least one image, and the test loader gave none; point dataloader"
    with pytest.raises(ValueError, match=message):
        inference_on_dataset(torch.nn.Identity(), [], ImageNetEvaluator())


def test_a_process_without_images_counts_for_nothing(monkeypatch):
    of_another_process = (4, 1, 2)  # images, hits among the best one and five
    monkeypatch.setattr(comm, "all_gather", lambda counts: [counts, of_another_process])
    assert accuracy([], []) == {"top1": 25.0, "top5": 50.0}


def test_two_processes_count_every_image_once_as_one_does(tmp_path):
    cfg = load_stem("finetune_cmt_toy")
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    weights = tmp_path / "model.pth"
    torch.save({"model": model.state_dict()}, weights)
    overrides = ["--eval-only", f"train.init_checkpoint={weights}", "train.device=cpu"]
    overrides += ["imagenet.root=synthetic:33", "dataloader.test.batch_size=4"]  # 17 + 16
    train_net(*overrides, f"train.output_dir={tmp_path / 'one'}", config=CONFIG)
    command = [sys.executable, "lazyconfig_train_net.py", "--config-file", str(CONFIG)]
    command += ["--num-gpus", "2", "--dist-url", "auto"]
    with started([*command, *overrides, f"train.output_dir={tmp_path / 'two'}"]) as process:
        output = process.communicate(timeout=200)[0]
        assert process.returncode == 0, output[-3000:]
    one, two = (
        json.loads((tmp_path / name / "results.json").read_text())["accuracy"]
        for name in ("one", "two")
    )
    assert one == two
    assert (one["top1"] * 33 / 100) == pytest.approx(round(one["top1"] * 33 / 100))


def test_an_evaluation_reads_every_image_or_fails(tmp_path):
    (tmp_path / "val/a").mkdir(parents=True)
    (tmp_path / "val/a/broken.jpg").write_bytes(b"no image")
    cfg = load_stem("finetune_cmt_toy")
    cfg.imagenet.root = str(tmp_path)
    loader = instantiate(cfg.dataloader.test)
    with pytest.raises(OSError, match="broken.jpg cannot be read as an image"):
        inference_on_dataset(instantiate(cfg.model), loader, ImageNetEvaluator())
