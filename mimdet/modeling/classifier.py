"""Image classification under the contract of all models here: losses in training, scores after."""

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import Tensor, nn


class ImageClassifier(nn.Module):
    """A network with a pooled head, and the cross entropy that trains it.

    Args:
        network: images (B, 3, H, W) -> logits (B, K); a classifier of timm or one like it, whose
            last layer is `network.get_classifier()`.
        label_smoothing: share of a label's weight that all classes get alike. Samples with a
            `target` are taken as they are: mixing has smoothed them (`mimdet.data.mixup`).
        head_std: standard deviation of the last layer's initial weights. Small, so that what was
            pretrained is not shaken by random logits.

    Reference:
        Szegedy et al. 2015, arXiv 1512.00567, section 7, for label smoothing.
    """

    def __init__(
        self,
        network: nn.Module,
        label_smoothing: float = 0.0,
        head_std: float = 2e-5,
    ):
        super().__init__()
        trunc_normal_(network.get_classifier().weight, std=head_std)
        self.network = network
        self.label_smoothing = label_smoothing

    def forward(self, samples: list[dict]) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Classify a batch.

        Args:
            samples: dicts with a normalised `image` (3, H, W), all of one size, and in training
                a `label` or a distribution `target` (K,).

        Returns:
            ``{"loss_cls": scalar}`` in training; else ``[{"logits": (K,)}, ...]``.

        Raises:
            ValueError: if a label is not below K.
        """
        device = next(self.network.parameters()).device
        images = torch.stack([sample["image"] for sample in samples])
        logits = self.network(images.to(device, non_blocking=True))
        if not self.training:
            return [{"logits": x} for x in logits]
        # A batch is mixed as a whole or not at all, so its first sample tells.
        if "target" in samples[0]:
            target = torch.stack([sample["target"] for sample in samples])
            target = target.to(device, non_blocking=True)
            return {"loss_cls": F.cross_entropy(logits.float(), target)}
        labels = [sample["label"] for sample in samples]
        if max(labels) >= logits.shape[1]:
            raise ValueError(
                f"labels must be below the number of classes {logits.shape[1]}, got {max(labels)}; "
                "set the number of classes of the data (model.network.num_classes)"
            )
        target = torch.tensor(labels).to(device, non_blocking=True)
        loss = F.cross_entropy(logits.float(), target, label_smoothing=self.label_smoothing)
        return {"loss_cls": loss}
