"""Every config file: loads, saves, builds, and says the truth in its head."""

import ast
import re

import torch
from config_files import (
    ALIASES,
    CONFIGS,
    FILES,
    REPOSITORY,
    SYSTEMS,
    alias_target,
    build_on_meta,
    head_of,
    parametrize,
    plain,
)
from omegaconf import OmegaConf

from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from mimdet.config import apply_overrides, load_config

EXPORTS = {"dataloader", "lr_multiplier", "model", "optimizer", "train"}


@parametrize(FILES)
def test_config_exports_what_the_script_reads(path):
    cfg = LazyConfig.load(str(path))
    assert set(cfg) >= EXPORTS
    # a cosine is a function of progress and knows no number of updates
    assert cfg.lr_multiplier.scheduler.get("num_updates") in (None, cfg.train.max_iter)


@parametrize(CONFIGS.rglob("*.py"))
def test_no_config_takes_away_or_exchanges_what_another_has_made(path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Delete)
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("pop", "_target_")
        if isinstance(node, ast.keyword):
            assert node.arg != "_target_"


@parametrize(FILES)
def test_saved_config_reads_back_equal(path, tmp_path):
    cfg = LazyConfig.load(str(path))
    file = str(tmp_path / "config.yaml")
    LazyConfig.save(cfg, file)
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]  # no pickle of what YAML lacks
    assert plain(LazyConfig.load(file)) == plain(cfg)
    # and names nothing that a stranger's file must not
    assert load_config(file, []).model.keys() == cfg.model.keys()


@parametrize(FILES)
def test_output_dir_is_named_after_the_file_or_the_file_it_stands_for(path):
    expected = (alias_target(path) or path).stem
    assert LazyConfig.load(str(path)).train.output_dir == f"output/{expected}"


@parametrize(SYSTEMS)
def test_detector_has_the_number_of_parameters_that_the_head_says(path):
    model = build_on_meta(LazyConfig.load(str(path)))
    counted = re.search(r"Counted here: ([\d,]+)\s+parameters", head_of(path))
    assert counted or path.parent.name == "toy", "the head must say 'Counted here: N parameters'"
    if counted:
        total = sum(p.numel() for p in model.parameters())
        assert total == int(counted[1].replace(",", ""))


@parametrize(SYSTEMS)
def test_mae_checkpoint_starts_parts_that_the_model_has(path):
    cfg = LazyConfig.load(str(path))
    entries = cfg.train.get("starting_weights", [])
    assert bool(entries) == ("mae_checkpoint" in cfg)
    if entries:
        cfg.mae_checkpoint.path = "MAE.pth"
        assert {entry.path for entry in entries} == {"MAE.pth"}
        parts = dict(build_on_meta(cfg).named_modules())
        assert {entry.to for entry in entries} <= parts.keys()


@parametrize(SYSTEMS)
def test_head_names_the_paper_and_gives_commands_with_paths_that_exist(path):
    head = head_of(path)
    assert re.search(r"arXiv \d{4}\.\d{5}", head)
    commands = head.replace("\\\n", " ")
    configs = re.findall(r"--config-file\s+(\S+\.py)", commands)
    assert configs, "the head must show a command with --config-file"
    assert {REPOSITORY / c for c in configs} == {path}
    for script in re.findall(r"python (\S+)", commands):
        assert (REPOSITORY / script).is_file(), script


@parametrize(SYSTEMS)
def test_every_overridden_key_in_the_head_exists(path):
    cfg = LazyConfig.load(str(path))
    overrides = re.findall(r"(?<=\s)([a-z_]+\.[\w.]+=\S+)", head_of(path))
    apply_overrides(cfg, overrides)
    assert overrides or path.parent.name == "toy"


@parametrize(SYSTEMS)
def test_every_ap_in_the_head_is_marked_as_published_or_measured(path):
    for paragraph in head_of(path).split("\n\n"):
        if re.search(r"\d box AP|\d mask AP", paragraph):
            assert re.match(r"Published \(not reproduced here\): |Measured here", paragraph)


@parametrize(ALIASES)
def test_alias_equals_the_file_that_it_stands_for(path):
    assert plain(LazyConfig.load(str(path))) == plain(LazyConfig.load(str(alias_target(path))))


TOY_DETECTORS = [
    p for p in SYSTEMS if p.parent.name == "toy" and "pixel_mean" in LazyConfig.load(str(p)).model
]


def random_input(num_classes: int, height: int, width: int) -> dict:
    """An image of noise with two objects."""
    boxes = [[10.0, 12.0, 60.0, 70.0], [50.0, 30.0, 90.0, 100.0]]
    target = Instances((height, width))
    target.gt_boxes = Boxes(torch.tensor(boxes))
    target.gt_classes = torch.tensor([0, num_classes - 1])
    target.gt_masks = PolygonMasks(
        [[torch.tensor([x0, y0, x1, y0, x1, y1, x0, y1]).numpy()] for x0, y0, x1, y1 in boxes]
    )
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    return {"image": image, "height": height, "width": width, "instances": target}


def random_batch(model) -> list[dict]:
    """Two images for the model of a config, as they come from its mapper."""
    if "sem_seg_head" not in model:
        num_classes = model.get("roi_heads", model).num_classes
        return [random_input(num_classes, 112, 128), random_input(num_classes, 128, 97)]
    num_classes, side = model.sem_seg_head.decode_head.num_classes, model.crop_size
    return [
        {
            "image": torch.randint(0, 256, (3, height, side), dtype=torch.uint8),
            "sem_seg": torch.randint(0, num_classes, (height, side)),
        }
        for height in (side, side - 5)
    ]


@parametrize(TOY_DETECTORS)
def test_toy_detector_gives_every_trainable_parameter_a_gradient(path):
    torch.manual_seed(0)
    cfg = LazyConfig.load(str(path))
    model = instantiate(cfg.model).train()
    with EventStorage():
        losses = model(random_batch(cfg.model))
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        else:
            assert parameter.grad is None, name


@parametrize(SYSTEMS)
def test_detectors_leave_masks_to_the_evaluator(path):
    cfg = LazyConfig.load(str(path))
    if OmegaConf.select(cfg, "model.roi_heads") is not None:
        assert cfg.model.paste_masks is False
