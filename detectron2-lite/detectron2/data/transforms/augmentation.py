import inspect
import pprint
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from fvcore.transforms.transform import Transform, TransformList

__all__ = [
    "AugInput",
    "Augmentation",
    "AugmentationList",
    "StandardAugInput",
    "TransformGen",
    "apply_augmentations",
    "apply_transform_gens",
]


class AugInput:
    """The data of one image that augmentations look at and change in place.

    Args:
        image: (H, W) or (H, W, C), uint8 in [0, 255] or floating point.
        boxes: (N, 4) floating point boxes (x0, y0, x1, y1) in pixels, or None.
        sem_seg: (H, W) map of integer labels, or None.

    Raises:
        AssertionError: if `image` is not such an array.
    """

    def __init__(
        self,
        image: np.ndarray,
        *,
        boxes: np.ndarray | None = None,
        sem_seg: np.ndarray | None = None,
    ):
        assert isinstance(image, np.ndarray), f"image must be an ndarray, got {type(image)}"
        assert image.dtype == np.uint8 or np.issubdtype(image.dtype, np.floating), (
            f"image must be uint8 or floating point, got {image.dtype}"
        )
        assert image.ndim in (2, 3), f"image must be (H, W) or (H, W, C), got {image.shape}"
        self.image = image
        self.boxes = boxes
        self.sem_seg = sem_seg

    @property
    def canvas(self) -> np.ndarray:
        """An array of the shape of `image`, for those who look at nothing else of it."""
        return self.image

    def transform(self, tfm: Transform) -> None:
        """Replace all data that is present by its transformed version."""
        if self.image is not None:
            self.image = tfm.apply_image(self.image)
        self.transform_labels(tfm)

    def transform_labels(self, tfm: Transform) -> None:
        """Replace boxes and labels, where present, by their transformed version."""
        if self.boxes is not None:
            self.boxes = tfm.apply_box(self.boxes)
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)

    def apply_augmentations(
        self, augmentations: Sequence["Augmentation | Transform"]
    ) -> TransformList:
        """Apply augmentations or transforms in order.

        Returns:
            The transforms that were applied, flattened.
        """
        return AugmentationList(augmentations)(self)


def by_shape(get_transform: Callable[..., Transform]) -> Callable[..., Transform]:
    """Mark a `get_transform` that looks at nothing but the shape of the image.

    An image that is still with Pillow can stay there for it. A mark of the function, not of the
    class: a subclass with its own `get_transform` may well look at pixels.
    """
    get_transform.by_shape = True
    return get_transform


class Augmentation:
    """A random policy that makes a `Transform` for an image.

    Subclasses implement `get_transform`. Its parameter names say what it needs to see: each one is
    read from the attribute of the same name of the `AugInput`; a single parameter, however named,
    gets the image. Random numbers come from numpy's global generator.
    """

    input_args: tuple[str, ...] | None = None
    """Names of the attributes that `get_transform` is called with; None until the first call."""

    def get_transform(self, *args: Any) -> Transform:
        """Draw random numbers and return the transform for this input."""
        raise NotImplementedError(f"{type(self).__name__} must implement get_transform")

    def __call__(self, aug_input: AugInput) -> Transform:
        """Draw a transform, apply it to `aug_input` in place and return it.

        Raises:
            AttributeError: if `aug_input` lacks something that `get_transform` needs.
            TypeError: if `get_transform` mixes named and variable arguments.
        """
        if self.input_args is None:
            self.input_args = _names_of_inputs(self)
        tfm = self.get_transform(*[self._read(aug_input, name) for name in self.input_args])
        assert isinstance(tfm, Transform), (
            f"{type(self).__name__}.get_transform must return a Transform, got {type(tfm)}"
        )
        aug_input.transform(tfm)
        return tfm

    def __repr__(self) -> str:
        """Class name and the constructor arguments that differ from their defaults."""
        parameters = inspect.signature(type(self).__init__).parameters
        shown = []
        for name, parameter in list(parameters.items())[1:]:  # without self
            variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if variable or not hasattr(self, name):
                return super().__repr__()
            value, default = getattr(self, name), parameter.default
            if type(value) is type(default) and value == default:
                continue
            text = pprint.pformat(value)
            # No backslash may stand in an f-string before Python 3.12.
            shown.append(f"{name}={'...' if chr(10) in text else text}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def _init(self, params: Mapping[str, Any] | None = None) -> None:
        """Store constructor arguments, usually `locals()`, as attributes."""
        for name, value in (params or {}).items():
            if name != "self" and not name.startswith("_"):
                setattr(self, name, value)

    def _rand_range(
        self, low: float = 1.0, high: float | None = None, size: int | None = None
    ) -> float | np.ndarray:
        """Uniform random numbers in [low, high), or in [0, low) without `high`."""
        if high is None:
            low, high = 0, low
        return np.random.uniform(low, high, size)

    def _read(self, aug_input: AugInput, name: str) -> Any:
        if name == "image" and getattr(self.get_transform, "by_shape", False):
            name = "canvas"
        if not hasattr(aug_input, name):
            raise AttributeError(
                f"{type(self).__name__}.get_transform needs {name!r}, which "
                f"{type(aug_input).__name__} does not have; give it as an attribute of the input"
            )
        return getattr(aug_input, name)


class AugmentationList(Augmentation):
    """Several augmentations or transforms, applied one after the other.

    Args:
        augs: each one an `Augmentation` or a `Transform`.

    Raises:
        TypeError: if one of them is neither.
    """

    def __init__(self, augs: Sequence[Augmentation | Transform]):
        self.augs = [as_augmentation(aug) for aug in augs]

    def __call__(self, aug_input: AugInput) -> TransformList:
        """Apply all of them to `aug_input` in place and return a flat list of transforms."""
        return TransformList([aug(aug_input) for aug in self.augs])

    def __repr__(self) -> str:
        """Class name and the list."""
        return f"AugmentationList[{', '.join(map(str, self.augs))}]"


class FixedTransform(Augmentation):
    """The augmentation that always gives the same transform.

    Args:
        tfm: that transform.
    """

    def __init__(self, tfm: Transform):
        self.tfm = tfm

    @by_shape
    def get_transform(self, image: np.ndarray) -> Transform:
        """The transform, whatever the image is."""
        return self.tfm

    def __repr__(self) -> str:
        """That of the transform."""
        return repr(self.tfm)


def as_augmentation(tfm_or_aug: Augmentation | Transform) -> Augmentation:
    """Wrap a `Transform`; return an `Augmentation` as it is.

    Raises:
        TypeError: if it is neither.
    """
    if isinstance(tfm_or_aug, Augmentation):
        return tfm_or_aug
    if isinstance(tfm_or_aug, Transform):
        return FixedTransform(tfm_or_aug)
    raise TypeError(
        f"an augmentation must be an Augmentation or a Transform object, got {tfm_or_aug!r}"
    )


def apply_augmentations(
    augmentations: Sequence[Augmentation | Transform], inputs: AugInput | np.ndarray
) -> tuple[AugInput | np.ndarray, TransformList]:
    """Apply augmentations to an image, or to an image with its boxes and labels.

    Args:
        augmentations: applied in order.
        inputs: (H, W) or (H, W, C) image, or an `AugInput`, which is changed in place.

    Returns:
        The augmented image, or `inputs` if that is an `AugInput`; and the transforms applied.

    Raises:
        AssertionError: if `inputs` is an array but not an image, see `AugInput`.
    """
    aug_input = AugInput(inputs) if isinstance(inputs, np.ndarray) else inputs
    transforms = aug_input.apply_augmentations(augmentations)
    return (aug_input.image if isinstance(inputs, np.ndarray) else aug_input), transforms


# The names of Detectron2's first releases
TransformGen = Augmentation
StandardAugInput = AugInput
apply_transform_gens = apply_augmentations


def _names_of_inputs(aug: Augmentation) -> tuple[str, ...]:
    parameters = inspect.signature(aug.get_transform).parameters.values()
    if len(parameters) == 1:
        return ("image",)
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        raise TypeError(
            f"{type(aug).__name__}.get_transform must name each of its inputs, "
            f"got the signature {inspect.signature(aug.get_transform)}"
        )
    return tuple(p.name for p in parameters)
