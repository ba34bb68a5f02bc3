"""Pictures of what a masked autoencoder makes of images."""

import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from mimdet.analysis.pictures import Panel, enlargement, side_by_side
from mimdet.pretraining.mae import MAE

_GREY = 128


@torch.no_grad()
def draw_reconstructions(model: MAE, images: Tensor) -> list[Image.Image]:
    """Draw, for each image, what is there, what the encoder sees, and the reconstruction.

    Args:
        model: put into evaluation mode. If it predicts normalised pixels, mean and contrast of the
            removed patches are the true ones (`MAE.reconstruct`).
        images: (B, 3, H, W), normalised by ImageNet's statistics.
    """
    images = images.to(model.cls_token.device)
    pictures, removed = model.eval().reconstruct(images)
    seen = torch.where(removed[:, None], torch.nan, images)
    drawn = []
    for image, visible, picture, hidden in zip(images, seen, pictures, removed, strict=True):
        share = f"{(~hidden).float().mean():.0%} of the patches"
        panels = [
            Panel(_picture(image), "Image", f"{image.shape[1]} x {image.shape[2]} pixels"),
            Panel(_picture(visible), "Seen by the encoder", share),
            Panel(
                _picture(picture), "Reconstruction", "of the grey patches, the others as they are"
            ),
        ]
        drawn.append(side_by_side(panels))
    return drawn


def _picture(image: Tensor) -> Image.Image:
    """Normalised (3, H, W), where NaN becomes grey -> a picture, enlarged if it is small."""
    std, mean = (
        image.new_tensor(values)[:, None, None]
        for values in (IMAGENET_DEFAULT_STD, IMAGENET_DEFAULT_MEAN)
    )
    pixels = ((image * std + mean) * 255).round().clamp(0, 255).nan_to_num(_GREY)
    picture = Image.fromarray(pixels.permute(1, 2, 0).byte().cpu().numpy())
    scale = enlargement(*picture.size)
    return picture.resize([side * scale for side in picture.size], Image.Resampling.NEAREST)
