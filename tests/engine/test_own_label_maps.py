"""A segmentor's config that is made to fit a folder of own images and label maps."""

import json
import re

import coco_files
import numpy as np
import pytest
from label_map_folders import SIDE, write_folder, write_pair, write_part
from PIL import Image
from toy_runs import isolated, load_script

from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from mimdet.analysis.predictor import Predictor
from mimdet.engine.preflight import preflight

CONFIG = "upernet_vit_base_ade20k_160k"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The folder "own", with four images to train on and two to evaluate on."""
    with coco_files.own_catalogs(tmp_path, monkeypatch, "own_train", "own_val"):
        yield write_folder(tmp_path / "own")


def parse(root, *words, config=CONFIG):
    return load_script("lazyconfig_train_net.py").parse_args(
        ["--config-file", str(config), "--data", str(root), *map(str, words)]
    )


def found_in(root) -> list[str]:
    """The errors of the checks before a run."""
    return preflight(parse(root, "train.device=cpu").config.unpack()).errors


def refused(root, capsys) -> str:
    with pytest.raises(SystemExit) as ended:
        parse(root)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_data_evaluator_and_heads_follow_the_folder(root):
    (root / "classes.txt").write_text("ground\nsquare\n")
    args = parse(root, "train.device=cpu")
    cfg = args.config.unpack()
    assert not preflight(cfg).errors
    assert cfg.model.sem_seg_head.decode_head.num_classes == 2
    assert cfg.model.sem_seg_head.auxiliary_head.num_classes == 2
    assert cfg.dataloader.evaluator.dataset_name == "own_val"
    assert cfg.train.output_dir == "output/own" and cfg.train.best_metric == "sem_seg/mIoU"
    assert MetadataCatalog.get("own_train").stuff_classes == ["ground", "square"]
    assert [len(instantiate(cfg.dataloader[s].dataset)) for s in ("train", "test")] == [4, 2]
    assert f"train: 4 images of {root}/images/train with the label maps of {root}/labels/train" in (
        args.own.notes
    )


def test_without_a_file_classes_are_called_by_their_labels(root):
    args = parse(root)
    assert not preflight(args.config.unpack()).errors
    assert MetadataCatalog.get("own_train").stuff_classes == ["class 0", "class 1"]
    assert any(
        "2 classes by the labels that are there, 0 to 1; classes.txt" in n for n in args.own.notes
    )


def test_a_folder_without_a_split_is_shared_out(root, tmp_path):
    write_part(tmp_path / "flat/own/images", tmp_path / "flat/own/masks", number=10)
    cfg = parse(tmp_path / "flat/own").config.unpack()
    assert not preflight(cfg).errors
    assert [len(instantiate(cfg.dataloader[s].dataset)) for s in ("train", "test")] == [8, 2]


def test_batch_epochs_and_rate_follow_the_stated_rule(root):
    cfg = parse(root, "--batch", 2, "--epochs", 10).config.unpack()
    assert cfg.dataloader.train.total_batch_size == 2 and cfg.train.max_iter == 20
    assert cfg.optimizer.lr == pytest.approx(3e-4 * np.sqrt(2 / 16))
    assert cfg.lr_multiplier.warmup_length == 0.1  # at most


@pytest.mark.parametrize(
    "values, message",
    [
        ((0, 7), "numbered from 0 without gaps .* got 0, 7; renumber them, or name all classes"),
        ((0, 255), "has 0 alone, besides 255 .*masks of 0 and 255 must be written as 0 and 1"),
        ((255, 255), "none of .* is one, or has another value than 255"),
    ],
)
def test_labels_that_cannot_be_those_of_classes_are_refused(values, message, root, capsys):
    write_folder(root, values=values)
    assert re.search(message, refused(root, capsys))


def test_labels_above_the_named_classes_are_told_by_kind_before_any_work(root):
    (root / "classes.txt").write_text("ground\nsquare\n")
    write_pair(root / "images/train/1.jpg", root / "labels/train/1.png", values=(0, 9))
    (error,) = found_in(root)
    assert "neither below 2, the number of classes, nor 255" in error and "1.png: 9" in error


def test_faults_of_both_parts_are_told_at_once(root):
    for split in ("train", "val"):
        write_pair(root / f"images/{split}/1.jpg", root / f"labels/{split}/1.png", values=(0, 9))
    (root / "classes.txt").write_text("ground\nsquare\n")
    assert [re.search("labels/(train|val)/1.png: 9", e)[1] for e in found_in(root)] == [
        *("train", "val")
    ]


def test_sizes_that_differ_and_modes_are_told_by_kind_before_any_work(root):
    Image.new("L", (SIDE, 20)).save(root / "labels/train/0.png")
    Image.new("P", (SIDE, SIDE)).save(root / "labels/train/2.png")
    size, mode = found_in(root)
    assert "another size than their image" in size and f"0.png: 20 x {SIDE}" in size
    assert "no images of one channel of 8 bits" in mode and "2.png: mode P" in mode


def test_files_of_other_names_are_told_by_kind_with_counts(root, capsys):
    for place in (1, 2):
        (root / f"labels/train/{place}.png").rename(root / f"labels/train/x{place}.png")
    error = refused(root, capsys)
    assert "images have no label map of their name (2: " in error
    assert "label maps have no image of their name (2: " in error


# The model of the config, made tiny, and few iterations of it.
TINY = (
    *("model.backbone.img_size=64", "model.backbone.embed_dim=16", "model.backbone.depth=4"),
    *("model.backbone.num_heads=2", "model.backbone.out_indices=[0,1,2,3]"),
    *("model.backbone.norm=BN", "model.backbone.drop_path_rate=0", "model.crop_stride=42"),
    *("model.sem_seg_head.decode_head.channels=16", "model.sem_seg_head.auxiliary_head.channels=8"),
    *("optimizer.params.lr_factor_func=null", "train.device=cpu", "train.max_iter=3"),
    *("dataloader.train.num_workers=0", "dataloader.test.num_workers=0"),
    "dataloader.train.mapper.augmentations.0.short_edge_length=64",
    "dataloader.train.mapper.augmentations.1.crop_size=[64,64]",
    "dataloader.test.mapper.augmentations.0.short_edge_length=64",
)


def test_a_tiny_segmentor_trains_and_its_checkpoint_tells_the_classes(root, tmp_path):
    (root / "classes.txt").write_text("ground\nsquare\n")
    with isolated():
        args = parse(root, "--batch", 2, *TINY, f"train.output_dir={tmp_path / 'run'}")
        load_script("lazyconfig_train_net.py").main(args)
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert {"mIoU", "IoU-ground", "IoU-square"} <= results["sem_seg"].keys()
    found = Predictor(tmp_path / "run/model_final.pth", device="cpu")(root / "images/val/0.jpg")
    assert found.class_names == ["ground", "square"] and found.classes.shape == (SIDE, SIDE)
