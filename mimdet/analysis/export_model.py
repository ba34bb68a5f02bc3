"""A trained model as a file for other programs: ONNX, checked against PyTorch, or safetensors."""

import importlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchvision.ops import box_iou

from detectron2.modeling import GeneralizedRCNN, RetinaNet
from mimdet.analysis.onnx_detector import OUTPUTS, FixedSizeDetector
from mimdet.analysis.predictor import Predictor, read_pixels
from mimdet.checkpoint.average import averaged_weights, choose_weights
from mimdet.checkpoint.card import card_of
from mimdet.checkpoint.file import read_checkpoint, tensors_in
from mimdet.whole_files import complete_or_not_there

OPSET = 18
# Largest differences from PyTorch, which computes the same in another order.
BOX_TOLERANCE, SCORE_TOLERANCE = 0.1, 1e-3


@dataclass(frozen=True)
class Parity:
    """What an exported file computes against PyTorch.

    Attributes:
        images: that were compared.
        detections: of PyTorch in them.
        unmatched: of these, and of the file's, without a partner of their class.
        boxes: largest difference of a side, in pixels of the input.
        scores: largest difference of a score.
        masks: largest difference of a mask's probability; 0 without masks.
    """

    images: int
    detections: int
    unmatched: int
    boxes: float
    scores: float
    masks: float

    @property
    def holds(self) -> bool:
        """Whether the differences are those of rounding."""
        return (
            not self.unmatched
            and self.boxes <= BOX_TOLERANCE
            and max(self.scores, self.masks) <= SCORE_TOLERANCE
        )

    def __str__(self) -> str:
        return (
            f"{self.images} images, {self.detections} detections: {self.unmatched} unmatched, "
            f"boxes differ by {self.boxes:.2g} pixels, scores by {self.scores:.2g}, masks by "
            f"{self.masks:.2g} at most"
        )


def export_onnx(
    predictor: Predictor, output: str, size: tuple[int, int], images: Sequence[str]
) -> Parity:
    """Write a detector as ONNX, for one image of a fixed size, and compare it with PyTorch.

    Input ``image`` (3, height, width) float32 in 0..255; outputs as `FixedSizeDetector` has them.
    Class names and the order of colours are in the file's metadata.

    Args:
        predictor: on the CPU.
        output: file to write; there is none if the comparison fails.
        size: height and width.
        images: to compare on; stretched to `size`.

    Raises:
        ModuleNotFoundError: if onnx, onnxscript or onnxruntime is not installed.
        NotImplementedError: if the model is no R-CNN or RetinaNet.
        ValueError: if the size does not fit the model, or the results differ.
    """
    onnxruntime = _required("onnxruntime", "onnx", "onnxscript")
    model = predictor.model
    _check_model(model, size)
    detector = FixedSizeDetector(model, size).eval()
    inputs = [_pixels(image, model.input_format, size) for image in images]
    with complete_or_not_there(output) as unfinished:
        # Another kernel's output has strides that the exporter cannot carry over.
        plain = sdpa_kernel(SDPBackend.MATH)
        with torch.no_grad(), plain, warnings.catch_warnings():
            # of torchvision's nms and of the exporter itself: nothing that a user could mend
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                detector,
                (inputs[0],),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=list(OUTPUTS[: len(detector(inputs[0]))]),
                verbose=False,
            )
        program.model.metadata_props.update(_metadata(predictor, size))
        program.save(unfinished)
        session = onnxruntime.InferenceSession(unfinished, providers=["CPUExecutionProvider"])
        parity = compare(detector, lambda x: session.run(None, {"image": x.numpy()}), inputs)
        if not parity.holds:
            raise ValueError(
                f"{output} must compute what PyTorch does, within {BOX_TOLERANCE} pixels and "
                f"{SCORE_TOLERANCE:g} of a score, but: {parity}; it is not kept"
            )
    return parity


def _check_model(model: nn.Module, size: tuple[int, int]) -> None:
    if not isinstance(model, GeneralizedRCNN | RetinaNet):
        raise NotImplementedError(
            f"{type(model).__name__} cannot be exported to ONNX: only (Cascade) Mask R-CNN and "
            "RetinaNet can; its weights can, to a file that ends in .safetensors"
        )
    side = model.backbone.padding_constraints.get("square_size", 0)
    if side and size != (side, side):
        raise ValueError(f"this model takes images of {side} x {side}, got --size {size}")
    divisor = model.backbone.size_divisibility
    if divisor and any(length % divisor for length in size):
        raise ValueError(f"sides must be multiples of {divisor} for this model, got --size {size}")


def compare(detector: FixedSizeDetector, run: Any, inputs: Sequence[Tensor]) -> Parity:
    """Compare what ``run(image)`` returns with the detections of a detector.

    Detections are partners if they are of one class and overlap most: those of nearly equal scores
    may come in another order.
    """
    detections = unmatched = 0
    worst = {"boxes": 0.0, "scores": 0.0, "masks": 0.0}
    for image in inputs:
        with torch.no_grad():
            wanted = [output.cpu() for output in detector(image)]
        found = [torch.as_tensor(output) for output in run(image)]
        count = int((wanted[1] > 0).sum())
        detections += count
        unmatched += abs(count - int((found[1] > 0).sum()))
        if not (count and (found[1] > 0).any()):
            continue
        overlap = box_iou(wanted[0][:count], found[0])
        # -1, below any IoU: these can be no partners.
        overlap[wanted[2][:count, None] != found[2]] = -1
        overlap[:, found[1] <= 0] = -1
        best, partner = overlap.max(dim=1)
        unmatched += int((best <= 0).sum())
        for name, one, other in zip(OUTPUTS, wanted, found, strict=False):
            if name in worst:
                difference = (one[:count] - other[partner])[best > 0].abs()
                largest = float(difference.max()) if len(difference) else 0.0
                worst[name] = max(worst[name], largest)
    return Parity(len(inputs), detections, unmatched, **worst)


def default_size(predictor: Predictor) -> tuple[int, int]:
    """The square of a model that has one, else 3:4 with the shorter side of its evaluations."""
    backbone = predictor.model.backbone
    if side := backbone.padding_constraints.get("square_size", 0):
        return side, side
    edges = (vars(aug).get("short_edge_length") for aug in predictor.augmentations.augs)
    shorter = next((edge[0] for edge in edges if edge), 800)
    divisor = backbone.size_divisibility or 1
    height, width = (-(-length // divisor) * divisor for length in (shorter, shorter * 4 // 3))
    return height, width


def export_safetensors(path: str, output: str) -> int:
    """Write the weights of a checkpoint, the average where it has one, with its card as metadata.

    Returns:
        The number of tensors.
    """
    from safetensors.torch import save_file

    content = read_checkpoint(path, "the checkpoint to export")
    if choose_weights(content, None, path) == "ema":
        content = {**content, "model": averaged_weights(content)}
    # Copies, because the format has no tensors that share memory.
    tensors = {n: t.clone().contiguous() for n, t in tensors_in(content, path, "it").items()}
    card = card_of(content, path)
    metadata = {"card": json.dumps(asdict(card))} if card else {}
    with complete_or_not_there(output) as unfinished:
        save_file(tensors, unfinished, metadata={"format": "pt", **metadata})
    return len(tensors)


def _pixels(image: str, image_format: str, size: tuple[int, int]) -> Tensor:
    # Resized in RGB, which is what PIL takes an array for; the model's order of colours comes
    # after.
    resized = Image.fromarray(read_pixels(image, "RGB")).resize(size[::-1], Image.BILINEAR)
    pixels = read_pixels(resized, image_format)
    return torch.from_numpy(np.array(pixels).transpose(2, 0, 1).astype(np.float32))


def _metadata(predictor: Predictor, size: tuple[int, int]) -> dict[str, str]:
    return {
        "classes": json.dumps(list(predictor.class_names)),
        "category_ids": json.dumps(list(predictor.category_ids)),
        "input_format": predictor.model.input_format,
        "height": str(size[0]),
        "width": str(size[1]),
    }


def _required(*names: str) -> ModuleType:
    """The first of these modules; all must be installed."""
    try:
        return [importlib.import_module(name) for name in names][0]
    except ModuleNotFoundError as e:
        raise ModuleNotFoundError(
            f"export to ONNX needs {', '.join(names)}, and {e.name} is not installed: "
            f"pip install {' '.join(names)}",
            name=e.name,
        ) from e
