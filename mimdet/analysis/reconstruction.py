"""Pictures of what a masked autoencoder makes of images."""

import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from mimdet.pretraining.mae import MAE

_SMALLEST_SIDE = 320  # smaller pictures are enlarged to this
_GREY = 128
_GAP = 8  # pixels between two pictures


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
    columns = [images, seen, pictures]
    return [_side_by_side([column[k] for column in columns]) for k in range(len(images))]


def _side_by_side(images: list[Tensor]) -> Image.Image:
    pictures = [_picture(image) for image in images]
    width, height = pictures[0].size
    joined = Image.new("RGB", ((width + _GAP) * len(pictures) - _GAP, height), "white")
    for k, picture in enumerate(pictures):
        joined.paste(picture, (k * (width + _GAP), 0))
    return joined


def _picture(image: Tensor) -> Image.Image:
    """Normalised (3, H, W), where NaN becomes grey -> a picture, enlarged if it is small."""
    std, mean = (
        image.new_tensor(values)[:, None, None]
        for values in (IMAGENET_DEFAULT_STD, IMAGENET_DEFAULT_MEAN)
    )
    pixels = ((image * std + mean) * 255).round().clamp(0, 255).nan_to_num(_GREY)
    picture = Image.fromarray(pixels.permute(1, 2, 0).byte().cpu().numpy())
    scale = max(1, round(_SMALLEST_SIDE / min(picture.size)))
    return picture.resize([side * scale for side in picture.size], Image.Resampling.NEAREST)
