"""What one-stage and two-stage detectors have in common."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from detectron2.modeling.backbone import Backbone
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import get_event_storage

_MAX_DRAWN_PROPOSALS = 20


class Detector(nn.Module):
    """The way of images into a detector, and of detections out of it.

    Args:
        backbone: maps images to named feature maps.
        pixel_mean: mean of each channel, in the range and channel order of the input images.
        pixel_std: standard deviation of each channel.
        input_format: channel order of the input images, "RGB" or "BGR"; only drawing needs it.
        vis_period: put a picture into the event storage in training at every that many iterations;
            0: never.

    Raises:
        AssertionError: `pixel_mean` and `pixel_std` differ in length, or `vis_period` is set
            without `input_format`.
    """

    def __init__(
        self,
        backbone: Backbone,
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
        self.input_format = input_format
        self.vis_period = vis_period
        # Not persistent: the config has them, and upstream's checkpoints do not.
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            buffer = torch.tensor(list(values), dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the images are sent to."""
        return self.pixel_mean.device

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
        paste_masks: bool = True,
    ) -> list[dict[str, Instances]]:
        """Scale detections to the wanted `height` and `width`, by default those of the image."""
        outputs = []
        for found, wanted, size in zip(instances, batched_inputs, image_sizes, strict=True):
            height, width = wanted.get("height", size[0]), wanted.get("width", size[1])
            found = detector_postprocess(found, height, width, paste_masks=paste_masks)
            outputs.append({"instances": found})
        return outputs

    def _is_time_to_draw(self) -> bool:
        return self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0

    def visualize_training(self, batched_inputs: list[dict], proposals: list[Instances]) -> None:
        """Put one picture, ground truth left and the best proposals right, into the storage.

        Only the first image of the batch is drawn.

        Args:
            batched_inputs: see `forward`.
            proposals: per image, with `proposal_boxes`, best first.
        """
        # Imported late: most runs draw nothing.
        from detectron2.utils.visualizer import Visualizer

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
