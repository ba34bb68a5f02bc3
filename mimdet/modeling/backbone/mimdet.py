"""MIMDet: a MAE-pretrained ViT as the third stage of a detector's backbone.

A convolution stem feeds strides 4 and 8 and makes the tokens of stride 16. The ViT encoder sees a
random share of them; a light decoder gets the encoded tokens back in place, the holes filled.

Shape letters: B batch, L tokens, K kept tokens, C encoder channels, D decoder channels, H W pixels
of the padded batch, h w cells of the stride-16 grid (L = h * w).

Reference:
    Fang et al. 2022, "Unleashing Vanilla Vision Transformer with Masked Image Modeling for Object
    Detection", arXiv 2204.02964.
"""

import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron2.modeling import Backbone
from detectron2.structures import ImageList
from detectron2.utils.events import get_event_storage, has_event_storage
from mimdet.layers.block import Block, drop_path_rates, mae_layer_norm, run, run_all
from mimdet.layers.init import init_transformer_weights
from mimdet.layers.layout import map_to_tokens, token_index, tokens_to_map
from mimdet.layers.pos_embed import PosEmbedCache, TablesOfAnyGrid, get_2d_sincos_pos_embed
from mimdet.modeling.backbone.real_tokens import (
    cells,
    sample_real_tokens,
    stem_of_each,
    table_of_each,
)
from mimdet.modeling.backbone.token_sampling import (
    SAMPLERS,
    Sampler,
    padding_mask,
    random_noise,
    sample_tokens,
)

logger = logging.getLogger(__name__)

_FILLS = ("conv", "mask")
_PADDINGS = ("attend", "exclude")


class ConvStem(nn.Module):
    """Stacked stride-2 convolutions that replace the patch projection of a ViT.

    Each stage is a 3x3 convolution, GroupNorm of one group and GELU, and doubles the width up to
    `embed_dim`; a 1x1 convolution ends the last stage.

    Args:
        in_chans: channels of the image.
        embed_dim: channels of the last stage; a multiple of ``2 ** (depth - 1)``.
        depth: number of stages, at least 3.
        norm_layer: called with `embed_dim`, normalises the last output; None leaves it as it is.
        checkpointing: recompute each stage in the backward pass instead of keeping activations.

    `strides` and `out_channels` are those of the outputs, finest first.

    Raises:
        ValueError: if `embed_dim` cannot be halved often enough.

    Reference:
        Xiao et al. 2021, arXiv 2106.14881, with GroupNorm and GELU in place of BatchNorm and ReLU,
        as MIMDet has them.
    """

    def __init__(
        self,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 4,
        norm_layer: Callable[[int], nn.Module] | None = None,
        checkpointing: bool = False,
    ):
        super().__init__()
        if embed_dim % 2 ** (depth - 1):
            raise ValueError(
                f"embed_dim must be a multiple of {2 ** (depth - 1)} for a stem of {depth} stages, "
                f"got {embed_dim}"
            )
        self.checkpointing = checkpointing
        widths = [in_chans] + [embed_dim // 2**i for i in reversed(range(depth))]
        stages = [_stem_stage(*pair) for pair in zip(widths[:-1], widths[1:], strict=True)]
        # Inside the last stage, where released files have it: proj.3.3.
        stages[-1].append(nn.Conv2d(embed_dim, embed_dim, kernel_size=1))
        self.proj = nn.ModuleList(stages)
        self.strides = [2**k for k in range(2, depth + 1)]
        self.out_channels = widths[2:]
        self.norm = norm_layer(embed_dim) if norm_layer else nn.Identity()

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, in_chans, H, W) -> outputs of all stages but the first: strides 4, 8, 16, ..."""
        outputs = []
        for stage in self.proj:
            x = run(stage, x, self.checkpointing)
            outputs.append(x)
        return [*outputs[1:-1], self.norm(outputs[-1])]


def _stem_stage(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1, bias=False),
        nn.GroupNorm(1, out_channels, eps=1e-6),
        nn.GELU(),
    )


class EncoderOutput(NamedTuple):
    """What `MIMDetEncoder` hands on.

    Attributes:
        stem: feature maps of the stem at strides 4, 8 and 16.
        tokens: (B, K, C) encoded tokens, in the order of `ids_keep`.
        ids_keep: (B, K) raster positions of the kept tokens; None when all were kept in order.
        is_real: (B, L) bool, False where padding is excluded; None where it is a token like others.
        counts: (B, K) bool, which of `tokens` count, see `sample_real_tokens`; None for all.
        grids: token grid of each image alone, where padding is excluded.
    """

    stem: list[Tensor]
    tokens: Tensor
    ids_keep: Tensor | None
    is_real: Tensor | None = None
    counts: Tensor | None = None
    grids: list[tuple[int, int]] | None = None


class MIMDetEncoder(nn.Module, TablesOfAnyGrid):
    """A plain ViT on a random share of the tokens that a convolution stem makes.

    Arguments not explained here are those of every plain ViT, see `mimdet.layers.block`.

    Args:
        img_size: side of the square image whose token grid `pos_embed` has, in pixels.
        patch_size: side of a token of that grid in pixels, such as 14 for the table of MAE's ViT-H.
            The tokens themselves have the stem's stride, 16, and the table is resized to their map.
        dpr: `drop_path_rate`.
        norm_layer: the released models use LayerNorm with eps 1e-5.
        checkpointing: recompute stem stages and blocks in the backward pass.

    `pos_embed` (1, 1 + grid, C) is frozen and has a class slot first that is never used: it is
    there for the names and shapes of released checkpoints.
    """

    tables_of_any_grid = ("pos_embed",)

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        dpr: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = mae_layer_norm,
        checkpointing: bool = False,
    ):
        super().__init__()
        self.checkpointing = checkpointing
        self.patch_embed = ConvStem(in_chans, embed_dim, checkpointing=checkpointing)
        self.pos_embed = _frozen_pos_embed(embed_dim, img_size // patch_size)
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, drop_path=rate, norm_layer=norm_layer)
            for rate in drop_path_rates(dpr, depth)
        )
        self.norm = norm_layer(embed_dim)
        self._pos_embed_cache = PosEmbedCache()
        self.apply(init_transformer_weights)

    def forward(
        self,
        images: ImageList,
        sample_ratio: float,
        generator: torch.Generator | None = None,
        sampler: Sampler = random_noise,
    ) -> EncoderOutput:
        """Encode a share of the tokens of a padded batch.

        Args:
            images: tensor (B, 3, H, W), H and W multiples of the stem's stride.
            sample_ratio: share of tokens kept, in (0, 1].
            generator: source of the sampling noise; the global one by default.
            sampler: one of `SAMPLERS`.
        """
        stem = self.patch_embed(images.tensor)
        h, w = stem[-1].shape[-2:]
        tokens = map_to_tokens(stem[-1])  # (B, L, C)
        tokens = tokens + self._pos_embed_cache.get(self.pos_embed, (h, w))
        ids_keep = None
        # All tokens in evaluation: nothing to choose, so nothing is drawn, sorted or gathered.
        if self.training or sample_ratio < 1:
            stride = self.patch_embed.strides[-1]
            is_padding = padding_mask(images.image_sizes, (h, w), stride, tokens.device)
            noise = sampler((len(tokens), h, w), tokens.device, generator)
            ids_keep = sample_tokens(noise.flatten(1), is_padding.flatten(1), sample_ratio)
            tokens = tokens.gather(1, token_index(ids_keep, tokens.shape[-1]))
        tokens = run_all(self.blocks, tokens, self.checkpointing)
        return EncoderOutput(stem, self.norm(tokens), ids_keep)

    def forward_real(
        self,
        images: ImageList,
        sample_ratio: float,
        generator: torch.Generator | None = None,
        sampler: Sampler = random_noise,
    ) -> EncoderOutput:
        """Like `forward`, but of real tokens alone, whatever else is in the batch.

        The stem sees every image for itself, the table has its grid, the share is one of its own
        tokens, and nothing attends to padding.
        """
        stride = self.patch_embed.strides[-1]
        # To twice the stride, that of c5: so an image is padded when it is alone.
        stem = stem_of_each(self.patch_embed, images.tensor, images.image_sizes, 2 * stride)
        grid, device = tuple(stem[-1].shape[-2:]), images.tensor.device
        grids = cells(images.image_sizes, stride)
        tokens = map_to_tokens(stem[-1])  # (B, L, C)
        table = partial(self._pos_embed_cache.get, self.pos_embed)
        tokens = tokens + table_of_each(table, grids, grid)
        is_real = ~padding_mask(images.image_sizes, grid, stride, device).flatten(1)
        ids_keep, counts = None, is_real
        if self.training or sample_ratio < 1:
            ids_keep, counts = sample_real_tokens(
                grids, grid, sample_ratio, device, generator, sampler
            )
            tokens = tokens.gather(1, token_index(ids_keep, tokens.shape[-1]))
        tokens = run_all(self.blocks, tokens, self.checkpointing, attended=counts)
        return EncoderOutput(stem, self.norm(tokens), ids_keep, is_real, counts, grids)


class MIMDetDecoder(nn.Module, TablesOfAnyGrid):
    """Light ViT that completes the sampled tokens to the full grid.

    Arguments not explained here are those of every plain ViT, see `mimdet.layers.block`.

    Args:
        img_size: side of the square image whose token grid `decoder_pos_embed` has, in pixels.
        patch_size: side of a token of that grid in pixels.
        embed_dim: channels C of the encoder's tokens.
        decoder_embed_dim: channels D of the decoder.
        depth: number of blocks; MAE files have 8, of which the first `depth` are used.
        dpr: probability with which a branch is dropped, the same in all blocks.
        fill: what stands for the tokens that the encoder did not see. "conv": a projection of
            the stem's stride-16 features at that place (release v1.2, 127.96M and 349.33M).
            "mask": MAE's learned mask token (release v1.0, 127.56M and 345.27M).

    Raises:
        ValueError: if `fill` is neither.
    """

    tables_of_any_grid = ("decoder_pos_embed",)

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 768,
        decoder_embed_dim: int = 512,
        depth: int = 8,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        dpr: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        checkpointing: bool = False,
        fill: str = "conv",
    ):
        super().__init__()
        if fill not in _FILLS:
            raise ValueError(
                f"fill must be one of {_FILLS}, got {fill!r} "
                "(model.backbone.bottom_up.decoder.fill)"
            )
        self.fill = fill
        self.checkpointing = checkpointing
        self.decoder_embed = nn.Linear(embed_dim, decoder_embed_dim)
        if fill == "mask":
            self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
        else:
            self.conv_feat_proj = nn.Linear(embed_dim, decoder_embed_dim)
        self.decoder_pos_embed = _frozen_pos_embed(decoder_embed_dim, img_size // patch_size)
        self.decoder_blocks = nn.ModuleList(
            Block(decoder_embed_dim, num_heads, mlp_ratio, drop_path=dpr, norm_layer=norm_layer)
            for _ in range(depth)
        )
        self.decoder_norm = norm_layer(decoder_embed_dim)
        self._pos_embed_cache = PosEmbedCache()
        self.apply(init_transformer_weights)

    def forward(self, encoded: EncoderOutput) -> Tensor:
        """Complete and decode the tokens of one batch -> feature map (B, D, h, w)."""
        h, w = encoded.stem[-1].shape[-2:]
        tokens = self.decoder_embed(encoded.tokens)  # (B, K, D)
        if encoded.ids_keep is not None:
            index = token_index(encoded.ids_keep, tokens.shape[-1])
            # Filled everywhere, then overwritten where the encoder has been: the mask token or the
            # projection stays in the graph even if no place is left to it, which DDP asks for.
            filled = self._fill_tokens(encoded.stem[-1]).to(tokens.dtype)
            if encoded.counts is not None:
                # Fillers stand for places that were not chosen: those keep what fills them.
                tokens = tokens.where(encoded.counts[..., None], filled.gather(1, index))
            tokens = filled.scatter(1, index, tokens)
        table = partial(self._pos_embed_cache.get, self.decoder_pos_embed)
        if encoded.grids is None:
            tokens = run_all(self.decoder_blocks, tokens + table((h, w)), self.checkpointing)
            return tokens_to_map(self.decoder_norm(tokens), (h, w))
        tokens = tokens + table_of_each(table, encoded.grids, (h, w))
        real = dict(attended=encoded.is_real)
        tokens = self.decoder_norm(run_all(self.decoder_blocks, tokens, self.checkpointing, **real))
        return tokens_to_map(tokens * encoded.is_real[..., None], (h, w))

    def _fill_tokens(self, stem: Tensor) -> Tensor:
        """What an unseen token is, at every place: (B, C, h, w) -> (B, L, D)."""
        if self.fill == "mask":
            return self.mask_token.expand(stem.shape[0], stem.shape[2] * stem.shape[3], -1)
        return self.conv_feat_proj(map_to_tokens(stem))


def _frozen_pos_embed(embed_dim: int, side: int) -> nn.Parameter:
    """Sine-cosine table (1, 1 + side * side, D), class slot first, that is not trained."""
    table = get_2d_sincos_pos_embed(embed_dim, side, cls_token=True)
    return nn.Parameter(table[None], requires_grad=False)


class MIMDetBackbone(Backbone):
    """ConvNet-ViT hybrid with outputs c2 (stride 4), c3 (8), c4 (16) and c5 (32).

    c2 and c3 come from the encoder's stem, c4 from the decoder, c5 is c4 max-pooled 2x2.

    Args:
        encoder: the sampled ViT with its stem.
        decoder: completes the sampled tokens.
        sample_ratio: share of tokens the encoder sees, in (0, 1]. Training uses 0.25 to 0.5;
            published results are evaluated at 1.0. A range, as [0.25, 1.0], draws the share of each
            training iteration from it, so that one model serves every ratio; evaluations then see
            all tokens unless they say otherwise.
        size_divisibility: padded images have sides that are a multiple of this, in pixels; a
            multiple of c5's stride.
        _out_feature_channels: channels of c2..c5. They follow from encoder and decoder, as do the
            strides; both are published keys, and what they say must agree.
        _out_feature_strides: strides of c2..c5.
        sample_seed: seeds the sampling of each evaluation batch, so that results at a ratio below
            1.0 can be repeated and do not depend on the order of images; None draws from
            the global generator, as in training.
        padding: "attend", as published: the share of tokens is one of the padded batch, and what
            pads is a token like others, so an image's features depend on its batch mates.
            "exclude": the share is one of each image's own tokens, nothing attends to padding, and
            an image has the features that it has alone (FPN's convolutions still meet the border).
        sampler: "random", as published, or "stratified", whose tokens are spread evenly over the
            image: the result of an evaluation depends less on the seed.

    Raises:
        ValueError: if `sample_ratio` is out of range, `padding` or `sampler` is unknown, or what is
            said twice does not agree.

    Reference:
        Fang et al. 2022, arXiv 2204.02964, section 3.
    """

    def __init__(
        self,
        encoder: MIMDetEncoder,
        decoder: MIMDetDecoder,
        sample_ratio: float | Sequence[float],
        size_divisibility: int = 32,
        _out_feature_channels: Sequence[int] | None = None,
        _out_feature_strides: Sequence[int] | None = None,
        sample_seed: int | None = None,
        padding: str = "attend",
        sampler: str = "random",
    ):
        super().__init__()
        _must_be_one_of("padding", padding, _PADDINGS)
        _must_be_one_of("sampler", sampler, tuple(SAMPLERS))
        is_range = isinstance(sample_ratio, Sequence)
        low, high = sample_ratio if is_range else (sample_ratio, sample_ratio)
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"sample_ratio must be in (0, 1], got {sample_ratio} "
                "(model.backbone.bottom_up.sample_ratio); 1.0 keeps all tokens, and a range is "
                "[lowest, highest]"
            )
        self.encoder = encoder
        self.decoder = decoder
        # What `forward` goes by outside of a training over a range: callers may set it.
        self.sample_ratio = 1.0 if is_range else sample_ratio
        self.sample_range = (low, high) if is_range else None
        self.sample_seed = sample_seed
        self.sample_padding = padding
        self.sampler = sampler
        self._sampling_logged = False
        stem, width = encoder.patch_embed, decoder.decoder_embed.out_features
        channels = [*stem.out_channels[:2], width, width]
        strides = [*stem.strides, 2 * stem.strides[-1]]
        _must_agree("decoder.embed_dim", decoder.decoder_embed.in_features, stem.out_channels[-1])
        _must_agree("_out_feature_channels", _out_feature_channels, channels)
        _must_agree("_out_feature_strides", _out_feature_strides, strides)
        if size_divisibility % strides[-1]:
            raise ValueError(
                f"size_divisibility must be a multiple of {strides[-1]}, the stride of c5, got "
                f"{size_divisibility} (model.backbone.bottom_up.size_divisibility)"
            )
        self._size_divisibility = size_divisibility
        self._out_features = ["c2", "c3", "c4", "c5"]
        self._out_feature_channels = dict(zip(self._out_features, channels, strict=True))
        self._out_feature_strides = dict(zip(self._out_features, strides, strict=True))

    @property
    def size_divisibility(self) -> int:
        """Sides of a padded batch are multiples of this, in pixels."""
        return self._size_divisibility

    def forward(self, images: ImageList) -> dict[str, Tensor]:
        """Compute the feature maps of a padded batch.

        Args:
            images: normalised batch with the true image sizes, which the sampling needs.

        Returns:
            c2 (B, C2, H/4, W/4), c3 (B, C3, H/8, W/8), c4 (B, D, H/16, W/16),
            c5 (B, D, H/32, W/32).

        Raises:
            TypeError: if `images` is a bare tensor.
        """
        if not isinstance(images, ImageList):
            raise TypeError(
                f"MIMDetBackbone needs an ImageList with the true image sizes, got {type(images)}; "
                "use mimdet.modeling.meta_arch.GeneralizedRCNNImageListForward as the detector"
            )
        encode = self.encoder.forward_real if self.sample_padding == "exclude" else self.encoder
        ratio = self.sample_ratio
        if self.training and self.sample_range is not None:
            ratio = _ratio_of_iteration(*self.sample_range)
        generator = self._generator(images.tensor.device)
        encoded = encode(images, ratio, generator, SAMPLERS[self.sampler])
        c4 = self.decoder(encoded)
        return {
            "c2": encoded.stem[0],
            "c3": encoded.stem[1],
            "c4": c4,
            "c5": F.max_pool2d(c4, kernel_size=2),
        }

    def _generator(self, device: torch.device) -> torch.Generator | None:
        """The noise source of one batch; says once that an evaluation samples."""
        if self.training or self.sample_ratio == 1:
            return None
        if not self._sampling_logged:
            seeded = "unseeded" if self.sample_seed is None else f"seed {self.sample_seed}"
            logger.warning(
                f"Evaluation samples {self.sample_ratio:g} of the tokens ({seeded}); published "
                "results use model.backbone.bottom_up.sample_ratio=1.0"
            )
            self._sampling_logged = True
        if self.sample_seed is None:
            return None
        return torch.Generator(device).manual_seed(self.sample_seed)


def _ratio_of_iteration(low: float, high: float) -> float:
    """A share between both, drawn anew in each iteration; the highest outside of a training.

    It follows from the iteration alone: all ranks, which wait for each other, have the same share,
    and so have the pieces of an accumulated batch and a training that is resumed.
    """
    if not has_event_storage():
        return high
    return random.Random(get_event_storage().iter).uniform(low, high)


def _must_be_one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(
            f"{key} must be one of {known}, got {value!r} (model.backbone.bottom_up.{key})"
        )


def _must_agree(key: str, said: int | Sequence[int] | None, derived: int | list[int]) -> None:
    """Refuse a value of the config that is not what follows from the others; None says nothing."""
    if isinstance(said, Sequence):
        said = list(said)
    if said not in (None, derived):
        raise ValueError(
            f"{key} must be {derived}, which follows from the encoder and the decoder, got {said} "
            f"(model.backbone.bottom_up.{key})"
        )
