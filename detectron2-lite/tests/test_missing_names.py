"""Names of upstream that lite leaves out say so."""

import importlib

import pytest

import detectron2

pytestmark = pytest.mark.lite

EXPLANATION = "is not part of detectron2-lite; install upstream Detectron2"

NAMES = {
    "detectron2": ["model_zoo", "export", "projects", "tracking"],
    "detectron2.config": ["CfgNode", "configurable", "get_cfg", "set_global_cfg"],
    "detectron2.data": ["load_proposals_into_dataset", "benchmark"],
    "detectron2.data.datasets": ["load_sem_seg", "register_coco_panoptic", "builtin_meta"],
    "detectron2.data.transforms": ["RandomRotation", "RandomLighting", "RotationTransform"],
    "detectron2.engine": ["DefaultPredictor", "DefaultTrainer", "PreciseBN", "TorchProfiler"],
    "detectron2.engine.defaults": ["DefaultPredictor", "DefaultTrainer"],
    "detectron2.engine.hooks": ["PreciseBN", "TorchProfiler", "AutogradProfiler"],
    "detectron2.evaluation": ["SemSegEvaluator", "PascalVOCDetectionEvaluator", "verify_results"],
    "detectron2.evaluation.testing": ["verify_results"],
    "detectron2.layers": ["ASPP", "DeformConv", "ROIAlignRotated", "batched_nms_rotated"],
    "detectron2.modeling": ["build_model", "META_ARCH_REGISTRY", "ViT", "GeneralizedRCNNWithTTA"],
    "detectron2.modeling.backbone": ["build_backbone", "BACKBONE_REGISTRY", "SwinTransformer"],
    "detectron2.modeling.meta_arch": ["PanopticFPN", "SemanticSegmentor", "build_model"],
    "detectron2.modeling.proposal_generator": ["build_proposal_generator", "RRPN"],
    "detectron2.modeling.roi_heads": ["ROI_HEADS_REGISTRY", "Res5ROIHeads", "build_mask_head"],
    "detectron2.solver": ["build_optimizer", "build_lr_scheduler", "WarmupCosineLR"],
    "detectron2.structures": ["Keypoints", "RotatedBoxes", "pairwise_iou_rotated"],
    "detectron2.utils": ["video_visualizer", "colormap", "serialize"],
    "detectron2.utils.analysis": ["find_unused_parameters"],
    "detectron2.utils.visualizer": ["GenericMask"],
}


@pytest.mark.parametrize("module, name", [(m, n) for m, names in NAMES.items() for n in names])
def test_importing_a_name_that_is_left_out_says_so(module, name):
    with pytest.raises(ImportError, match=rf"^{module}\.{name} {EXPLANATION}"):
        exec(f"from {module} import {name}")


@pytest.mark.parametrize(
    "module",
    [
        "detectron2.model_zoo",
        "detectron2.config.defaults",
        "detectron2.data.benchmark",
        "detectron2.data.datasets.builtin_meta",
        "detectron2.modeling.test_time_augmentation",
        "detectron2.modeling.backbone.vit",
        "detectron2.modeling.roi_heads.keypoint_head",
        "detectron2.structures.rotated_boxes",
        "detectron2.utils.video_visualizer",
    ],
)
def test_importing_a_module_that_is_left_out_says_so(module):
    with pytest.raises(ImportError, match=f"^{module} {EXPLANATION}"):
        importlib.import_module(module)


def test_a_name_below_a_module_that_is_left_out_is_explained_by_the_module():
    with pytest.raises(ImportError, match=rf"^detectron2\.model_zoo {EXPLANATION}"):
        exec("from detectron2.model_zoo import get_config")


def test_a_name_that_exists_nowhere_is_an_ordinary_error():
    with pytest.raises(AttributeError, match="module 'detectron2' has no attribute 'modelzoo'"):
        _ = detectron2.modelzoo
    with pytest.raises(ModuleNotFoundError, match="No module named 'detectron2.modelzoo'"):
        importlib.import_module("detectron2.modelzoo")
