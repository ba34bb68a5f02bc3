"""The heads of a segmentor under Detectron2's contract, and their losses."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mimdet.modeling.segmentation.head import resize

_MEANS = ("all", "valid")


class SemSegHeads(nn.Module):
    """A decode head and, in training, an auxiliary one: the `sem_seg_head` of a segmentor.

    Args:
        decode_head: maps, finest first -> logits (B, K, h, w); it has the `conv_seg` of K outputs.
        auxiliary_head: such a head for a further loss; None for none.
        in_features: names of the maps, finest first.
        ignore_value: label of pixels that do not count.
        mean_over: "all" divides a loss by the number of pixels, ignored ones included, as
            mmsegmentation does, with which the released models were trained; "valid" by those that
            count, as Detectron2 does.
        auxiliary_weight: factor of the auxiliary loss.

    Raises:
        ValueError: if `mean_over` is unknown.
    """

    def __init__(
        self,
        decode_head: nn.Module,
        auxiliary_head: nn.Module | None = None,
        in_features: Sequence[str] = ("s0", "s1", "s2", "s3"),
        *,
        ignore_value: int = 255,
        mean_over: str = "all",
        auxiliary_weight: float = 0.4,
    ):
        super().__init__()
        if mean_over not in _MEANS:
            raise ValueError(
                f"mean_over must be one of {_MEANS}, got {mean_over!r} "
                "(model.sem_seg_head.mean_over)"
            )
        self.decode_head = decode_head
        self.auxiliary_head = auxiliary_head
        self.in_features = list(in_features)
        self.ignore_value = ignore_value
        self.mean_over = mean_over
        self.auxiliary_weight = auxiliary_weight

    def forward(
        self, features: dict[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Compute losses in training, and logits after.

        Args:
            features: name -> (B, C, h, w).
            targets: (B, H, W) int64 labels below K, or `ignore_value`; needed in training.

        Returns:
            ``(None, {"loss_sem_seg": scalar, "loss_sem_seg_aux": scalar})`` in training; else
            ``((B, K, h, w) logits at the stride of the finest map, {})``.

        Raises:
            ValueError: in training without targets.
        """
        maps = [features[name] for name in self.in_features]
        if not self.training:
            return self.decode_head(maps), {}
        if targets is None:
            raise ValueError(
                "a segmentor needs label maps in training, got images without sem_seg; give the "
                "data set's entries a sem_seg_file_name"
            )
        losses = {"loss_sem_seg": self.loss(self.decode_head(maps), targets)}
        if self.auxiliary_head is not None:
            auxiliary = self.loss(self.auxiliary_head(maps), targets)
            losses["loss_sem_seg_aux"] = self.auxiliary_weight * auxiliary
        return None, losses

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy at the size of the label maps; 0 if no pixel counts.

        Args:
            logits: (B, K, h, w).
            targets: (B, H, W), see `forward`.
        """
        # The small map becomes float32, so the large one exists once, in the loss's precision.
        logits = resize(logits.float(), targets.shape[-2:])
        total = F.cross_entropy(logits, targets, ignore_index=self.ignore_value, reduction="sum")
        if self.mean_over == "all":
            return total / targets.numel()
        return total / (targets != self.ignore_value).sum().clamp(min=1)
