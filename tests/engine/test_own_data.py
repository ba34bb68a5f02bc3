"""A config that is made to fit a folder of own data."""

import json
import math

import coco_files
import own_folders
import pytest
from omegaconf import OmegaConf
from PIL import Image
from toy_runs import load_script, train_net

from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from mimdet.engine.check_run import check
from mimdet.engine.follow_data import number_of_classes
from mimdet.engine.preflight import preflight

TOY = "toy/mimdet_mask_rcnn_fpn_sr_0p5_toy"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A function: the contents of train.json and val.json -> a folder "own" with their images."""
    root = tmp_path / "own"
    with coco_files.own_catalogs(tmp_path, monkeypatch, "own_train", "own_val"):

        def make(train=None, val=None):
            for split, content in (("train", train or coco_files.sound(8)), ("val", val)):
                (root / split).mkdir(parents=True, exist_ok=True)
                content = content or coco_files.sound(2)
                (root / f"{split}.json").write_text(json.dumps(content))
                for image in content["images"]:
                    picture = Image.new("RGB", (coco_files.WIDTH, coco_files.HEIGHT))
                    picture.save(root / split / image["file_name"])
            return root

        yield make


def parse(root, *words, config=TOY):
    return load_script("lazyconfig_train_net.py").parse_args(
        ["--config-file", config, "--data", str(root), *map(str, words)]
    )


@pytest.mark.parametrize("make", own_folders.AWKWARD.values(), ids=own_folders.AWKWARD)
def test_awkward_folders_pass_all_checks(tmp_path, monkeypatch, make):
    truth = make(tmp_path / "own")
    with coco_files.own_catalogs(tmp_path, monkeypatch, "own_train", "own_val"):
        cfg = checked(tmp_path / "own")
        metadata = MetadataCatalog.get("own_val")
        ids = {c["name"]: c["id"] for c in json.loads(truth.read_text("utf-8"))["categories"]}
        names = sorted(ids.keys() & {"red", "blue"}, key=ids.get)
        assert metadata.thing_classes == names
        numbers = metadata.thing_dataset_id_to_contiguous_id
        assert numbers == {ids[name]: number for number, name in enumerate(names)}
        has_masks = make not in (own_folders.boxes_only, own_folders.half_of_the_masks)
        assert (cfg.model.roi_heads.mask_head is not None) == has_masks


def checked(root, *words, config=TOY):
    """The config after the checks before a run, which must find nothing."""
    cfg = parse(root, *words, config=config).config.unpack()
    assert not preflight(cfg).errors
    return cfg


@pytest.mark.parametrize(
    "config",
    [
        TOY,
        "mimdet_vit_large_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x",
        "benchmarking_mask_rcnn_base_FPN_25ep_LSJ_mae",
        "cascade_mask_rcnn_vitdet_b_100ep",
        "lvis_cascade_mask_rcnn_vitdet_b_100ep",
        "lvis_mask_rcnn_vitdet_b_100ep",
        "mask_rcnn_vitae_b_100ep",
        "retinanet_mpvit_tiny_1x",
        "cascade_mask_rcnn_mpvit_small_ms_3x",
        "mask_rcnn_swin_base_scp_3x",
        "mask_rcnn_r50_fpn_1x",
    ],
)
def test_every_family_of_detectors_follows_the_folder(folder, config):
    cfg = checked(folder(), config=config)
    assert cfg.train.output_dir == "output/own"
    assert MetadataCatalog.get("own_train").thing_classes == ["red", "blue"]
    assert cfg.dataloader.evaluator.dataset_name == "own_val"
    assert {*number_of_classes(cfg).values()} == {2}


def test_classes_without_objects_are_left_out_and_named(folder):
    contents = []
    for images in (8, 2):
        content = coco_files.sound(images)
        content["categories"] = [  # Roboflow's parent category, and sparse ids
            {"id": 0, "name": "things"},
            {"id": 900, "name": "red"},
            {"id": 7, "name": "blue", "supercategory": "things"},
        ]
        for annotation in content["annotations"]:
            annotation["category_id"] = {1: 900, 2: 7}[annotation["category_id"]]
        contents.append(content)
    args = parse(folder(*contents))
    assert "classes without objects are left out: things" in args.own.notes
    check(args)
    metadata = MetadataCatalog.get("own_train")
    assert metadata.thing_classes == ["blue", "red"]
    assert metadata.thing_dataset_id_to_contiguous_id == {7: 0, 900: 1}


def test_validation_with_its_classes_in_another_order_is_read_by_names(folder):
    val = coco_files.sound(2)
    val["categories"] = [{"id": 1, "name": "blue"}, {"id": 2, "name": "red"}]
    checked(folder(val=val))
    assert MetadataCatalog.get("own_val").thing_classes == ["red", "blue"]
    assert MetadataCatalog.get("own_val").thing_dataset_id_to_contiguous_id == {2: 0, 1: 1}


def test_a_class_that_validation_alone_has_is_refused(folder, capsys):
    train = coco_files.sound()
    train["categories"].pop()
    train["annotations"] = [a for a in train["annotations"] if a["category_id"] == 1]
    with pytest.raises(SystemExit):
        parse(folder(train))
    error = capsys.readouterr().err
    assert "train.json must know the classes of" in error and "lacks blue" in error


@pytest.mark.parametrize("lacking", [1, 16])
def test_objects_without_masks_make_a_detector_of_boxes(folder, lacking):
    train = coco_files.sound(8)
    for annotation in train["annotations"][:lacking]:
        del annotation["segmentation"]
    args = parse(folder(train))
    assert any(f"{lacking} of 20 objects have no mask" in note for note in args.own.notes)
    cfg = args.config.unpack()
    assert not preflight(cfg).errors
    assert cfg.model.roi_heads.mask_head is None
    records = instantiate(cfg.dataloader.train.dataset)
    assert not any("segmentation" in a for record in records for a in record["annotations"])


def test_batch_epochs_and_rate_follow_the_stated_rule(folder):
    root = folder()
    cfg = checked(root, "--batch", 2, "--epochs", 10)
    assert cfg.dataloader.train.total_batch_size == 2
    assert cfg.train.max_iter == 40 and cfg.train.eval_period == 4  # 8 images: 4 of 2
    assert cfg.optimizer.lr == pytest.approx(1e-3 * math.sqrt(2 / 8))
    multiplier = instantiate(cfg.lr_multiplier)
    assert [round(multiplier(k / 40), 6) for k in (20, 31, 32, 37, 38)] == [1, 1, 0.1, 0.1, 0.01]
    assert cfg.lr_multiplier.warmup_length == 0.1  # 50 iterations would be longer than the run
    assert checked(root).train.max_iter == 1000  # 36 epochs would be 72 iterations of 4


@pytest.mark.parametrize(
    "word, origin",
    [
        ("--batch=2", "the recipe's 0.001 times the root of 0.25, this batch over the recipe's"),
        ("optimizer.lr=0.0625", "optimizer.lr of the command line"),
    ],
)
def test_the_rate_is_told_once_with_its_origin(folder, capsys, word, origin):
    check(parse(folder(), word, "train.device=cpu"))
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "learning rate" in line]
    assert origin in told


def test_the_log_has_what_was_typed_and_not_what_was_found(folder):
    root = folder()
    args = parse(root, "--batch", 2, "train.max_iter=5")
    assert vars(args.for_log) == {
        **{"config_file": args.config_file, "eval_only": False, "data": str(root), "batch": 2},
        "opts": ["train.max_iter=5"],
    }


def test_accumulation_keeps_the_batch_of_the_recipe(folder):
    config = "mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x"
    cfg = parse(folder(), "train.accumulation_steps=16", config=config).config.unpack()
    assert cfg.dataloader.train.total_batch_size == 64
    assert cfg.optimizer.lr == pytest.approx(8e-5)
    fewer = parse(folder(), "train.accumulation_steps=2", config=config).config.unpack()
    assert fewer.dataloader.train.total_batch_size == 8


def test_sgd_has_a_rate_in_proportion_to_the_batch(folder):
    cfg = checked(folder(), "--batch", 4, config="mask_rcnn_r50_fpn_1x")
    assert cfg.optimizer.lr == pytest.approx(0.02 * 4 / 16)


def test_what_the_user_writes_stays(folder):
    written = {
        "optimizer.lr": 0.125,
        "train.max_iter": 7,
        "train.eval_period": 3,
        "train.output_dir": "elsewhere",
        "dataloader.train.total_batch_size": 1,
        "dataloader.test.dataset.missing_masks": "rectangle",
    }
    cfg = checked(folder(), *(f"{key}={value}" for key, value in written.items()))
    assert {key: OmegaConf.select(cfg, key) for key in written} == written
    assert instantiate(cfg.lr_multiplier)(6 / 7) == pytest.approx(0.1)


def test_what_looks_wrong_in_the_data_is_told_once(folder, caplog):
    train = coco_files.sound(8)
    train["annotations"][0]["bbox"][2] = 500
    checked(folder(train))
    told = [r.message for r in caplog.records if "reaches out of the image" in r.message]
    assert len(told) == 1


def test_an_empty_name_of_a_folder_is_refused(capsys):
    # what a shell makes of a variable that is not set: --data "$DATA"
    with pytest.raises(SystemExit) as ended:
        parse("")
    assert ended.value.code == 2
    assert "--data must be the folder of a dataset, and no name is none" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        (["--batch", "0"], "--batch must be above 0, got 0"),
        (["--epochs", "-1"], "--epochs must be above 0, got -1"),
    ],
)
def test_numbers_that_are_none_are_refused(folder, capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        parse(folder(), *words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_config_that_trains_no_detector_is_refused(folder, capsys):
    with pytest.raises(SystemExit):
        parse(folder(), config="toy/mae_vit_toy")
    assert "--data needs the config of a detector" in capsys.readouterr().err


def test_batch_and_epochs_go_with_data(capsys):
    with pytest.raises(SystemExit):
        load_script("lazyconfig_train_net.py").parse_args(["--config-file", TOY, "--batch", "2"])
    assert "--batch and --epochs go with --data" in capsys.readouterr().err


# Two images that a toy model learns by heart; more of them, and boxes get no better.
OVERFIT = (
    "train.device=cpu",
    "train.eval_period=0",
    "train.checkpointer.period=1000",
    "optimizer.lr=1e-3",
    "model.backbone.bottom_up.sample_ratio=1.0",
    "dataloader.train.mapper.augmentations=[]",
    "dataloader.test.mapper.augmentations=[]",
)


def test_a_training_is_scored_alike_by_pycocotools_with_the_users_own_ids(tmp_path, monkeypatch):
    truth = own_folders.sparse_ids(tmp_path / "own")
    output = tmp_path / "output"
    with coco_files.own_catalogs(tmp_path, monkeypatch, "own_train", "own_val"):
        words = ("--data", tmp_path / "own", "--batch", 2, f"train.output_dir={output}")
        train_net(*words, *OVERFIT, "train.max_iter=60")
    results = json.loads((output / "results.json").read_text())
    detections = output / "coco_instances_results.json"
    assert {entry["category_id"] for entry in json.loads(detections.read_text())} == {7, 900}
    for kind in ("bbox", "segm"):
        assert results[kind]["AP"] > 50
        assert results[kind]["AP"] == pytest.approx(own_folders.plain_ap(truth, detections, kind))
