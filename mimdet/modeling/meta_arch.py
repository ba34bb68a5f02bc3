"""R-CNNs: one that never crops an image, and MIMDet's, whose backbone is given the ImageList."""

import inspect
from typing import Any

from torch import Tensor

from detectron2 import modeling
from detectron2.modeling import Backbone
from detectron2.structures import ImageList, Instances
from mimdet.modeling.postprocessing import lsj_postprocess


class GeneralizedRCNN(modeling.GeneralizedRCNN):
    """Detectron2's, but an image larger than the square its backbone asks for is refused.

    Upstream Detectron2 pads a batch to the square whatever its images measure, and loses what lies
    outside without a word.

    Args:
        paste_masks: True makes detections' `pred_masks` (N, height, width) bool. False keeps them
            as `ROIMasks`, from which evaluators encode the same run lengths in a fifth of the
            time, if Detectron2 is detectron2-lite: the evaluators of upstream read masks of the
            image alone, and there masks are pasted in any case.
        **kwargs: those of Detectron2's GeneralizedRCNN.
    """

    def __init__(self, *, paste_masks: bool = True, **kwargs: Any):
        takes_it = "paste_masks" in inspect.signature(modeling.GeneralizedRCNN.__init__).parameters
        self.paste_masks = paste_masks or not takes_it
        super().__init__(**({"paste_masks": paste_masks} if takes_it else {}), **kwargs)

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """Normalise the images and pad them to one size.

        Raises:
            ValueError: if an image does not fit into the square of the backbone.
        """
        refuse_larger(
            batched_inputs, self.backbone, "raise model.backbone.square_pad or resize the images"
        )
        return super().preprocess_image(batched_inputs)


def refuse_larger(batched_inputs: list[dict], backbone: Backbone, remedy: str) -> None:
    """Refuse images that are larger than the square to which the backbone wants them padded.

    Args:
        batched_inputs: dicts with `image`.
        backbone: its `padding_constraints` may ask for a square.
        remedy: what to do about it.

    Raises:
        ValueError: if an image does not fit.
    """
    side = backbone.padding_constraints.get("square_size", 0)
    for height, width in (x["image"].shape[-2:] for x in batched_inputs):
        if 0 < side < max(height, width):
            raise ValueError(
                f"images must fit into the square they are padded to, got {height}x{width} "
                f"(height x width) for {side}x{side}; {remedy}"
            )


class GeneralizedRCNNImageListForward(GeneralizedRCNN):
    """GeneralizedRCNN whose backbone receives the padded batch with the true image sizes.

    MIMDet's token sampling treats padding differently from image, so it has to know where the
    image ends. FPN hands its input to `bottom_up` untouched, so nothing else changes.

    Args:
        lsj_postprocess: results lie on a padded square and are led back by one factor for both
            axes (`mimdet.modeling.postprocessing.lsj_postprocess`).
        **kwargs: those of `GeneralizedRCNN`.
    """

    def __init__(self, *, lsj_postprocess: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.lsj_postprocess = lsj_postprocess

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Losses by name in training, detections of each image otherwise."""
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        targets = [x["instances"].to(self.device) for x in batched_inputs]
        features = self.backbone(images)
        proposals, proposal_losses = self.proposal_generator(images, features, targets)
        _, detector_losses = self.roi_heads(images, features, proposals, targets)
        return {**detector_losses, **proposal_losses}

    def inference(
        self,
        batched_inputs: list[dict],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[dict] | list[Instances]:
        """Detect objects, or only predict masks for `detected_instances`.

        Args:
            batched_inputs: dicts with `image` (3, H, W) in 0..255 and the wanted output `height`
                and `width` (those of `image` by default).
            detected_instances: boxes and classes that are given; proposals are then skipped.
            do_postprocess: lead results back to the wanted output size.

        Returns:
            ``[{"instances": Instances}, ...]``, or the Instances of the network's input size
            without post-processing.
        """
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images)
        if detected_instances is None:
            proposals, _ = self.proposal_generator(images, features, None)
            results, _ = self.roi_heads(images, features, proposals, None)
        else:
            given = [x.to(self.device) for x in detected_instances]
            results = self.roi_heads.forward_with_given_boxes(features, given)
        if not do_postprocess:
            return results
        if self.lsj_postprocess:
            return self._lsj_postprocess(results, batched_inputs, images)
        return self._postprocess(results, batched_inputs, images.image_sizes)

    def _lsj_postprocess(
        self, results: list[Instances], batched_inputs: list[dict], images: ImageList
    ) -> list[dict]:
        output = []
        for result, given, size in zip(results, batched_inputs, images.image_sizes, strict=True):
            height, width = given.get("height", size[0]), given.get("width", size[1])
            found = lsj_postprocess(result, height, width, paste_masks=self.paste_masks)
            output.append({"instances": found})
        return output
