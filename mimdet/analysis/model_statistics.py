"""Parameters and multiply-adds of a detector, part by part, without weights and arithmetic.

The weights are on the meta device, where tensors have a shape and no content, so that a large
model at full size takes a second and no memory. Only layers run there. What a detector does between
them by values (proposals, box arithmetic, NMS) is left out: it does not count, and may look at the
values. Heads get the same numbers of regions always: what random weights detect would change the
count (a mask head on 100 detections has 53e9). Attention counts as its mathematics whatever kernel
serves it elsewhere, see `mimdet.layers.attention`. `WHAT_IS_COUNTED` says what counts.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from detectron2.config import instantiate
from detectron2.structures import ImageList
from mimdet.modeling.meta_arch import GeneralizedRCNNImageListForward

NUM_PROPOSALS = 1000
NUM_DETECTIONS = 100

WHAT_IS_COUNTED = """\
One multiply-add is one operation. Counted: convolutions, linear layers, the matrix products of
attention, norms (2 for each value of a batch norm, 5 for the others, as fvcore estimates them) and
nearest-neighbour resizing (1 for each new value). Not counted: element-wise functions, softmax,
pooling, ROIAlign, sorting, box arithmetic, NMS, pasting of masks."""

_WHOLE = ""
_aten = torch.ops.aten


@dataclass(frozen=True)
class ModelStatistics:
    """What a detector holds and does for one image.

    Attributes:
        image_size: (height, width) of the image in pixels, before padding.
        parameters: number of parameters below each module; "" for the whole.
        operations: multiply-adds below each module by kind: "conv", "linear", "attention" (matrix
            products of two activations), "batch_norm", "layer_norm", "group_norm", "resize".
    """

    image_size: tuple[int, int]
    parameters: dict[str, int]
    operations: dict[str, dict[str, int]]

    def total(self, part: str = _WHOLE, *, attention: bool = True) -> int:
        """Multiply-adds of a module.

        Args:
            part: its dotted name.
            attention: with the products inside attention. Many published figures, MPViT's too,
                leave them out, because their counter did not know the operator.
        """
        kinds = self.operations.get(part, {})
        return sum(n for kind, n in kinds.items() if attention or kind != "attention")


def model_statistics(model: Mapping[str, Any], image_size: tuple[int, int]) -> ModelStatistics:
    """Count parameters and multiply-adds of a detector in evaluation.

    Args:
        model: the `model` of a config; nothing is allocated for its weights.
        image_size: (height, width) of the image in pixels.

    Raises:
        ValueError: if it is neither an R-CNN with box head nor a dense detector like RetinaNet, or
            does something that depends on the values of tensors.
    """
    with torch.device("meta"):
        detector = instantiate(model).eval()
    # From here on "meta" is not the default: sizes that a detector computes as tensors, as those of
    # the padded batch, have values, and only what meets the weights has none.
    with torch.no_grad(), _OperationCounter(detector) as counter:
        try:
            _run(detector, torch.zeros(3, *image_size, device="meta"))
        except (RuntimeError, NotImplementedError) as e:
            raise ValueError(
                f"{type(detector).__name__} must run on the meta device to be analysed, where "
                f"tensors have no values, but: {e}; switch off what needs values"
            ) from e
    return ModelStatistics(
        image_size=tuple(image_size),
        parameters={
            name: sum(p.numel() for p in module.parameters())
            for name, module in detector.named_modules()
        },
        operations={part: dict(kinds) for part, kinds in counter.operations.items()},
    )


def _run(detector: nn.Module, image: Tensor) -> None:
    """One forward pass up to the raw outputs, with fixed numbers of regions."""
    if not hasattr(detector, "backbone") or not hasattr(detector, "preprocess_image"):
        raise ValueError(f"only detectors can be analysed, got {type(detector).__name__}")
    images: ImageList = detector.preprocess_image([{"image": image}])
    takes_list = isinstance(detector, GeneralizedRCNNImageListForward)
    features = detector.backbone(images if takes_list else images.tensor)
    if hasattr(detector, "roi_heads"):
        rpn = detector.proposal_generator
        rpn.rpn_head([features[name] for name in rpn.in_features])
        _run_roi_heads(detector.roi_heads, features)
    else:
        detector.head([features[name] for name in detector.head_in_features])


def _run_roi_heads(heads: nn.Module, features: dict[str, Tensor]) -> None:
    channels = features[heads.box_in_features[0]].shape[1]
    regions = torch.zeros(NUM_PROPOSALS, channels, *heads.box_pooler.output_size, device="meta")
    # A cascade has a head and a predictor for each of its stages.
    box_heads, predictors = (
        parts if isinstance(parts, nn.ModuleList) else [parts]
        for parts in (heads.box_head, heads.box_predictor)
    )
    for box_head, predictor in zip(box_heads, predictors, strict=True):
        predictor(box_head(regions))
    if heads.mask_on:
        channels = features[heads.mask_in_features[0]].shape[1]
        size = heads.mask_pooler.output_size
        regions = torch.zeros(NUM_DETECTIONS, channels, *size, device="meta")
        heads.mask_head.layers(regions)


class _OperationCounter(TorchDispatchMode):
    """Adds up the operations that run inside, for every module that contains them.

    Args:
        model: the model whose modules are told apart.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.operations: dict[str, Counter[str]] = defaultdict(Counter)
        self._model = model
        self._running = [_WHOLE]  # names of the modules that have been entered, the innermost last
        self._hooks = ExitStack()

    def __enter__(self) -> "_OperationCounter":
        for name, module in self._model.named_modules():
            before = module.register_forward_pre_hook(partial(self._enter, name))
            after = module.register_forward_hook(self._leave)
            self._hooks.callback(before.remove)
            self._hooks.callback(after.remove)
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._hooks.close()

    def _enter(self, name: str, *_: Any) -> None:
        self._running.append(name)

    def _leave(self, *_: Any) -> None:
        self._running.pop()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        # Only what runs at last: below torch's dispatch a linear layer is an addmm or mm, however
        # it was called.
        if operator.overloadpacket in _FORMULAS:
            kind, formula = _FORMULAS[operator.overloadpacket]
            count = formula(result, *args)
            for part in _with_parents(self._running[-1]):
                self.operations[part][kind] += count
        return result


def _with_parents(name: str) -> list[str]:
    """Of "a.b" these: "", "a", "a.b"."""
    parts = name.split(".") if name else []
    return [".".join(parts[:n]) for n in range(len(parts) + 1)]


def _convolution(output: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> int:
    """Every place of the smaller map meets every weight once."""
    transposed = rest[4]  # after bias, stride, padding, dilation
    places = x if transposed else output
    return places.numel() // places.shape[1] * weight.numel()


def _product(output: Tensor, a: Tensor, b: Tensor, *_: Any) -> int:
    return a.numel() * b.shape[-1]


def _product_with_bias(output: Tensor, bias: Tensor, a: Tensor, b: Tensor, *_: Any) -> int:
    return _product(output, a, b)


def _each_input(factor: int, output: Any, x: Tensor, *_: Any) -> int:
    return factor * x.numel()


def _each_output(output: Tensor, *_: Any) -> int:
    return output.numel()


# Operator -> its kind and its count as a function of result and arguments.
_FORMULAS = {
    _aten.convolution: ("conv", _convolution),
    _aten.addmm: ("linear", _product_with_bias),
    _aten.mm: ("linear", _product),
    # Of two activations: a layer's weights are multiplied by mm or addmm.
    _aten.bmm: ("attention", _product),
    _aten.native_batch_norm: ("batch_norm", partial(_each_input, 2)),
    _aten.native_layer_norm: ("layer_norm", partial(_each_input, 5)),
    _aten.native_group_norm: ("group_norm", partial(_each_input, 5)),
    _aten.upsample_nearest2d: ("resize", _each_output),
}
