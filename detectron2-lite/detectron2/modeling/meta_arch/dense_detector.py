"""One-stage detectors, which predict at every cell of the feature maps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detectron2.modeling.anchor_generator import by_anchor
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.meta_arch.detector import Detector
from detectron2.structures import ImageList, Instances

permute_to_N_HWA_K = by_anchor


class DenseDetector(Detector):
    """Backbone and a head on its maps; subclasses say what the predictions mean.

    A subclass defines `forward_training` and `forward_inference`.

    Args:
        backbone: maps images to named feature maps.
        head: gets the list of feature maps and returns a tuple of predictions, each a list with
            one (N, C, H, W) tensor per map.
        head_in_features: names of the maps for the head; None for all, finest first.
        **kwargs: `pixel_mean`, `pixel_std`, and where wanted `input_format` and `vis_period`, see
            `Detector`. Drawn are ground truth and detections.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: Sequence[str] | None = None,
        **kwargs: Any,
    ):
        super().__init__(backbone, **kwargs)
        self.head = head
        if head_in_features is None:
            shapes = backbone.output_shape()
            head_in_features = sorted(shapes, key=lambda name: shapes[name].stride)
        self.head_in_features = list(head_in_features)

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """The losses of a batch in training, inside an `EventStorage`; detections otherwise.

        Args:
            batched_inputs: per image a dict with `image`, (C, H, W) with values 0..255; in
                training `instances` with `gt_boxes` and `gt_classes`; at test time where wanted
                `height` and `width` of the output.

        Returns:
            In training the losses; otherwise per image `{"instances": ...}` in output resolution.

        Raises:
            AssertionError: training without `instances`.
        """
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        features = [features[name] for name in self.head_in_features]
        predictions = self.head(features)
        if not self.training:
            results = self.forward_inference(images, features, predictions)
            return self._postprocess(results, batched_inputs, images.image_sizes)
        assert all("instances" in x for x in batched_inputs), (
            f"{type(self).__name__} needs targets in training; every input must have 'instances'"
        )
        targets = [x["instances"].to(self.device) for x in batched_inputs]
        losses = self.forward_training(images, features, predictions, targets)
        if self._is_time_to_draw():
            with torch.no_grad():
                results = self.forward_inference(images, features, predictions)
            self.visualize_training(batched_inputs, results)
        return losses

    def visualize_training(self, batched_inputs: list[dict], results: list[Instances]) -> None:
        """Put one picture, ground truth left and the best detections right, into the storage.

        Only the first image of the batch is drawn.

        Args:
            batched_inputs: see `forward`.
            results: what `forward_inference` returned.
        """
        shown = [Instances(x.image_size, proposal_boxes=x.pred_boxes) for x in results]
        super().visualize_training(batched_inputs, shown)

    def forward_training(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: tuple[list[Tensor], ...],
        gt_instances: list[Instances],
    ) -> dict[str, Tensor]:
        """The losses by name, from the feature maps and what the head says of them."""
        raise NotImplementedError(f"{type(self).__name__} must define forward_training()")

    def forward_inference(
        self, images: ImageList, features: list[Tensor], predictions: tuple[list[Tensor], ...]
    ) -> list[Instances]:
        """Per image the detections in input resolution: `pred_boxes`, `scores`, `pred_classes`."""
        raise NotImplementedError(f"{type(self).__name__} must define forward_inference()")
