"""FastMIM: predict HOG features (or pixels) of masked blocks, at low resolution, with any backbone.

Shape letters: B batch, L tokens, E extra tokens (class token), C encoder channels, D decoder
channels, T channels of the target, H W pixels, h w cells of a grid.

Reference:
    Guo et al. 2022, "FastMIM: Expediting Masked Image Modeling Pre-training for Vision", arXiv
    2212.06593.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from mimdet.layers.block import Block
from mimdet.layers.init import init_transformer_weights
from mimdet.layers.layout import map_to_tokens
from mimdet.pretraining.mae import stack_images
from mimdet.pretraining.masking import (
    draw_noise,
    enlarge,
    masked_mean,
    num_kept,
    random_masking,
)

_HEAD_DIM = 32


class FastMIMOutput(NamedTuple):
    """What `FastMIM.predict` returns.

    Attributes:
        latent: (B, E + L, C) tokens of the encoder.
        prediction: (B, L, T * u * u), where a token has u x u cells of the target.
        removed: (B, g, g) bool, the masked blocks.
    """

    latent: Tensor
    prediction: Tensor
    removed: Tensor


class FastMIM(nn.Module):
    """Masked image modelling whose mask is a colour, so that every backbone can learn by it.

    Masked blocks of the image get one learned colour, the encoder sees all of it, and a light
    decoder predicts the target of the masked blocks from the last tokens. In training mode a batch
    gives ``{"loss_mim": ...}``, the mean squared error over masked cells; in evaluation mode the
    predicted targets.

    Args:
        encoder: called with images (B, 3, H, W); a backbone, of whose maps ``{name: (B, C, h, w)}``
            the last is used, or a plain ViT that returns tokens (B, E + L, C), extra ones first,
            and has their C as `embed_dim` and their side in pixels as `patch_size`.
        target: what is predicted (`mimdet.pretraining.targets`); its cells must fit both into
            blocks and into tokens.
        embed_dim: channels C of the encoder's tokens; needed only if the encoder does not say them.
        stride: side of an encoder token in pixels, likewise; 32 of a hierarchical backbone.
        img_size: side of the square images in pixels, a multiple of `stride` and `block_size`.
        block_size: side of the blocks that are masked together, in pixels.
        mask_ratio: share of the blocks that is masked, in (0, 1).
        decoder_embed_dim: channels D of the decoder, a multiple of 32 (the width of a head).
        decoder_depth: blocks of the decoder; with 0, D must be C and nothing projects.
        norm_layer: called with a width; makes the decoder's norms.

    Raises:
        ValueError: if sizes do not fit into each other, the encoder's are not known or said to be
            others, or `mask_ratio` masks nothing or all.

    Reference:
        Guo et al. 2022, arXiv 2212.06593, section 3. One loss stands for the case distinctions of
        the released code; the gradient noise of its HOG is avoided (`HOGTarget`). Training at
        several resolutions (FastMIM-P), which does not run there, is not offered.
    """

    def __init__(
        self,
        encoder: nn.Module,
        target: nn.Module,
        embed_dim: int | None = None,
        stride: int | None = None,
        img_size: int = 128,
        block_size: int = 32,
        mask_ratio: float = 0.75,
        decoder_embed_dim: int = 256,
        decoder_depth: int = 4,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
    ):
        super().__init__()
        own_embed_dim, own_stride = _token_shape(encoder)
        embed_dim = _one_value("embed_dim", embed_dim, own_embed_dim)
        stride = _one_value("stride", stride, own_stride)
        _check_divides("block_size", block_size, "img_size", img_size)
        _check_divides("stride", stride, "img_size", img_size)
        _check_divides("target.cell_size", target.cell_size, "block_size", block_size)
        _check_divides("target.cell_size", target.cell_size, "stride", stride)
        if decoder_depth == 0 and decoder_embed_dim != embed_dim:
            raise ValueError(
                "without decoder blocks decoder_embed_dim must be the encoder's width, got "
                f"{decoder_embed_dim} for {embed_dim} (model.decoder_embed_dim)"
            )
        if decoder_depth and decoder_embed_dim % _HEAD_DIM:
            raise ValueError(
                f"decoder_embed_dim must be a multiple of {_HEAD_DIM}, the width of a head, got "
                f"{decoder_embed_dim} (model.decoder_embed_dim)"
            )
        self.img_size = img_size
        self.grid_size = (img_size // stride, img_size // stride)
        self.block_size = block_size
        self.block_grid = (img_size // block_size, img_size // block_size)
        num_kept(self.block_grid[0] * self.block_grid[1], mask_ratio)  # refuses what cannot work
        self.mask_ratio = mask_ratio
        self.encoder = encoder
        self.target = target
        self.mask_token = nn.Parameter(torch.empty(1, 3, 1, 1))
        self.decoder_embed = (
            nn.Linear(embed_dim, decoder_embed_dim) if decoder_depth else nn.Identity()
        )
        self.decoder_blocks = nn.Sequential(
            *(
                Block(decoder_embed_dim, decoder_embed_dim // _HEAD_DIM, norm_layer=norm_layer)
                for _ in range(decoder_depth)
            )
        )
        self.decoder_norm = norm_layer(decoder_embed_dim)
        self.cells_per_token = stride // target.cell_size  # u, along a side
        self.decoder_pred = nn.Linear(decoder_embed_dim, target.channels * self.cells_per_token**2)
        # The encoder's Linear and LayerNorm too; its convolutions keep their own initial values.
        self.apply(init_transformer_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses of a batch, or what it predicts.

        Args:
            batch: samples with an `image`, normalised (3, H, W).

        Returns:
            In training mode the loss; in evaluation mode, for every sample, the predicted `target`
            (T, h, w) and its `removed` cells (h, w).
        """
        images = stack_images(batch, self.mask_token.device)
        if self.training:
            return {"loss_mim": self.loss(images)}
        output = self.predict(images)
        predicted, removed = self._as_target(output.prediction), self._as_cells(output.removed)
        return [{"target": p, "removed": r} for p, r in zip(predicted, removed, strict=True)]

    def predict(self, images: Tensor, noise: Tensor | None = None) -> FastMIMOutput:
        """Mask blocks of the images and predict the target for every token.

        Args:
            images: (B, 3, H, W), normalised.
            noise: (B, number of blocks), of which the smallest values are kept; drawn if None.

        Raises:
            ValueError: if the images are not of `img_size`.
        """
        if images.shape[-2:] != (self.img_size, self.img_size):
            raise ValueError(
                f"images must be {self.img_size}x{self.img_size} (model.img_size), got "
                f"{images.shape[-2]}x{images.shape[-1]}; the resolution cannot change during "
                "training (FastMIM-P is not supported): the size of the crops must be the same "
                "(dataloader.train.mapper.transform.input_size)"
            )
        if noise is None:
            noise = draw_noise(len(images), self.block_grid[0] * self.block_grid[1], images.device)
        removed = random_masking(noise, self.mask_ratio).removed.unflatten(1, self.block_grid)
        # Colour instead of removal: a backbone with convolutions needs the whole image.
        is_masked = enlarge(removed, self.block_size)[:, None]  # (B, 1, H, W)
        latent = self._encode(torch.where(is_masked, self.mask_token, images))
        tokens = self.decoder_norm(self.decoder_blocks(self.decoder_embed(latent)))
        num_tokens = self.grid_size[0] * self.grid_size[1]
        # extra tokens come first: the last ones are those of the grid
        return FastMIMOutput(latent, self.decoder_pred(tokens)[:, -num_tokens:], removed)

    def loss(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Mean squared error over the cells of masked blocks; `noise` as in `predict`."""
        output = self.predict(images, noise)
        # On the target's cells, so that blocks may be smaller or larger than tokens.
        error = self._as_target(output.prediction).float() - self.target(images)
        return masked_mean(error.square().mean(dim=1), self._as_cells(output.removed))

    def _encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, E + L, C)."""
        features = self.encoder(images)
        if isinstance(features, Tensor):
            return features
        return map_to_tokens(list(features.values())[-1])

    def _as_target(self, prediction: Tensor) -> Tensor:
        """What the tokens predict, on the cells of the target."""
        (rows, _), u = self.grid_size, self.cells_per_token
        pattern = "B (h w) (T u v) -> B T (h u) (w v)"
        return rearrange(prediction, pattern, h=rows, u=u, v=u)

    def _as_cells(self, removed: Tensor) -> Tensor:
        """Masked blocks (B, g, g) -> cells of the target (B, h, w)."""
        return enlarge(removed, self.block_size // self.target.cell_size)


def _token_shape(encoder: nn.Module) -> tuple[int | None, int | None]:
    """Channels of the encoder's tokens and their side in pixels; None for what it does not say."""
    if hasattr(encoder, "output_shape"):
        last = list(encoder.output_shape().values())[-1]
        return last.channels, last.stride
    return getattr(encoder, "embed_dim", None), getattr(encoder, "patch_size", None)


def _one_value(name: str, said: int | None, own: int | None) -> int:
    """What the config says, or the encoder's own; if there are both, they must be the same."""
    if None not in (said, own) and said != own:
        raise ValueError(f"{name} must be the encoder's {own}, got {said} (model.{name})")
    value = own if said is None else said
    if value is None:
        raise ValueError(f"{name} must be given, as the encoder does not say it (model.{name})")
    return value


def _check_divides(name: str, value: int, whole_name: str, whole: int) -> None:
    if whole % value:
        raise ValueError(
            f"{name} must divide {whole_name}, got {value} and {whole} (model.{name}, "
            f"model.{whole_name})"
        )
