"""Box losses under the names of upstream Detectron2.

Both take two (N, 4) tensors of boxes and `reduction` "none" (default), "mean" or "sum".

Reference: Zheng et al. 2019, arXiv 1911.08287.
"""

from torchvision.ops import complete_box_iou_loss as ciou_loss
from torchvision.ops import distance_box_iou_loss as diou_loss

__all__ = ["ciou_loss", "diou_loss"]
