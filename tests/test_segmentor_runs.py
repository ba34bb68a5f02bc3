"""Runs of the toy segmentor: training, evaluation on one and two processes, and what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from toy_runs import SEGMENTOR, TINY_SEGMENTOR, command, metrics, started, train_net

from mimdet.checkpoint.card import card_of
from mimdet.config import load_config
from mimdet.engine.preflight import preflight


@pytest.fixture(scope="module")
def run(toy_root, tmp_path_factory):
    """The folder of a training of four iterations with two evaluations, and its overrides."""
    output = tmp_path_factory.mktemp("segmentor")
    options = (*TINY_SEGMENTOR, f"toy.root={toy_root}", f"train.output_dir={output}")
    train_net(*options, "train.eval_period=2", config=SEGMENTOR)
    return output, options


def test_a_training_evaluates_and_keeps_the_best_by_miou(run):
    output, _ = run
    lines = metrics(output)
    assert any({"loss_sem_seg", "loss_sem_seg_aux", "total_loss"} <= line.keys() for line in lines)
    values = [line["sem_seg/mIoU"] for line in lines if "sem_seg/mIoU" in line]
    assert len(values) == 2 and all(0 <= value <= 100 for value in values)
    best = torch.load(output / "model_best.pth", weights_only=True)
    assert best["iteration"] == (1, 3)[int(np.argmax(values))]
    assert json.loads((output / "results.json").read_text())["sem_seg"]["mIoU"] == values[-1]


def test_the_checkpoint_says_what_its_classes_and_windows_are(run):
    output, _ = run
    card = card_of(torch.load(output / "model_final.pth", weights_only=True), "")
    assert card.classes == ["background", "disk", "polygon"]
    assert card.protocol == {"crop_size": 64, "crop_stride": 42}


def test_two_processes_evaluate_as_one(run, tmp_path):
    output, options = run
    found = []
    weights = f"train.init_checkpoint={output / 'model_final.pth'}"
    for name in ("one", "two"):
        overrides = (*options, weights, f"train.output_dir={tmp_path / name}")
        if name == "one":
            train_net("--eval-only", *overrides, config=SEGMENTOR)
        else:
            flags = ("--eval-only", "--num-gpus", "2", "--dist-url", "auto")
            with started(command(*flags, *overrides, config=SEGMENTOR)) as process:
                log = process.communicate(timeout=600)[0]
            assert process.returncode == 0, log[-3000:]
            assert len(list((tmp_path / name).glob("log.txt*"))) == 2
        found.append(json.loads((tmp_path / name / "results.json").read_text()))
    one, two = found
    assert one["sem_seg"] == two["sem_seg"]
    assert one["protocol"]["crop_size"] == 64
    # what the training found at its end, too
    assert one["sem_seg"] == json.loads((output / "results.json").read_text())["sem_seg"]


# --- Bad input: one error, before a model is built ------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    """A data set of label maps in toy's layout; folders of the training's images and labels."""
    for split in ("train", "val"):
        for folder in (split, f"sem_seg/{split}"):
            (tmp_path / folder).mkdir(parents=True)
        for name in "abcd":
            Image.new("RGB", (80, 64)).save(tmp_path / split / f"{name}.jpg")
            Image.new("L", (80, 64), 2).save(tmp_path / f"sem_seg/{split}/{name}.png")
    return tmp_path / "train", tmp_path / "sem_seg/train"


def errors(folders, *overrides) -> list[str]:
    images, _ = folders
    names = [f"dataloader.{s}.dataset.name={images.parent}_{s}" for s in ("train", "test")]
    options = (*TINY_SEGMENTOR, *names, f"toy.root={images.parent}", *overrides)
    return preflight(load_config(SEGMENTOR, list(options))).errors


def test_sound_folders_have_no_errors(folders):
    assert errors(folders) == []


def test_a_label_out_of_range_is_one_error(folders):
    Image.new("L", (80, 64), 3).save(folders[1] / "b.png")
    (message,) = errors(folders)
    assert "neither below 3, the number of classes, nor 255" in message
    assert "b.png: 3" in message


def test_a_size_that_differs_is_one_error(folders):
    Image.new("L", (64, 80), 1).save(folders[1] / "b.png")
    (message,) = errors(folders)
    assert "b.png: 80 x 64, its image 64 x 80" in message


def test_a_missing_label_map_is_one_error(folders):
    (folders[1] / "b.png").unlink()
    (message,) = errors(folders)
    assert "images have no label map of their name" in message and "b.jpg" in message


def test_no_label_maps_at_all_is_one_error(folders):
    for path in folders[1].iterdir():
        path.unlink()
    (message,) = errors(folders)
    assert "must hold label maps, and holds no image file" in message


def test_equal_numbers_of_files_with_other_names_are_one_error(folders):
    (folders[1] / "b.png").rename(folders[1] / "e.png")
    (message,) = errors(folders)
    assert "b.jpg" in message and "e.png" in message


def test_heads_must_have_the_classes_of_the_label_maps(folders):
    key = "model.sem_seg_head.decode_head.num_classes"
    (message,) = errors(folders, f"{key}=5")
    assert message.startswith(f"{key} must be the number of classes of ")
    assert message.endswith(f"got 5; write {key}=3, or {key}=auto")
    assert errors(folders, f"{key}=auto") == []
