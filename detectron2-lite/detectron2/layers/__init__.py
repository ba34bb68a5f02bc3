import warnings

with warnings.catch_warnings():
    # fvcore scripts its focal loss at import; whoever imports detectron2 cannot help it
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    import fvcore.nn

from detectron2.layers.batch_norm import (
    CycleBatchNormList,
    FrozenBatchNorm2d,
    NaiveSyncBatchNorm,
    get_norm,
)
from detectron2.layers.blocks import CNNBlockBase, DepthwiseSeparableConv2d
from detectron2.layers.losses import ciou_loss, diou_loss
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.layers.nms import batched_nms, nms
from detectron2.layers.roi_align import ROIAlign, roi_align
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.wrappers import (
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Linear,
    cat,
    cross_entropy,
    interpolate,
    move_device_like,
    nonzero_tuple,
    shapes_to_tensor,
)
