"""The names of upstream Detectron2 that lite leaves out, and the way on without them."""

import sys
from collections.abc import Iterator
from functools import partial
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NoReturn

# The way on, as an imperative ("" where only upstream has the thing) -> "module: names" lines.
# Modules are written without "detectron2."; "module: *" leaves the whole module out.
_TABLE = {
    "describe objects with detectron2.config.LazyCall and build them with "
    "detectron2.config.instantiate": """
        config: CfgNode configurable downgrade_config get_cfg global_cfg set_global_cfg
        config: upgrade_config
        config.compat: *
        config.config: *
        config.defaults: *
        data.detection_utils: build_augmentation build_transform_gen
        modeling: ANCHOR_GENERATOR_REGISTRY BACKBONE_REGISTRY META_ARCH_REGISTRY
        modeling: PROPOSAL_GENERATOR_REGISTRY ROI_BOX_HEAD_REGISTRY ROI_HEADS_REGISTRY
        modeling: ROI_KEYPOINT_HEAD_REGISTRY ROI_MASK_HEAD_REGISTRY RPN_HEAD_REGISTRY
        modeling: SEM_SEG_HEADS_REGISTRY build_anchor_generator build_backbone build_box_head
        modeling: build_keypoint_head build_mask_head build_model build_proposal_generator
        modeling: build_resnet_backbone build_roi_heads build_rpn_head build_sem_seg_head
        modeling.anchor_generator: build_anchor_generator
        modeling.backbone: BACKBONE_REGISTRY build_backbone build_resnet_backbone
        modeling.backbone.build: *
        modeling.backbone.fpn: build_resnet_fpn_backbone build_retinanet_resnet_fpn_backbone
        modeling.backbone.resnet: build_resnet_backbone
        modeling.meta_arch: META_ARCH_REGISTRY SEM_SEG_HEADS_REGISTRY build_model
        modeling.meta_arch: build_sem_seg_head
        modeling.meta_arch.build: *
        modeling.proposal_generator: PROPOSAL_GENERATOR_REGISTRY RPN_HEAD_REGISTRY
        modeling.proposal_generator: build_proposal_generator build_rpn_head
        modeling.proposal_generator.build: *
        modeling.proposal_generator.rpn: build_rpn_head
        modeling.roi_heads: ROI_BOX_HEAD_REGISTRY ROI_HEADS_REGISTRY ROI_KEYPOINT_HEAD_REGISTRY
        modeling.roi_heads: ROI_MASK_HEAD_REGISTRY build_box_head build_keypoint_head
        modeling.roi_heads: build_mask_head build_roi_heads
        modeling.roi_heads.box_head: ROI_BOX_HEAD_REGISTRY build_box_head
        modeling.roi_heads.mask_head: ROI_MASK_HEAD_REGISTRY build_mask_head
        modeling.roi_heads.roi_heads: build_roi_heads
    """,
    "use detectron2.config.LazyConfig.save, which writes dataclass objects too": """
        config.instantiate: dump_dataclass
    """,
    "build the model with detectron2.config.instantiate, load it with "
    "detectron2.checkpoint.DetectionCheckpointer and call it in evaluation mode": """
        engine: DefaultPredictor
        engine.defaults: DefaultPredictor
    """,
    "use detectron2.engine.SimpleTrainer or AMPTrainer with hooks, as LazyConfig scripts do": """
        engine: DefaultTrainer
        engine.defaults: DefaultTrainer
    """,
    "use torch.profiler in a detectron2.engine.CallbackHook": """
        engine: AutogradProfiler TorchProfiler
        engine.hooks: AutogradProfiler TorchProfiler
    """,
    "use torch.cuda.memory_summary in a detectron2.engine.CallbackHook": """
        engine: TorchMemoryStats
        engine.hooks: TorchMemoryStats
    """,
    "use fvcore.nn.update_bn_stats in a detectron2.engine.CallbackHook": """
        engine: PreciseBN
        engine.hooks: PreciseBN
    """,
    "use fvcore's schedules with detectron2.solver.WarmupParamScheduler": """
        solver: WarmupCosineLR WarmupMultiStepLR build_lr_scheduler
        solver.build: build_lr_scheduler
        solver.lr_scheduler: WarmupCosineLR WarmupMultiStepLR
    """,
    "give a torch optimizer the groups of detectron2.solver.get_default_optimizer_params": """
        solver: build_optimizer
        solver.build: build_optimizer reduce_param_groups
    """,
    "clip in the after_backward method of a hook, as mimdet.engine.hooks.GradientClipping does": """
        solver.build: GradientClipType maybe_add_gradient_clipping
    """,
    "use mimdet.modeling.backbone.vitdet.ViT": """
        modeling: ViT
        modeling.backbone: ViT
    """,
    "use mimdet.modeling.backbone.vitdet.SimpleFeaturePyramid": """
        modeling: SimpleFeaturePyramid
        modeling.backbone: SimpleFeaturePyramid
    """,
    "use mimdet.solver.layer_decay.get_vit_lr_decay_rate": """
        modeling: get_vit_lr_decay_rate
        modeling.backbone: get_vit_lr_decay_rate
    """,
    "use mimdet.modeling.backbone.vitdet and mimdet.solver.layer_decay": """
        modeling.backbone.vit: *
    """,
    "use mimdet.modeling.backbone.vitdet, mimdet.layers.window and mimdet.layers.rel_pos": """
        modeling.backbone.utils: *
    """,
    "wrap the model of timm with mimdet.modeling.backbone.timm_backbone.TimmBackbone": """
        modeling: MViT SwinTransformer
        modeling.backbone: MViT RegNet SwinTransformer
        modeling.backbone.mvit: *
        modeling.backbone.regnet: *
        modeling.backbone.swin: *
    """,
    "use torchvision.ops.DeformConv2d": """
        layers: DeformConv ModulatedDeformConv
        layers.deform_conv: *
    """,
    "use torchvision.ops and pycocotools: lite compiles nothing": """
        _C: *
    """,
    "use torchvision.models.segmentation.deeplabv3.ASPP": """
        layers: ASPP
        layers.aspp: *
    """,
    "use detectron2.layers.paste_masks_in_image": """
        layers.mask_ops: pad_masks paste_mask_in_image_old scale_boxes
    """,
    "use detectron2.layers.cross_entropy, which accepts no targets": """
        layers: empty_input_loss_func_wrapper
        layers.wrappers: empty_input_loss_func_wrapper
    """,
    "use torch.compiler.is_compiling": """
        layers.wrappers: check_if_dynamo_compiling
    """,
    "use torch.compiler.disable": """
        layers.wrappers: disable_torch_compiler
    """,
    "use detectron2.modeling.roi_heads.StandardROIHeads on a feature pyramid": """
        modeling: Res5ROIHeads
        modeling.roi_heads: Res5ROIHeads
        modeling.roi_heads.roi_heads: Res5ROIHeads
    """,
    "use detectron2.modeling.proposal_generator.RPN in a module of your own": """
        modeling: ProposalNetwork
        modeling.meta_arch: ProposalNetwork
        modeling.meta_arch.rcnn: ProposalNetwork
    """,
    "use detectron2.modeling.RetinaNet, the dense detector of lite": """
        modeling: FCOS
        modeling.meta_arch: FCOS
        modeling.meta_arch.fcos: *
        modeling.box_regression: Box2BoxTransformLinear
    """,
    "give train.init_checkpoint as a file name or an address": """
        checkpoint.catalog: *
        model_zoo: *
    """,
    "load released .pth files or convert the weights with upstream once": """
        checkpoint.c2_model_loading: *
    """,
    "time the loader with detectron2.engine.IterationTimer, which stores data_time": """
        data.benchmark: *
    """,
    "let detectron2.data.common.DatasetFromList serialize as it does": """
        data.common: set_default_dataset_from_list_serialize_method
    """,
    "use detectron2.data.common.AspectRatioGroupedDataset": """
        data.samplers: GroupedBatchSampler
        data.samplers.grouped_batch_sampler: *
    """,
    "read detectron2.data.MetadataCatalog once the data set is loaded": """
        data.datasets: builtin_meta get_lvis_instances_meta
        data.datasets.builtin_meta: *
        data.datasets.lvis: get_lvis_instances_meta
        data.datasets.lvis_v0_5_categories: *
        data.datasets.lvis_v1_categories: *
        data.datasets.lvis_v1_category_image_count: *
    """,
    "set DETECTRON2_DATASETS: COCO and LVIS are registered below it": """
        data.datasets.builtin: register_all_coco register_all_lvis
        data.datasets.register_coco: *
    """,
    "call detectron2.data.DatasetCatalog.get in a script of your own": """
        data.datasets.coco: main
        data.datasets.lvis: main
    """,
    "register a function of your own with detectron2.data.DatasetCatalog": """
        data.datasets: load_sem_seg load_voc_instances register_coco_panoptic
        data.datasets: register_coco_panoptic_separated register_pascal_voc
        data.datasets.builtin: register_all_ade20k register_all_cityscapes
        data.datasets.builtin: register_all_pascal_voc
        data.datasets.cityscapes: *
        data.datasets.cityscapes_panoptic: *
        data.datasets.coco: load_sem_seg
        data.datasets.coco_panoptic: *
        data.datasets.pascal_voc: *
    """,
    "let detectron2.data.get_detection_dataset_dicts compare the classes": """
        data.detection_utils: check_metadata_consistency
    """,
    "derive a class from detectron2.data.transforms.Augmentation or Transform": """
        data.detection_utils: gen_crop_transform_with_instance get_bbox
        data.transforms: ColorTransform ExtentTransform MinIoURandomCrop PILColorTransform
        data.transforms: RandomCrop_CategoryAreaConstraint RandomExtent RandomLighting
        data.transforms: RandomRotation RotationTransform
        data.transforms.augmentation_impl: MinIoURandomCrop RandomCrop_CategoryAreaConstraint
        data.transforms.augmentation_impl: RandomExtent RandomLighting RandomRotation
        data.transforms.transform: ColorTransform ExtentTransform PILColorTransform
        data.transforms.transform: RotationTransform
    """,
    "use detectron2.evaluation.COCOEvaluator, which scores by faster-coco-eval": """
        evaluation.fast_eval_api: *
    """,
    "use detectron2.evaluation.COCOEvaluator with max_dets_per_image": """
        evaluation.coco_evaluation: COCOevalMaxDets
    """,
    "compare with detectron2.evaluation.testing.flatten_results_dict": """
        evaluation: verify_results
        evaluation.testing: verify_results
    """,
    "derive a class from detectron2.evaluation.DatasetEvaluator": """
        evaluation: COCOPanopticEvaluator CityscapesInstanceEvaluator CityscapesSemSegEvaluator
        evaluation: PascalVOCDetectionEvaluator SemSegEvaluator
        evaluation.cityscapes_evaluation: *
        evaluation.panoptic_evaluation: *
        evaluation.pascal_voc_evaluation: *
        evaluation.sem_seg_evaluation: *
    """,
    "use fvcore.nn.ActivationCountAnalysis": """
        utils.analysis: activation_count_operators
    """,
    "look for parameters whose grad is None after a backward pass": """
        utils.analysis: find_unused_parameters
    """,
    "use detectron2.utils.collect_env.collect_env_info": """
        utils.collect_env: collect_torch_env detect_compute_compatibility get_env_module main
        utils.collect_env: test_nccl_ops
    """,
    "use detectron2.utils.env.seed_all_rng; nothing else is set up": """
        utils.env: fixup_module_metadata setup_custom_environment setup_environment
    """,
    "use cloudpickle; detectron2.data.MapDataset does so with its function": """
        utils.serialize: *
    """,
    "compare torch.__version__": """
        utils.torch_version_utils: *
    """,
    "draw each frame with detectron2.utils.visualizer.Visualizer": """
        utils.video_visualizer: *
        utils.visualizer: GenericMask random_color
    """,
    "": """
        data: load_proposals_into_dataset
        data.build: filter_images_with_few_keypoints load_proposals_into_dataset
        data.detection_utils: annotations_to_instances_rotated create_keypoint_hflip_indices
        data.detection_utils: transform_keypoint_annotations transform_proposals
        data.transforms.transform: HFlip_rotated_box Resize_rotated_box
        evaluation: RotatedCOCOEvaluator
        evaluation.rotated_coco_evaluation: *
        export: *
        layers: ROIAlignRotated batched_nms_rotated nms_rotated roi_align_rotated
        layers.nms: batched_nms_rotated nms_rotated
        layers.roi_align_rotated: *
        layers.rotated_boxes: *
        modeling: BaseKeypointRCNNHead DatasetMapperTTA GeneralizedRCNNWithTTA MMDetBackbone
        modeling: MMDetDetector PanopticFPN SemanticSegmentor
        modeling.anchor_generator: RotatedAnchorGenerator
        modeling.backbone: DeformBottleneckBlock
        modeling.backbone.resnet: DeformBottleneckBlock
        modeling.box_regression: Box2BoxTransformRotated
        modeling.meta_arch: PanopticFPN SemSegFPNHead SemanticSegmentor
        modeling.meta_arch.panoptic_fpn: *
        modeling.meta_arch.semantic_seg: *
        modeling.mmdet_wrapper: *
        modeling.proposal_generator: RRPN
        modeling.proposal_generator.rrpn: *
        modeling.roi_heads: BaseKeypointRCNNHead KRCNNConvDeconvUpsampleHead RROIHeads
        modeling.roi_heads: RotatedFastRCNNOutputLayers
        modeling.roi_heads.keypoint_head: *
        modeling.roi_heads.roi_heads: select_proposals_with_visible_keypoints
        modeling.roi_heads.rotated_fast_rcnn: *
        modeling.test_time_augmentation: *
        projects: *
        structures: Keypoints RotatedBoxes heatmaps_to_keypoints pairwise_iou_rotated
        structures.keypoints: *
        structures.rotated_boxes: *
        tracking: *
        utils.colormap: *
        utils.develop: *
        utils.testing: *
        utils.tracing: *
    """,
}


def _rows() -> Iterator[tuple[str, str]]:
    """(dotted name, way on) of everything that is left out."""
    for way_on, lines in _TABLE.items():
        for line in filter(None, map(str.strip, lines.splitlines())):
            module, _, names = line.partition(": ")
            for name in names.split():
                yield f"detectron2.{module}.{name}".removesuffix(".*"), way_on


LEFT_OUT = dict(_rows())
"""Dotted name -> the way on without it."""


def _refuse(dotted_name: str) -> None:
    if dotted_name in LEFT_OUT:
        way_on = LEFT_OUT[dotted_name]
        raise ImportError(
            f"{dotted_name} is not part of detectron2-lite; {way_on + ', or ' if way_on else ''}"
            "install upstream Detectron2 (uninstall detectron2-lite first: both provide "
            "`detectron2`)"
        )


def _get_missing(module: str, name: str) -> NoReturn:
    _refuse(f"{module}.{name}")
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


class _Finder(PathFinder):
    """Import hook by which modules and names that lite leaves out explain themselves.

    It gives every module its `__getattr__`. Written out in fifty files, that function would also
    make a mistyped name look valid to type checkers.
    """

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not fullname.startswith("detectron2."):
            return None
        _refuse(fullname)
        spec = super().find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            _let_explain(spec.loader)
        return spec


def _let_explain(loader: Loader) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        module.__getattr__ = partial(_get_missing, module.__name__)
        execute(module)

    loader.exec_module = exec_module


sys.meta_path.insert(0, _Finder)
