"""MAE: a plain ViT on the visible tokens of an image, and a light decoder that paints the rest.

Shape letters: B batch, L tokens of an image, K visible ones, C encoder channels, D decoder
channels, P numbers of a patch, H W pixels, h w cells of the token grid (L = h * w).

Reference:
    He et al. 2021, "Masked Autoencoders Are Scalable Vision Learners", arXiv 2111.06377.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn

from mimdet.layers.block import Block, mae_layer_norm, run_all
from mimdet.layers.init import init_transformer_weights
from mimdet.layers.layout import map_to_tokens, token_index, tokens_to_map
from mimdet.layers.pos_embed import get_2d_sincos_pos_embed
from mimdet.pretraining.masking import (
    Masking,
    draw_noise,
    enlarge,
    masked_mean,
    num_kept,
    random_masking,
)
from mimdet.pretraining.targets import PixelTarget, patch_statistics, patchify, unpatchify


class ViTEncoder(nn.Module):
    """A plain ViT with a class token and a frozen sine-cosine position table.

    ``forward`` is ``encode(embed(images))``; a pretraining objective can take tokens away between
    the two. Parameter names are MAE's.

    Arguments not explained here are those of every plain ViT, see `mimdet.layers.block`.

    Args:
        img_size: side of the square images, in pixels.
        patch_size: side of a token, in pixels; divides `img_size`.
        norm_layer: MAE's LayerNorms have eps 1e-6.

    Raises:
        ValueError: if `patch_size` does not divide `img_size`.

    Reference:
        Dosovitskiy et al. 2020, arXiv 2010.11929, initialised as in He et al. 2021, appendix A.1.
    """

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        norm_layer: Callable[[int], nn.Module] = mae_layer_norm,
        checkpointing: bool = False,
    ):
        super().__init__()
        if img_size % patch_size:
            raise ValueError(
                f"img_size must be a multiple of patch_size, got {img_size} and {patch_size} "
                "(model.img_size, model.patch_size)"
            )
        self.img_size = img_size
        self.patch_size = patch_size
        self.embed_dim = embed_dim
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.checkpointing = checkpointing
        self.patch_embed = PatchEmbed(img_size, patch_size, embed_dim=embed_dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos_embed = self._frozen_table(embed_dim)
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, norm_layer=norm_layer) for _ in range(depth)
        )
        self.norm = norm_layer(embed_dim)
        self.apply(init_transformer_weights)
        # The convolution is a Linear over the numbers of a patch; MAE initialises it as such.
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))
        nn.init.normal_(self.cls_token, std=0.02)

    def _frozen_table(self, dim: int) -> nn.Parameter:
        table = get_2d_sincos_pos_embed(dim, self.grid_size, cls_token=True)
        return nn.Parameter(table[None], requires_grad=False)

    def embed(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> tokens with their positions, (B, L, C).

        Raises:
            ValueError: if the images are not of `img_size`.
        """
        if images.shape[-2:] != (self.img_size, self.img_size):
            raise ValueError(
                f"images must be {self.img_size}x{self.img_size} (model.img_size), got "
                f"{images.shape[-2]}x{images.shape[-1]}; make the size of the crops the same "
                "(dataloader.train.mapper.transform.input_size)"
            )
        return self.patch_embed(images) + self.pos_embed[:, 1:]

    def encode(self, tokens: Tensor) -> Tensor:
        """Any share of an image's tokens (B, K, C) -> (B, 1 + K, C), the class token first."""
        # Behind the masking, which must not take the class token away.
        cls_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        tokens = torch.cat([cls_token.to(tokens.dtype), tokens], dim=1)
        return self.norm(run_all(self.blocks, tokens, self.checkpointing))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> (B, 1 + L, C), the class token first."""
        return self.encode(self.embed(images))


class MAEOutput(NamedTuple):
    """What `MAE.predict` returns.

    Attributes:
        latent: (B, 1 + K, C) what the encoder made of the visible tokens.
        prediction: (B, L, P) the numbers predicted for every patch.
        masking: which tokens were removed.
    """

    latent: Tensor
    prediction: Tensor
    masking: Masking


class MAE(ViTEncoder):
    """Masked autoencoder: its state dict is the file that detectors and classifiers start from.

    In training mode a batch gives ``{"loss_mae": ...}``, the mean squared error over the removed
    patches; in evaluation mode the reconstructions.

    Args:
        mask_ratio: share of the tokens that is removed, in (0, 1).
        decoder_embed_dim: channels D of the decoder.
        decoder_depth: blocks of the decoder.
        decoder_num_heads: its attention heads.
        norm_pix_loss: predict pixels relative to mean and standard deviation of their patch.
        mlp_ratio: of encoder and decoder.
        norm_layer: of encoder and decoder.
        **encoder: the other arguments of `ViTEncoder`.

    Raises:
        ValueError: if `mask_ratio` removes nothing or everything.

    Reference:
        He et al. 2021, arXiv 2111.06377.
    """

    def __init__(
        self,
        mask_ratio: float = 0.75,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        norm_pix_loss: bool = True,
        mlp_ratio: float = 4.0,
        norm_layer: Callable[[int], nn.Module] = mae_layer_norm,
        **encoder: Any,
    ):
        super().__init__(mlp_ratio=mlp_ratio, norm_layer=norm_layer, **encoder)
        num_kept(self.grid_size[0] * self.grid_size[1], mask_ratio)  # refuses what cannot work
        self.mask_ratio = mask_ratio
        self.target = PixelTarget(self.patch_size, normalize=norm_pix_loss)
        self.mask_token = nn.Parameter(torch.empty(1, 1, decoder_embed_dim))
        self.decoder_embed = nn.Linear(self.embed_dim, decoder_embed_dim)
        self.decoder_pos_embed = self._frozen_table(decoder_embed_dim)
        self.decoder_blocks = nn.ModuleList(
            Block(decoder_embed_dim, decoder_num_heads, mlp_ratio, norm_layer=norm_layer)
            for _ in range(decoder_depth)
        )
        self.decoder_norm = norm_layer(decoder_embed_dim)
        self.decoder_pred = nn.Linear(decoder_embed_dim, self.target.channels)
        # The base class has initialised what it made itself; again would draw it anew.
        for name in ("decoder_embed", "decoder_blocks", "decoder_norm", "decoder_pred"):
            getattr(self, name).apply(init_transformer_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses of a batch, or its reconstructions.

        Args:
            batch: samples with an `image`, normalised (3, H, W).

        Returns:
            In training mode the loss; in evaluation mode, for every sample, what `reconstruct`
            gives.
        """
        images = stack_images(batch, self.cls_token.device)
        if self.training:
            return {"loss_mae": self.loss(images)}
        pictures, removed = self.reconstruct(images)
        return [{"image": p, "removed": r} for p, r in zip(pictures, removed, strict=True)]

    def predict(self, images: Tensor, noise: Tensor | None = None) -> MAEOutput:
        """Encode the visible tokens and predict all patches.

        Args:
            images: (B, 3, H, W), normalised.
            noise: (B, L), of which the smallest values are kept; drawn if None.
        """
        tokens = self.embed(images)
        if noise is None:
            noise = draw_noise(*tokens.shape[:2], tokens.device)
        masking = random_masking(noise, self.mask_ratio)
        visible = tokens.gather(1, token_index(masking.ids_keep, tokens.shape[2]))
        latent = self.encode(visible)
        return MAEOutput(latent, self._decode(latent, masking.ids_restore), masking)

    def _decode(self, latent: Tensor, ids_restore: Tensor) -> Tensor:
        """(B, 1 + K, C) -> (B, L, P)."""
        cls_token, visible = self.decoder_embed(latent).split([1, latent.shape[1] - 1], dim=1)
        num_removed = ids_restore.shape[1] - visible.shape[1]
        filling = self.mask_token.to(visible.dtype).expand(len(visible), num_removed, -1)
        # in the order "kept, then removed", in which `ids_restore` says where each place stands
        tokens = torch.cat([visible, filling], dim=1)
        tokens = tokens.gather(1, token_index(ids_restore, tokens.shape[2]))
        tokens = torch.cat([cls_token, tokens], dim=1) + self.decoder_pos_embed
        tokens = self.decoder_norm(run_all(self.decoder_blocks, tokens, self.checkpointing))
        return self.decoder_pred(tokens)[:, 1:]

    def loss(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Mean squared error over the removed patches; `noise` as in `predict`."""
        output = self.predict(images, noise)
        target = map_to_tokens(self.target(images))  # (B, L, P)
        # In float32 also under autocast: late in training the squares are small.
        error = (output.prediction.float() - target).square().mean(dim=2)  # (B, L)
        return masked_mean(error, output.masking.removed)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Paint the removed patches.

        A model with `norm_pix_loss` does not know mean and contrast of a patch; it gets
        those of the true one here, so the pictures show structure and not colour.

        Args:
            images: (B, 3, H, W), normalised.
            noise: as in `predict`.

        Returns:
            The images with the removed patches predicted (B, 3, H, W), and (B, H, W) bool, True
            where they are.
        """
        output = self.predict(images, noise)
        cells = tokens_to_map(output.prediction.float(), self.grid_size)
        if self.target.normalize:
            mean, std = patch_statistics(patchify(images, self.patch_size))
            cells = cells * std + mean
        removed = enlarge(output.masking.removed.unflatten(1, self.grid_size), self.patch_size)
        predicted = unpatchify(cells, self.patch_size)
        return torch.where(removed[:, None], predicted, images), removed


def stack_images(batch: list[dict[str, Any]], device: torch.device) -> Tensor:
    """The images of samples as one tensor (B, 3, H, W) on `device`."""
    return torch.stack([sample["image"] for sample in batch]).to(device, non_blocking=True)
