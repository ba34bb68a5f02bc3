"""What a backbone keeps for its backward pass, measured without memory and arithmetic."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from detectron2.config import instantiate
from detectron2.structures import ImageList


def kept_bytes(model: Mapping[str, Any], batch: int, image_size: tuple[int, int]) -> int:
    """Bytes of the tensors that one forward pass of a detector's backbone keeps, in bfloat16.

    The copies of the weights in bfloat16 are among them, the weights themselves are not.

    Tensors have shapes and types here, and no content. Autocast is that of the CPU, whose lists of
    operators differ a little from those of CUDA; the heads, what a kernel needs while it runs and
    the allocator's share are left out.

    Args:
        model: the `model` of a config.
        batch: images of one process.
        image_size: (height, width) of the padded batch in pixels.
    """
    takes_list = "GeneralizedRCNNImageListForward" in str(model["_target_"])
    with torch.device("meta"):  # where tables are filled, which fake tensors refuse
        backbone = instantiate(model["backbone"]).train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        _without_content(backbone)
        images = torch.empty(batch, 3, *image_size)
        kept = _Kept(backbone)
        hooks = torch.autograd.graph.saved_tensors_hooks(kept.add, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16):
            backbone(ImageList(images, [image_size] * batch) if takes_list else images)
    return kept.bytes


def _without_content(module: nn.Module) -> None:
    """Put fake tensors on the CPU into the place of those on meta, where autocast is not."""
    for part in module.modules():
        for name, p in part.named_parameters(recurse=False):
            part._parameters[name] = nn.Parameter(
                torch.empty(p.shape, dtype=p.dtype), p.requires_grad
            )
        for name, b in part.named_buffers(recurse=False):
            part._buffers[name] = torch.empty(b.shape, dtype=b.dtype)


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
