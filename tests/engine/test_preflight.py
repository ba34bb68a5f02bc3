"""Contradictions of config, data, files and processes are found before a model is built."""

import coco_files
import pytest
from coco_files import HEIGHT, WIDTH, changed, sound
from PIL import Image
from toy_runs import REPOSITORY, load_script

from detectron2.config import instantiate
from mimdet.config import load_config
from mimdet.engine.follow_data import follow_data
from mimdet.engine.preflight import preflight

MASK = "configs/toy/mimdet_mask_rcnn_fpn_sr_0p5_toy.py"
CASCADE = "configs/toy/vitdet_cascade_mask_rcnn_toy.py"
RETINANET = "configs/toy/retinanet_mpvit_tiny_toy.py"
NAMES = ("preflight_train", "preflight_val")


@pytest.fixture(autouse=True)
def _own_catalogs(tmp_path, monkeypatch):
    with coco_files.own_catalogs(tmp_path, monkeypatch, *NAMES):
        yield


@pytest.fixture
def config(tmp_path):
    """The config of a run on a training and a validation file."""
    (tmp_path / "images").mkdir()
    for k in (1, 2, 3):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"images/{k}.png")

    def make(train=None, val=None, *overrides, path=MASK):
        files = [sound() if content is None else content for content in (train, val)]
        changes = ["dataloader.train.total_batch_size=2"]
        for split, name, content in zip(("train", "test"), NAMES, files, strict=True):
            json_file = coco_files.write(tmp_path, content, f"{name}.json")
            dataset = f"dataloader.{split}.dataset"
            changes += [f"{dataset}.name={name}", f"{dataset}.json_file={json_file}"]
            changes += [f"{dataset}.image_root={tmp_path / 'images'}"]
        key = "model.num_classes" if path == RETINANET else "model.roi_heads.num_classes"
        return load_config(str(REPOSITORY / path), [*changes, f"{key}=2", *overrides])

    return make


def errors(cfg, **options) -> list[str]:
    return preflight(cfg, **options).errors


@pytest.mark.parametrize("path", [MASK, CASCADE, RETINANET])
def test_a_sound_set_up_has_no_errors_and_a_plan(config, path):
    found = preflight(config(None, None, "train.max_iter=700", path=path))
    assert (found.errors, found.warnings) == ([], [])
    assert found.plan[0] == "2 classes: red, blue"
    assert found.plan[1].startswith("3 images, 700 iterations of 2: 466.7 epochs")


def test_problems_that_are_repaired_are_noted_for_the_report(config):
    content = sound()
    del content["annotations"][0]["id"]
    found = preflight(config(content, content))
    assert found.errors == []
    assert len(found.problems) == 2 and all("repaired" in line for line in found.problems)


@pytest.mark.parametrize("path", [MASK, CASCADE, RETINANET])
@pytest.mark.parametrize("number", [1, 80])
def test_heads_must_have_the_classes_of_the_data(config, path, number):
    key = "model.num_classes" if path == RETINANET else "model.roi_heads.num_classes"
    (message,) = errors(config(None, None, f"{key}={number}", path=path))
    assert message.startswith(f"{key} must be the number of classes of preflight_train, which is 2")
    assert message.endswith(f"got {number}; write {key}=2, or {key}=auto")


@pytest.mark.parametrize(
    "key", ["box_predictors.1.num_classes", "mask_head.num_classes", "box_predictors.0.num_classes"]
)
def test_a_single_head_with_other_classes_is_told(config, key):
    key = f"model.roi_heads.{key}"
    (message,) = errors(config(None, None, f"{key}=7", path=CASCADE))
    assert message.startswith(f"{key} must be the number of classes") and "got 7; write" in message


def test_an_evaluator_scores_the_dataset_that_is_run_on(config):
    (message,) = errors(config(None, None, "dataloader.evaluator.dataset_name=other"))
    assert message == (
        "dataloader.evaluator.dataset_name must be that of dataloader.test, preflight_val, "
        "got other"
    )


@pytest.mark.parametrize("iscrowd", [1, None])
def test_a_validation_without_objects_is_told(config, iscrowd):
    val = changed("annotations", "iscrowd", 1) if iscrowd else {**sound(), "annotations": []}
    found = preflight(config(None, val))
    assert found.errors == [] and "has no objects, or crowds alone" in found.warnings[0]


def test_a_dataset_without_a_file_is_told(config):
    (message,) = errors(config(None, None, "dataloader.train.dataset.json_file=null"))
    assert "dataset 'preflight_train' needs the annotations None, and there is no" in message


def test_the_number_of_classes_can_be_left_to_the_data(config):
    cfg = config(None, None, "model.roi_heads.num_classes=auto", path=CASCADE)
    follow_data(cfg)
    assert cfg.model.roi_heads.num_classes == 2
    assert [p.num_classes for p in cfg.model.roi_heads.box_predictors] == [2, 2, 2]
    assert cfg.model.roi_heads.mask_head.num_classes == 2


def test_classes_that_no_data_tell_cannot_be_followed(config):
    cfg = config(None, None, "model.roi_heads.num_classes=auto")
    cfg.dataloader.train.dataset = {"_target_": "builtins.list"}
    with pytest.raises(ValueError, match="num_classes=auto needs training data that tell their"):
        follow_data(cfg)


def test_validation_must_have_the_categories_of_training_in_their_order(config):
    swapped = sound()
    swapped["categories"] = [{"id": 1, "name": "blue"}, {"id": 2, "name": "red"}]
    (message,) = errors(config(None, swapped))
    assert "preflight_val has them in another order (blue, red instead of red, blue)" in message


def test_validation_must_have_no_other_categories(config):
    other = sound()
    other["categories"][1]["name"] = "green"
    (message,) = errors(config(None, other))
    assert "preflight_val lacks blue; adds green" in message


def test_missing_masks_are_told_with_the_file_and_the_first_annotations(config):
    some = changed("annotations", "segmentation", None, slice(1))
    (message,) = errors(config(None, some))
    assert "preflight_val.json: objects have no segmentation" in message
    assert "1: annotation 1 of image" in message and "(dataloader.test)" in message
    assert errors(config(some, some, path=RETINANET)) == []


@pytest.mark.parametrize("path", [MASK, CASCADE])
def test_without_instance_masks_a_mask_config_is_a_detector_of_boxes(config, path):
    boxes = changed("annotations", "segmentation", [])
    cfg = config(boxes, boxes, "dataloader.train.mapper.use_instance_mask=False", path=path)
    assert errors(cfg) == []
    assert cfg.model.roi_heads.mask_head is None and not instantiate(cfg.model).roi_heads.mask_on


def test_a_dataset_of_boxes_makes_a_detector_of_boxes(config):
    some = changed("annotations", "segmentation", None, slice(1))
    options = ("dataloader.train", "dataloader.test")
    cfg = config(some, some, *(f"+{o}.dataset.missing_masks=boxes" for o in options))
    assert errors(cfg) == []
    assert cfg.model.roi_heads.mask_head is None


def test_rectangles_stand_in_for_missing_masks(config):
    some = changed("annotations", "segmentation", None, slice(1))
    options = ("dataloader.train", "dataloader.test")
    cfg = config(some, some, *(f"+{o}.dataset.missing_masks=rectangle" for o in options))
    assert errors(cfg) == []
    assert cfg.model.roi_heads.mask_head is not None


def test_files_that_do_not_exist_are_told(config, tmp_path):
    cfg = config(None, changed("images", "file_name", "none.png", slice(1)))
    (message,) = errors(cfg)
    assert "preflight_val.json: image files do not exist (1: image 1 (" in message
    (message,) = errors(config(None, None, f"dataloader.test.dataset.json_file={tmp_path}/no.json"))
    assert "no.json, and there is no such file (dataloader.*.dataset.json_file)" in message


def test_what_a_file_refuses_is_told_for_both_files(config):
    odd = changed("annotations", "iscrowd", "perhaps", slice(1))
    messages = errors(config(odd, odd))
    assert [m.split(": ")[0].rsplit("/", 1)[1] for m in messages] == [
        "preflight_train.json",
        "preflight_val.json",
    ]


def test_a_sample_that_cannot_be_mapped_is_told(config, tmp_path):
    (tmp_path / "images/1.png").write_bytes(b"no picture")
    assert any("1.png" in message for message in errors(config()))


def test_what_is_wrong_with_a_file_of_both_loaders_is_told_once(config, tmp_path):
    shared = [
        f"dataloader.test.dataset.{key}=${{dataloader.train.dataset.{key}}}"
        for key in ("name", "json_file", "image_root")
    ]
    (tmp_path / "images/1.png").write_bytes(b"no picture")
    (message,) = errors(config(None, None, *shared))
    assert "1.png" in message


def test_large_annotations_are_told_before_they_are_read(config, monkeypatch):
    lines = []
    preflight(config(), tell=lines.append)
    assert lines == []
    monkeypatch.setattr("mimdet.engine.preflight._LARGE", 0)
    preflight(config(), tell=lines.append)
    assert [line.split(" ")[0] for line in lines] == ["reads", "looks", "reads", "looks"]
    assert "preflight_train.json (0 MB)" in lines[0] and "its 3 images in " in lines[1]


@pytest.mark.parametrize("processes, steps", [(3, 1), (1, 3), (2, 2)])
def test_the_batch_is_divided_by_processes_and_pieces(config, processes, steps):
    cfg = config(None, None, f"train.accumulation_steps={steps}")
    (message,) = errors(cfg, processes=processes)
    assert message.endswith(f"got 2 for {processes} x {steps}")


@pytest.mark.parametrize(
    ("key", "value", "must"),
    [
        ("train.max_iter", "-1", "a whole number from 1, got -1"),
        ("train.accumulation_steps", "two", "a whole number from 1, got 'two'"),
        ("dataloader.train.total_batch_size", "0", "a whole number from 1, got 0"),
        ("optimizer.lr", "fast", "a finite number from 0, got 'fast'"),
        ("train.seed", "1.5", "a whole number, or below 0 for one that is drawn, got 1.5"),
    ],
)
def test_numbers_that_are_none_are_told_with_their_key(config, key, value, must):
    assert errors(config(None, None, f"+{key}={value}")) == [f"{key} must be {must}"]


def test_a_learning_rate_that_follows_from_the_batch_is_told():
    overrides = ["dataloader.train.dataset.source=synthetic:8"]
    path = "configs/pretrain/mae_vit_base.py"
    found = preflight(load_config(str(REPOSITORY / path), overrides))
    assert found.errors == []
    assert found.plan[-1] == "learning rate 0.0024 (optimizer.lr)"


def test_parts_that_a_config_does_not_define_are_told(config):
    cfg = config()
    for part in ("optimizer", "dataloader"):
        cfg.pop(part)
    assert errors(cfg) == [
        "a config must define dataloader, lr_multiplier, model, optimizer, train; it lacks "
        "dataloader, optimizer"
    ]


def test_an_evaluation_needs_an_evaluator_and_no_training_data(config, tmp_path):
    cfg = config(None, None, f"dataloader.train.dataset.json_file={tmp_path}/no.json")
    assert errors(cfg, eval_only=True) == []
    del cfg.dataloader.evaluator
    (message,) = errors(cfg, eval_only=True)
    assert message.startswith("an evaluation needs dataloader.evaluator")


def test_the_script_prints_a_line_per_finding_and_ends_with_2(config, capsys):
    script = load_script("lazyconfig_train_net.py")
    cfg = config(None, None, "model.roi_heads.num_classes=80", "train.accumulation_steps=3")
    args = script.parse_args(["--config-file", str(REPOSITORY / MASK)])
    args.config = script.PackedConfig(cfg)
    with pytest.raises(SystemExit) as caught:
        script.check(args)
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 2
    assert all(line.startswith("preflight: error: ") for line in printed.err.splitlines())
    assert "preflight: 2 classes: red, blue" in printed.out
    cfg.preflight = False
    args.config = script.PackedConfig(cfg)
    script.check(args)
