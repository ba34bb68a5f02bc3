"""The evaluator that a config describes, and the protocol that its results carry."""

import json
from pathlib import Path

import coco_files
import pytest
import torch
from coco_files import HEIGHT, WIDTH, sound
from config_files import load_stem
from toy_runs import CONFIG

from detectron2.config import LazyConfig, instantiate
from detectron2.evaluation import DatasetEvaluators
from detectron2.structures import Boxes, Instances
from mimdet.checkpoint.evaluated import EvaluatedWeights
from mimdet.engine.evaluation import build_evaluator, describe_evaluation
from mimdet.evaluation.imagenet import ImageNetEvaluator
from mimdet.evaluation.run_evaluator import RunEvaluator, Truth

NAME = "evaluation_val"


@pytest.fixture(autouse=True)
def _own_catalogs(tmp_path, monkeypatch):
    with coco_files.own_catalogs(tmp_path, monkeypatch, NAME):
        yield


def config_of(folder: Path, content: dict, **evaluator):
    """A config of a run whose test data are registered."""
    cfg = LazyConfig.load(CONFIG)
    cfg.train.output_dir = str(folder)
    cfg.dataloader.test.dataset.update(
        name=NAME, json_file=coco_files.write(folder, content), image_root=str(folder)
    )
    cfg.dataloader.evaluator.update(evaluator)
    instantiate(cfg.dataloader.test.dataset)
    return cfg


def renamed(image_ids: dict, category_ids: dict) -> dict:
    """The sound file with other ids of its images and categories."""
    content = sound()
    for section, key, ids in (
        ("images", "id", image_ids),
        ("categories", "id", category_ids),
        ("annotations", "image_id", image_ids),
        ("annotations", "category_id", category_ids),
    ):
        for entry in content[section]:
            entry[key] = ids.get(entry[key], entry[key])
    return content


def perfect(record: dict) -> dict:
    boxes = torch.tensor([a["bbox"] for a in record["annotations"]])
    boxes[:, 2:] += boxes[:, :2]
    instances = Instances((HEIGHT, WIDTH))
    instances.pred_boxes = Boxes(boxes)
    instances.scores = torch.full((len(boxes),), 0.9)
    instances.pred_classes = torch.tensor([a["category_id"] for a in record["annotations"]])
    return {"instances": instances}


def evaluated(cfg, detector=perfect) -> dict:
    evaluator = build_evaluator(cfg, Path(cfg.train.output_dir) / "results.json")
    evaluator.reset()
    for record in instantiate(cfg.dataloader.test.dataset):
        evaluator.process([record], [detector(record)])
    return evaluator.evaluate()


@pytest.mark.parametrize(
    "image_ids, category_ids",
    [
        ({}, {}),
        ({1: "img-1", 2: "img-2", 3: "img-3"}, {}),
        ({2: "img-2"}, {1: "r", 2: "b"}),
        ({1: "1", 3: 3.0}, {1: "1"}),
        ({}, {1: 90, 2: 17}),
    ],
)
def test_perfect_detections_have_ap_100_and_the_ids_of_the_file_in_the_runs_folder(
    tmp_path, image_ids, category_ids
):
    content = renamed(image_ids, category_ids)
    results = evaluated(config_of(tmp_path, content))
    assert results["bbox"]["AP"] == pytest.approx(100)
    found = json.loads((tmp_path / "coco_instances_results.json").read_text())
    expected = {(repr(a["image_id"]), repr(a["category_id"])) for a in content["annotations"]}
    assert {(repr(d["image_id"]), repr(d["category_id"])) for d in found} == expected


def test_the_folder_of_the_predictions_can_be_chosen(tmp_path):
    evaluated(config_of(tmp_path, sound(), output_dir=str(tmp_path / "other")))
    assert (tmp_path / "other/coco_instances_results.json").exists()
    assert not (tmp_path / "coco_instances_results.json").exists()


def test_without_a_folder_no_predictions_are_written(tmp_path):
    evaluated(config_of(tmp_path, sound(), output_dir=None))
    assert not list(tmp_path.rglob("coco_instances_results*"))


def nothing(record: dict) -> dict:
    found = perfect(record)["instances"][:0]
    found.pred_masks = torch.zeros(0, HEIGHT, WIDTH)
    return {"instances": found}


def test_a_model_that_detects_nothing_has_ap_0_but_for_what_does_not_exist(tmp_path):
    results = evaluated(config_of(tmp_path, sound()), nothing)
    assert results.keys() == {"bbox", "segm"}
    for metrics in results.values():
        undefined = {name for name, value in metrics.items() if value != value}
        assert undefined == {"APm", "APl"}  # all objects are small
        assert metrics["AP"] == metrics["AP-red"] == metrics["AP-blue"] == 0


def test_the_protocol_says_what_the_numbers_depend_on(tmp_path):
    cfg = config_of(tmp_path, sound(), max_dets_per_image=50)
    cfg.model.backbone.bottom_up.update(sample_ratio=0.75, sample_seed=4)
    cfg.model.roi_heads.box_predictor.update(test_score_thresh=0.1, test_topk_per_image=7)
    model = instantiate(cfg.model)
    evaluator = build_evaluator(cfg, tmp_path / "results.json")
    weights = EvaluatedWeights("ema", "model_final.pth", 89999)
    protocol = describe_evaluation(cfg, model, evaluator, weights)
    assert json.loads(json.dumps(protocol)) == protocol
    versions = protocol.pop("versions")
    assert versions["torch"] == torch.__version__ and versions.keys() == {
        *("torch", "mimdet", "detectron2")
    }
    name, version = protocol.pop("scorer").rsplit(" ", 1)
    assert name and version[0].isdigit()
    assert protocol == {
        "weights": {"kind": "ema", "file": "model_final.pth", "iteration": 89999},
        **{"sample_ratio": 0.75, "sample_seed": 4, "sample_padding": "attend"},
        "sampler": "random",
        **{"score_threshold": 0.1, "nms_threshold": 0.5, "max_detections_per_image": 7},
        "resolution": [{"ResizeShortestEdge": {"short_edge_length": 112}}],
        "evaluator": {"COCOEvaluator": {"dataset_name": NAME, "max_dets_per_image": 50}},
    }


def around(evaluator) -> RunEvaluator:
    return RunEvaluator(evaluator, Truth(), Path("results.json"), None)


def test_the_protocol_of_a_detector_that_samples_nothing_does_not_speak_of_sampling():
    cfg = load_stem("retinanet_mpvit_tiny_toy")
    protocol = describe_evaluation(cfg, instantiate(cfg.model), around(DatasetEvaluators([])))
    assert "sample_ratio" not in protocol and protocol["weights"] is None
    assert protocol["score_threshold"] == 0.05 and protocol["max_detections_per_image"] == 100


def test_the_protocol_of_a_classifier_has_its_resolution_and_no_scorer():
    cfg = load_stem("finetune_cmt_toy")
    protocol = describe_evaluation(cfg, torch.nn.Identity(), around(ImageNetEvaluator()))
    (resolution,) = protocol["resolution"].values()
    assert resolution["input_size"] == cfg.dataloader.train.mapper.transform.input_size
    assert protocol["scorer"] is None
