"""From a checkpoint and images to detections or class maps, without a config or a dataset."""

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
from mimdet.analysis.class_maps import class_map_of
from mimdet.analysis.pictures import name_of
from mimdet.analysis.trained_model import trained_model
from mimdet.checkpoint.card import Card, card_of
from mimdet.checkpoint.file import read_checkpoint, tensors_in
from mimdet.checkpoint.identity import identify
from mimdet.config import RATIO, load_config, load_config_text
from mimdet.engine.precision import amp_dtype
from mimdet.modeling.postprocessing import image_masks

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


@dataclass(frozen=True)
class ClassMap:
    """The classes of the pixels of one image.

    Attributes:
        classes: (height, width) int32, their numbers.
        class_names: names of all classes by number; of classes without a name, words in its place.
    """

    classes: np.ndarray
    class_names: Sequence[str]

    @property
    def shares(self) -> dict[int, float]:
        """Number of each class that is there -> its share of the pixels, by falling share."""
        counts = np.bincount(self.classes.ravel())
        order = np.argsort(-counts, kind="stable")
        return {k: counts[k] / self.classes.size for k in order.tolist() if counts[k]}

    def to_label_map(self) -> Image.Image:
        """A grey picture whose levels are the numbers of classes, to be saved as PNG.

        Raises:
            ValueError: if a number does not fit into 8 bits.
        """
        if self.classes.max() > 255:
            raise ValueError(
                "a label map has numbers of classes up to 255, got "
                f"{self.classes.max()}; save `classes` by numpy"
            )
        return Image.fromarray(self.classes.astype(np.uint8))


class Predictor:
    """Detects objects in images, or tells the class of each pixel, as its model does.

    Images are read, resized and batched as in an evaluation, so that at batch 1 the detections are
    those of the evaluation, bit for bit. MIMDet sees all tokens unless told otherwise.

    Args:
        checkpoint: a file. One that mimdet has trained tells its config and classes; a released one
            is recognised by its parameters.
        config_file: a config for a file that tells none, or another one.
        overrides: ``key=value`` for the config.
        device: "auto" for a GPU where there is one.
        sample_ratio: share of the tokens that MIMDet's encoder sees, from 0 to 1.
        score_threshold: detections below it are left out; class maps have none.
        half: compute in half precision, which on a CPU is bfloat16; None does so on a GPU alone.
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
        card, cfg = card_and_config(path, config_file, overrides, trusted)
        device = usable_device(device)
        cfg.train.device, cfg.train.init_checkpoint = device, path
        _set_ratio(cfg, sample_ratio)
        mapper = instantiate(cfg.dataloader.test.mapper)
        if not isinstance(mapper, DatasetMapper):
            raise ValueError(
                "a predictor needs a detector or segmentor, whose images a DatasetMapper prepares, "
                f"and {path} was trained with {type(mapper).__name__}"
            )
        self._image_format = mapper.image_format
        self.augmentations: T.AugmentationList = mapper.augmentations
        self.model = trained_model(cfg).eval()
        self.device = torch.device(device)
        self.score_threshold = score_threshold
        self.half = self.device.type == "cuda" if half is None else half
        self.class_names = card.classes if card else _known_names(cfg)
        self.category_ids = card.category_ids if card else []

    def __call__(self, image: ImageLike) -> Prediction | ClassMap:
        """Predict for one image, see `predict`."""
        return self.predict([image])[0]

    @torch.no_grad()
    def predict(self, images: Iterable[ImageLike]) -> list[Prediction] | list[ClassMap]:
        """Predict for a batch of images.

        Args:
            images: paths, PIL images, or arrays of (H, W, 3) RGB or (H, W) grey in uint8.

        Returns:
            For each image its detections, or of a segmentor its class map.

        Raises:
            OSError: if a file cannot be read.
            ValueError: if an array has another shape or type.
        """
        inputs = [self._prepare(image) for image in images]
        with self._precision():
            outputs = self.model(inputs)
        return [self._prediction(output) for output in outputs]

    def _prepare(self, image: ImageLike) -> dict[str, Any]:
        pixels = read_pixels(image, self._image_format)
        augmented = T.AugInput(pixels)
        self.augmentations(augmented)
        channels_first = np.atleast_3d(augmented.image).transpose(2, 0, 1)
        height, width = pixels.shape[:2]
        return {
            # Copied: BGR comes as a view of negative strides, which torch does not take, and PIL's
            # own pixels cannot be written to.
            "image": torch.from_numpy(channels_first.copy()),
            "height": height,
            "width": width,
        }

    def _precision(self) -> contextlib.AbstractContextManager:
        if not self.half:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=amp_dtype("auto", self.device))

    def _prediction(self, output: dict[str, Any]) -> Prediction | ClassMap:
        if "sem_seg" in output:
            classes = class_map_of(output["sem_seg"])
            known = max(len(self.class_names), int(classes.max()) + 1)
            return ClassMap(classes, [name_of(k, self.class_names) for k in range(known)])
        found = output["instances"].to("cpu")
        found = found[found.scores >= self.score_threshold]
        classes = found.pred_classes.numpy()
        return Prediction(
            # In half precision they may be bfloat16, a type that numpy does not have.
            boxes=found.pred_boxes.tensor.float().numpy(),
            scores=found.scores.float().numpy(),
            classes=classes,
            names=[name_of(number, self.class_names) for number in classes.tolist()],
            instances=found,
            category_ids=self.category_ids,
        )


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


def card_and_config(
    path: str, config_file: str | None, overrides: Sequence[str], trusted: Sequence[str]
) -> tuple[Card | None, DictConfig]:
    """What a checkpoint says of itself, and the config that it tells or that a file has instead.

    Raises:
        FileNotFoundError, ValueError: see `Predictor`.
    """
    # Mapped, because the weights are read when the model is loaded, and here only the card or
    # names.
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


def usable_device(device: str) -> str:
    """The device, or what "auto" stands for.

    Raises:
        ValueError: if there is no such device.
    """
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
    metadata = MetadataCatalog.get(name) if name else {}
    return list(metadata.get("thing_classes") or metadata.get("stuff_classes") or ())
