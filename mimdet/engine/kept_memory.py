"""What a detector keeps for its backward pass, measured without memory and arithmetic."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from detectron2.config import instantiate
from detectron2.structures import ImageList


class Kept(NamedTuple):
    """Bytes of the tensors that one forward pass keeps.

    Attributes:
        backbone: those of the backbone with its pyramid.
        heads: those of the networks on its maps and on regions.
    """

    backbone: int
    heads: int


def kept_bytes(
    model: Mapping[str, Any], batch: int, image_size: tuple[int, int], amp: bool = True
) -> Kept:
    """What one forward pass of a detector keeps, in bfloat16 or float32.

    The copies of the weights in bfloat16 are among them, the weights themselves are not.

    Tensors have shapes and types here, and no content; the types are those of autocast on CUDA, and
    attention keeps what its fused kernels do there. Losses, what a kernel needs while it runs and
    the allocator's share are left out. Heads are those that Detectron2's names tell; regions are
    as many as are sampled at most.

    Args:
        model: the `model` of a config.
        batch: images of one process.
        image_size: (height, width) of the padded batch in pixels.
        amp: in mixed precision.
    """
    takes_list = "GeneralizedRCNNImageListForward" in str(model["_target_"])
    with torch.device("meta"):  # where tables are filled, which fake tensors refuse
        detector = instantiate(model).train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        _without_content(detector)
        images = torch.empty(batch, 3, *image_size, device="cuda")
        kept = _Kept(detector)
        hooks = torch.autograd.graph.saved_tensors_hooks(kept.add, lambda tensor: tensor)
        with hooks, _autocast(amp), _FusedAttention():
            backbone = detector.backbone
            maps = backbone(ImageList(images, [image_size] * batch) if takes_list else images)
            of_backbone = kept.bytes
            # Called for what it keeps: proposals and matching, between the heads, need real
            # numbers.
            for head, inputs in _heads(detector, maps, batch):
                head(inputs)
    return Kept(of_backbone, kept.bytes - of_backbone)


def _heads(detector: nn.Module, maps: Mapping[str, Tensor], batch: int) -> Iterator[tuple]:
    """The networks on the maps of the backbone, each with its input."""
    if hasattr(detector, "head_in_features"):  # RetinaNet
        yield detector.head, [maps[name] for name in detector.head_in_features]
    if hasattr(detector, "proposal_generator"):
        rpn = detector.proposal_generator
        yield rpn.rpn_head, [maps[name] for name in rpn.in_features]
    if not hasattr(detector, "roi_heads"):
        return
    roi_heads = detector.roi_heads
    regions = batch * roi_heads.batch_size_per_image
    stages = roi_heads.box_head
    for box_head in stages if isinstance(stages, nn.ModuleList) else [stages]:  # of Cascade R-CNN
        yield box_head, _pooled(maps, roi_heads.box_in_features, roi_heads.box_pooler, regions)
    if getattr(roi_heads, "mask_on", False):
        regions = int(regions * roi_heads.positive_fraction)
        pooled = _pooled(maps, roi_heads.mask_in_features, roi_heads.mask_pooler, regions)
        yield roi_heads.mask_head.layers, pooled


def _pooled(
    maps: Mapping[str, Tensor], names: list[str], pooler: nn.Module, regions: int
) -> Tensor:
    """What a pooler gives for so many regions, with a gradient as there."""
    like = maps[names[0]]
    return like.new_empty(regions, like.shape[1], *pooler.output_size).requires_grad_()


def _without_content(module: nn.Module) -> None:
    """Put fake tensors of a card, with or without one, into the place of those on meta."""
    for part in module.modules():
        for name, p in part.named_parameters(recurse=False):
            part._parameters[name] = nn.Parameter(
                torch.empty_like(p, device="cuda"), p.requires_grad
            )
        for name, b in part.named_buffers(recurse=False):
            part._buffers[name] = torch.empty_like(b, device="cuda")


@contextlib.contextmanager
def _autocast(enabled: bool) -> Iterator[None]:
    """`torch.autocast("cuda", torch.bfloat16)`, which does nothing on a machine without a card."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", enabled)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


class _FusedAttention(TorchFunctionMode):
    """The choice of a card's attention kernel, which torch makes by what lies in the machine."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        takes = func is F.scaled_dot_product_attention
        return (_efficient_attention if takes else func)(*args, **(kwargs or {}))


def _efficient_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Keeps as much as flash attention where both work, and takes masks and float32 as well."""
    if torch.is_autocast_enabled("cuda"):  # as it does for the function that is replaced
        q, k, v = (x.to(torch.bfloat16) for x in (q, k, v))
    if attn_mask is not None:
        # To the full shape, as the function does that is replaced.
        attn_mask = attn_mask.to(q.dtype).expand(*q.shape[:-1], k.shape[-2])
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    # True: with the logarithms of the sums, (B, N, L) float32, which the backward pass needs.
    return kernel(q, k, v, attn_mask, True, dropout_p, is_causal, scale=scale)[0]


class _Kept:
    """Counts each storage once, and the module's own tensors never."""

    def __init__(self, module: nn.Module):
        self._seen = {t.untyped_storage()._cdata for t in (*module.parameters(), *module.buffers())}
        self._tensors: list[Tensor] = []  # held, or the storage of another would get its number
        self.bytes = 0

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self._tensors.append(tensor)
            self.bytes += storage.nbytes()
        return tensor
