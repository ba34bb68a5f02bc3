"""Two-stage detectors."""

from functools import partial
from typing import Any

from torch import Tensor, nn

from detectron2.modeling.meta_arch.detector import Detector
from detectron2.structures import ImageList, Instances


class GeneralizedRCNN(Detector):
    """Backbone, proposal generator and heads on regions, with normalisation and resizing around.

    Args:
        proposal_generator: makes proposals; None where the inputs bring them along.
        roi_heads: turns proposals into detections or losses.
        paste_masks: whether inference makes masks of the size of the output. If not, `pred_masks`
            stays a `ROIMasks`, of a fraction of the memory: evaluators and the `Visualizer` take
            it, `ROIMasks.to_bitmasks` and `to_rle` turn it into masks of the image.
        **kwargs: `backbone`, `pixel_mean`, `pixel_std`, and where wanted `input_format` and
            `vis_period`, see `Detector`. Drawn are ground truth and proposals.

    Raises:
        AssertionError: `pixel_mean` and `pixel_std` differ in length, or `vis_period` is set
            without `input_format`.

    Reference: Ren et al. 2015, arXiv 1506.01497; He et al. 2017, arXiv 1703.06870.
    """

    def __init__(
        self,
        *,
        proposal_generator: nn.Module | None,
        roi_heads: nn.Module,
        paste_masks: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        if not paste_masks:  # for all who call it, among them `inference` of subclasses
            self._postprocess = partial(self._postprocess, paste_masks=False)

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict[str, Instances]]:
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
        if self._is_time_to_draw():
            self.visualize_training(batched_inputs, proposals)
        return {**detector_losses, **proposal_losses}

    def _propose(
        self,
        batched_inputs: list[dict],
        images: ImageList,
        features: dict[str, Tensor],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
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
