"""From a checkpoint and images to detections, without a config or a dataset."""

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

import detectron2.data.transforms as T
from detectron2.config import instantiate
from detectron2.data import DatasetMapper, MetadataCatalog, detection_utils
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from mimdet.analysis.trained_model import trained_model
from mimdet.checkpoint.card import Card, card_of
from mimdet.checkpoint.file import read_checkpoint, tensors_in
from mimdet.checkpoint.identity import identify
from mimdet.config import load_config, load_config_text
from mimdet.modeling.postprocessing import image_masks

RATIO = "model.backbone.bottom_up.sample_ratio"
_SEED = "model.backbone.bottom_up.sample_seed"

ImageLike = str | os.PathLike | np.ndarray | Image.Image


@dataclass(frozen=True)
class Prediction:
    """The detections of one image, by falling score.

    Attributes:
        boxes: (N, 4) x0, y0, x1, y1 in pixels of the image.
        scores: (N,).
        classes: (N,) their numbers.
        names: N names of classes.
        instances: Detectron2's own, on the CPU; of a detector of masks `pred_masks` may be in the
            frames of the boxes.
        category_ids: for each class the id of the annotation file that it was trained on; empty
            where the checkpoint does not tell.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    names: list[str]
    instances: Instances
    category_ids: Sequence[Any] = ()

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def masks(self) -> np.ndarray | None:
        """(N, height, width) bool; None of a detector of boxes. Made anew in each call."""
        if not self.instances.has("pred_masks"):
            return None
        return image_masks(self.instances).numpy()

    def to_coco(self, image_id: Any) -> list[dict[str, Any]]:
        """Entries of a COCO result list, with the category ids of the training's annotations."""
        entries = instances_to_coco_json(self.instances, image_id)
        for entry in entries:
            number = entry["category_id"]
            entry["category_id"] = self.category_ids[number] if self.category_ids else number
        return entries

    def to_supervision(self) -> Any:
        """The same as `supervision.Detections`; that package is no dependency of mimdet."""
        import supervision

        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.classes,
            data={"class_name": np.array(self.names, dtype=object)},
        )


class Predictor:
    """Detects objects in images.

    Images are read, resized and batched as in an evaluation, so that at batch 1 the detections are
    those of the evaluation, bit for bit. MIMDet sees all tokens unless told otherwise.

    Args:
        checkpoint: a file. One that mimdet has trained tells its config and classes; a released one
            is recognised by its parameters.
        config_file: a config for a file that tells none, or another one.
        overrides: ``key=value`` for the config.
        device: "auto" for a GPU where there is one.
        sample_ratio: share of the tokens that MIMDet's encoder sees, from 0 to 1.
        score_threshold: detections below it are left out.
        half: compute in half precision; None does so on a GPU.
        trusted: packages from which the checkpoint's config may call everything, see
            `mimdet.trusted`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no checkpoint of a detector, or its config cannot be told.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike,
        config_file: str | None = None,
        overrides: Sequence[str] = (),
        device: str = "auto",
        sample_ratio: float = 1.0,
        score_threshold: float = 0.5,
        half: bool | None = None,
        trusted: Sequence[str] = (),
    ):
        path = os.fspath(checkpoint)
        card, cfg = _card_and_config(path, config_file, overrides, trusted)
        device = _usable(device)
        cfg.train.device, cfg.train.init_checkpoint = device, path
        _set_ratio(cfg, sample_ratio)
        mapper = instantiate(cfg.dataloader.test.mapper)
        if not isinstance(mapper, DatasetMapper):
            raise ValueError(
                f"a predictor needs a detector, whose images a DatasetMapper prepares, and {path} "
                f"was trained with {type(mapper).__name__}"
            )
        self._image_format = mapper.image_format
        self.augmentations: T.AugmentationList = mapper.augmentations
        self.model = trained_model(cfg).eval()
        self.device = torch.device(device)
        self.score_threshold = score_threshold
        self.half = self.device.type == "cuda" if half is None else half
        self.class_names = card.classes if card else _known_names(cfg)
        self.category_ids = card.category_ids if card else []

    def __call__(self, image: ImageLike) -> Prediction:
        """Detect in one image, see `predict`."""
        return self.predict([image])[0]

    @torch.no_grad()
    def predict(self, images: Iterable[ImageLike]) -> list[Prediction]:
        """Detect in a batch of images.

        Args:
            images: paths, PIL images, or arrays of (H, W, 3) RGB or (H, W) grey in uint8.

        Raises:
            OSError: if a file cannot be read.
            ValueError: if an array has another shape or type.
        """
        inputs = [self._prepare(image) for image in images]
        with self._precision():
            outputs = self.model(inputs)
        return [self._prediction(output["instances"].to("cpu")) for output in outputs]

    def _prepare(self, image: ImageLike) -> dict[str, Any]:
        pixels = read_pixels(image, self._image_format)
        augmented = T.AugInput(pixels)
        self.augmentations(augmented)
        channels_first = np.atleast_3d(augmented.image).transpose(2, 0, 1)
        height, width = pixels.shape[:2]
        return {
            "image": torch.from_numpy(channels_first.copy()),
            "height": height,
            "width": width,
        }

    def _precision(self) -> contextlib.AbstractContextManager:
        if not self.half:
            return contextlib.nullcontext()
        is_bfloat16 = self.device.type != "cuda" or torch.cuda.is_bf16_supported()
        dtype = torch.bfloat16 if is_bfloat16 else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)

    def _prediction(self, found: Instances) -> Prediction:
        found = found[found.scores >= self.score_threshold]
        classes = found.pred_classes.numpy()
        return Prediction(
            boxes=found.pred_boxes.tensor.float().numpy(),
            scores=found.scores.float().numpy(),
            classes=classes,
            names=[self._name(number) for number in classes.tolist()],
            instances=found,
            category_ids=self.category_ids,
        )

    def _name(self, number: int) -> str:
        is_known = number < len(self.class_names)
        return self.class_names[number] if is_known else f"class {number}"


def read_pixels(image: ImageLike, image_format: str) -> np.ndarray:
    """An image as Detectron2 reads it: (H, W, 3) uint8 in the order of `image_format`.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if an array has another shape or type.
    """
    if isinstance(image, str | os.PathLike):
        return detection_utils.read_image(os.fspath(image), format=image_format)
    if isinstance(image, np.ndarray):
        is_image = image.dtype == np.uint8 and (image.ndim == 2 or image.shape[2:] == (3,))
        if not is_image or not image.size:
            raise ValueError(
                "an image must be an array of (H, W, 3) RGB or (H, W) grey in uint8, got "
                f"{image.shape} in {image.dtype}"
            )
        image = Image.fromarray(image)
    return detection_utils.convert_PIL_to_numpy(image, image_format)


def _card_and_config(
    path: str, config_file: str | None, overrides: Sequence[str], trusted: Sequence[str]
) -> tuple[Card | None, DictConfig]:
    content = read_checkpoint(path, "the checkpoint", mapped=True)
    card = card_of(content, path)
    if config_file:
        return card, load_config(config_file, overrides, trusted=trusted)
    if card:
        return card, load_config_text(card.config, overrides, trusted, source=path)
    identity = identify(tensors_in(content, path, "the checkpoint"))
    if identity.config:
        return None, load_config(identity.config, overrides)
    raise ValueError(
        f"{path} does not tell its config, and is {identity.what}; name it with --config-file"
    )


def _usable(device: str) -> str:
    """The device, or what "auto" stands for."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as e:  # an unknown word, or no such device here
        reason = str(e).splitlines()[0]
        raise ValueError(f"device must be auto, cpu, cuda, ..., got {device!r} ({reason})") from e
    return device


def _set_ratio(cfg: DictConfig, ratio: float) -> None:
    if not 0 < ratio <= 1:
        raise ValueError(f"the sample ratio must be above 0 and at most 1, got {ratio}")
    if OmegaConf.select(cfg, RATIO) is None:
        return
    OmegaConf.update(cfg, RATIO, ratio)
    if ratio < 1 and OmegaConf.select(cfg, _SEED) is None:
        OmegaConf.update(cfg, _SEED, 0)  # the same tokens, and so the same detections, in each call


def _known_names(cfg: DictConfig) -> list[str]:
    """Names of the classes of a dataset that Detectron2 brings along."""
    name = OmegaConf.select(cfg, "dataloader.evaluator.dataset_name")
    return list(MetadataCatalog.get(name).get("thing_classes", ())) if name else []
