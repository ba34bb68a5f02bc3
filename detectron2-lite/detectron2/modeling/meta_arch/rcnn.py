"""Two-stage detectors."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from detectron2.modeling.backbone import Backbone
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import get_event_storage
from detectron2.utils.visualizer import Visualizer

_MAX_DRAWN_PROPOSALS = 20


class GeneralizedRCNN(nn.Module):
    """Backbone, proposal generator and heads on regions, with normalisation and resizing around.

    Args:
        backbone: maps images to named feature maps.
        proposal_generator: makes proposals; None where the inputs bring them along.
        roi_heads: turns proposals into detections or losses.
        pixel_mean: mean of each channel, in the range and channel order of the input images.
        pixel_std: standard deviation of each channel.
        input_format: channel order of the input images, "RGB" or "BGR"; only drawing needs it.
        vis_period: put a picture of ground truth and proposals into the event storage at every
            that many iterations; 0: never.

    Raises:
        AssertionError: `pixel_mean` and `pixel_std` differ in length, or `vis_period` is set
            without `input_format`.

    Reference: Ren et al. 2015, arXiv 1506.01497; He et al. 2017, arXiv 1703.06870.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module | None,
        roi_heads: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str | None = None,
        vis_period: int = 0,
    ):
        super().__init__()
        assert len(pixel_mean) == len(pixel_std), (
            f"pixel_mean and pixel_std must have one value per channel, got {len(pixel_mean)} "
            f"and {len(pixel_std)}"
        )
        assert vis_period <= 0 or input_format is not None, (
            f"vis_period={vis_period} needs input_format, for the colours of the pictures"
        )
        self.backbone = backbone
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.input_format = input_format
        self.vis_period = vis_period
        mean, std = (
            torch.tensor(list(x), dtype=torch.float32).view(-1, 1, 1)
            for x in (pixel_mean, pixel_std)
        )
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the images are sent to."""
        return self.pixel_mean.device

    def forward(
        self, batched_inputs: list[dict]
    ) -> dict[str, torch.Tensor] | list[dict[str, Instances]]:
        """The losses of a batch in training, inside an `EventStorage`; detections otherwise.

        Args:
            batched_inputs: per image a dict with `image`, (C, H, W) with values 0..255; in
                training `instances` with `gt_boxes`, `gt_classes` and, for masks, `gt_masks`; at
                test time where wanted `height` and `width` of the output; `proposals` where
                there is no proposal generator.

        Returns:
            In training the losses, those of the heads first; otherwise see `inference`.

        Raises:
            AssertionError: training without `instances`, or no proposals.
        """
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        targets = None
        if all("instances" in x for x in batched_inputs):
            targets = [x["instances"].to(self.device) for x in batched_inputs]
        features = self.backbone(images.tensor)
        proposals, proposal_losses = self._propose(batched_inputs, images, features, targets)
        _, detector_losses = self.roi_heads(images, features, proposals, targets)
        if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
            self.visualize_training(batched_inputs, proposals)
        return {**detector_losses, **proposal_losses}

    def _propose(
        self,
        batched_inputs: list[dict],
        images: ImageList,
        features: dict[str, torch.Tensor],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        if self.proposal_generator is not None:
            return self.proposal_generator(images, features, targets)
        assert all("proposals" in x for x in batched_inputs), (
            "without a proposal_generator every input must have 'proposals'"
        )
        return [x["proposals"].to(self.device) for x in batched_inputs], {}

    def inference(
        self,
        batched_inputs: list[dict],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[dict[str, Instances]] | list[Instances]:
        """Detect objects.

        Args:
            batched_inputs: see `forward`.
            detected_instances: per image, boxes and classes in input resolution (`pred_boxes`,
                `pred_classes`) for which only the rest, as masks, is to be predicted.
            do_postprocess: scale the results to `height` and `width` and paste the masks.

        Returns:
            Per image `{"instances": ...}` in output resolution; without postprocessing the bare
            `Instances` in input resolution.

        Raises:
            AssertionError: in training mode.
        """
        assert not self.training, "inference works in eval mode only; call .eval() on the model"
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        if detected_instances is None:
            proposals, _ = self._propose(batched_inputs, images, features)
            results, _ = self.roi_heads(images, features, proposals, None)
        else:
            given = [x.to(self.device) for x in detected_instances]
            results = self.roi_heads.forward_with_given_boxes(features, given)
        if not do_postprocess:
            return results
        return self._postprocess(results, batched_inputs, images.image_sizes)

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """Send the images to the device, normalise them, and pad them to one batch.

        Args:
            batched_inputs: see `forward`.

        Returns:
            (N, C, H, W) float32 images; the padding is the mean colour.
        """
        # Integer images travel as they are, a quarter of the bytes. Towards a GPU the copy of a
        # pinned image need not be waited for.
        to_gpu = self.device.type == "cuda"
        images = [x["image"].to(self.device, non_blocking=to_gpu) for x in batched_inputs]
        return ImageList.from_tensors(
            [(image - self.pixel_mean) / self.pixel_std for image in images],
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )

    @staticmethod
    def _postprocess(
        instances: list[Instances],
        batched_inputs: list[dict],
        image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Instances]]:
        """Scale detections to the wanted `height` and `width`, by default those of the image."""
        return [
            {
                "instances": detector_postprocess(
                    instances_i, inputs.get("height", height), inputs.get("width", width)
                )
            }
            for instances_i, inputs, (height, width) in zip(
                instances, batched_inputs, image_sizes, strict=True
            )
        ]

    def visualize_training(self, batched_inputs: list[dict], proposals: list[Instances]) -> None:
        """Put one picture, ground truth left and the best proposals right, into the storage.

        Only the first image of the batch is drawn.

        Args:
            batched_inputs: see `forward`.
            proposals: per image, with `proposal_boxes`, best first.
        """
        image = batched_inputs[0]["image"].cpu()
        if self.input_format == "BGR":
            image = image.flip(0)
        rgb = image.permute(1, 2, 0).numpy()
        best = proposals[0].proposal_boxes[:_MAX_DRAWN_PROPOSALS]
        pictures = [
            Visualizer(rgb).overlay_instances(boxes=boxes).get_image()
            for boxes in (batched_inputs[0]["instances"].gt_boxes, best)
        ]
        get_event_storage().put_image(
            "Left: GT bounding boxes;  Right: Predicted proposals",
            torch.from_numpy(np.concatenate(pictures, axis=1)).permute(2, 0, 1),  # (3, H, 2W)
        )
