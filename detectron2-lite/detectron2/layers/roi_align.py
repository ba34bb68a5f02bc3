import torch
import torchvision
from torch import Tensor
from torchvision.ops import roi_align

__all__ = ["ROIAlign", "roi_align"]


class ROIAlign(torchvision.ops.RoIAlign):
    """Bilinear pooling of regions of interest.

    Args:
        output_size: (h, w) of the pooled regions, or one number for both.
        spatial_scale: pixels of the feature map per pixel of the box coordinates, 1 / stride.
        sampling_ratio: sampling points per output bin and axis; 0 for as many as the bin has
            pixels, rounded up.
        aligned: shift by half a pixel so that pixel centres lie at half-integer coordinates;
            False is the first published version, half a pixel off, in which regions have at
            least one pixel.

    Reference: He et al. 2017, arXiv 1703.06870, section 3.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = True,
    ) -> None:
        super().__init__(output_size, spatial_scale, sampling_ratio, aligned)

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Pool the regions `rois` from `input`.

        Args:
            input: (N, C, H, W).
            rois: (R, 5), each row an index into N and a box.

        Returns:
            (R, C, h, w) in the type of `input`.

        Raises:
            AssertionError: if `rois` is not (R, 5).
        """
        assert rois.dim() == 2 and rois.shape[1] == 5, (
            f"rois must be (R, 5) rows of batch index and box, got {tuple(rois.shape)}"
        )
        # bfloat16 has 8 bits: it moves a coordinate near 1000 by up to 2 pixels. So boxes keep
        # their type, and a map of a smaller one is pooled in that of the boxes.
        dtype = torch.promote_types(input.dtype, rois.dtype)
        return super().forward(input.to(dtype), rois.to(dtype)).to(input.dtype)
