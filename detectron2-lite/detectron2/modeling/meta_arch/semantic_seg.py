"""A network that gives every pixel a class."""

from collections.abc import Sequence

from torch import Tensor, nn

from detectron2.modeling.backbone import Backbone
from detectron2.modeling.meta_arch.detector import Detector
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import ImageList
from detectron2.structures.boxes import send

__all__ = ["SemanticSegmentor"]


class SemanticSegmentor(Detector):  # for the way of images into it
    """Backbone and a head on its maps.

    Args:
        backbone: maps images to named feature maps.
        sem_seg_head: gets the feature maps and the targets (N, H, W), or None; returns scores
            (N, K, H, W) and losses by name. Its `ignore_value` is the label of padded pixels.
        pixel_mean: mean of each channel, in the range and channel order of the input images.
        pixel_std: standard deviation of each channel.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        super().__init__(backbone, pixel_mean, pixel_std)
        self.sem_seg_head = sem_seg_head

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """The losses of a batch in training; scores otherwise.

        Args:
            batched_inputs: per image a dict with `image`, (C, H, W) with values 0..255; in
                training `sem_seg`, (H, W) labels; at test time where wanted `height` and `width`
                of the output.

        Returns:
            In training the losses; otherwise per image `{"sem_seg": (K, height, width)}`.
        """
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        results, losses = self.sem_seg_head(features, self._targets(batched_inputs))
        if self.training:
            return losses
        outputs = []
        for result, wanted, size in zip(results, batched_inputs, images.image_sizes, strict=True):
            height, width = wanted.get("height", size[0]), wanted.get("width", size[1])
            outputs.append({"sem_seg": sem_seg_postprocess(result, size, height, width)})
        return outputs

    def _targets(self, batched_inputs: list[dict]) -> Tensor | None:
        """The label maps (N, H, W), padded like the images; None if the first image has none."""
        if "sem_seg" not in batched_inputs[0]:
            return None
        return ImageList.from_tensors(
            [send(x["sem_seg"], self.device) for x in batched_inputs],
            self.backbone.size_divisibility,
            self.sem_seg_head.ignore_value,
            self.backbone.padding_constraints,
        ).tensor
