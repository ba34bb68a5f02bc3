"""What can be wrong with a dataset, one line per kind.

A problem is told once per kind, with a count, the first examples and what to do, never once per
annotation: a file with one systematic mistake has it a hundred thousand times.
"""

import enum
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mimdet.shown import shown

logger = logging.getLogger(__name__)

_EXAMPLES = 3


class Severity(enum.Enum):
    """What becomes of the entries that have a problem."""

    FIXED = "repaired"
    DROPPED = "left out"
    SUSPECT = "used as they are"
    REFUSED = "refused"


@dataclass(frozen=True)
class Kind:
    """One way in which entries of a dataset can be wrong.

    Attributes:
        severity: what becomes of them.
        what: what is wrong, said of them all ("annotations have ...").
        remedy: what to do, or what was done.
    """

    severity: Severity
    what: str
    remedy: str


_F, _D, _S, _R = Severity.FIXED, Severity.DROPPED, Severity.SUSPECT, Severity.REFUSED

# The file.
BYTE_ORDER_MARK = Kind(
    _F, "the file begins with a byte order mark", "read without it; other programs refuse it"
)

EMPTY_LIST = Kind(_R, "lists that must have entries have none", "export the file again")

# Images.
IMAGE_ENTRY = Kind(_R, "images are no JSON object", "write each as {id, file_name, height, width}")
IMAGE_ID = Kind(_R, "images have an id that is no whole number or text", "number the images")
IMAGE_ID_TWICE = Kind(_R, "images have the id of another image", "give each image an id of its own")
IMAGE_TWICE = Kind(_F, "images are listed again, word for word", "each is used once")
IMAGE_ID_TYPES = Kind(
    _F,
    "image ids are not whole numbers",
    "images are numbered anew inside; outputs have the ids of the file",
)
FILE_NAME = Kind(_R, "images have a file_name that is no text", "write the path below image_root")
FILE_NAME_CONTROL = Kind(
    _R, "images have a file_name with control characters or line breaks", "rename the files"
)
FILE_NAME_URL = Kind(
    _R, "images have an address for a file_name", "download them and name the local file"
)
FILE_NAME_BACKSLASH = Kind(
    _R,
    "images have a file_name with a backslash, and no file of that name is below image_root",
    "write paths with / (a Windows export has \\), relative to image_root",
)
FILE_NAME_WINDOWS = Kind(
    _F, "images have a file_name with backslashes", "read as / because those files exist"
)
FILE_NAME_OUTSIDE = Kind(
    _R,
    "images have a file_name that leads out of image_root",
    "move them below it, or allow it for this dataset (allow_outside_root=True)",
)
FILE_NAME_TWICE = Kind(
    _S, "images have the file_name of another image", "check that the file is meant twice"
)
IMAGE_SIZE = Kind(
    _R,
    "images have a height or width that is no whole number above 0",
    "write the size in pixels of the image upright",
)
SIZE_TEXT = Kind(_F, "images have a height or width that is text", "read as numbers")
FILE_MISSING = Kind(_R, "image files do not exist", "check image_root and the file names")
FILE_SPECIAL = Kind(_R, "image paths lead to a folder, pipe or device", "name files")
FILE_UNREADABLE = Kind(_R, "image files cannot be read", "replace the files")
FILE_SIZE = Kind(
    _R,
    "image files have another size than their entry",
    "write the size of the image upright, as its EXIF orientation says",
)

# Categories.
CATEGORY_ENTRY = Kind(_R, "categories are no JSON object", "write each as {id, name}")
CATEGORY_ID = Kind(_R, "categories have an id that is no whole number or text", "number them")
CATEGORY_ID_TWICE = Kind(_R, "categories have the id of another one", "give each its own id")
CATEGORY_ID_TYPES = Kind(
    _F,
    "category ids are not whole numbers",
    "categories are numbered anew inside; outputs have the ids of the file",
)
CATEGORY_NAME = Kind(_R, "categories have a name that is no text or empty", "name them")
CATEGORY_NAME_CONTROL = Kind(
    _F,
    "categories have a name of more than 100 characters, or with control characters",
    "it is cut, and a question mark takes the place of such a character",
)
CATEGORY_NAME_TWICE = Kind(
    _F,
    "categories have the name of another one",
    "they stay apart, with their ids behind the name; merge them if they are one class",
)
ONLY_CROWDS = Kind(
    _S,
    "categories have crowds alone, which are neither learned nor scored as objects",
    "write iscrowd 0 for single objects (some tools write 1 for every mask stored as RLE)",
)

# Annotations.
ENTRY = Kind(_R, "annotations are no JSON object", "write each as {image_id, category_id, bbox}")
ANNOTATION_ID = Kind(
    _F,
    "annotation ids are missing, 0, used twice or no whole numbers",
    "the evaluator's truth gets ids of its own (0 means 'not found' to COCO's scorer)",
)
IMAGE_REFERENCE = Kind(
    _D, "annotations have an image_id that belongs to no image", "add the images or delete them"
)
ID_TEXT = Kind(
    _F,
    "annotations write an id as text where the list has a number, or the other way round",
    "both stand for the same id",
)
CATEGORY_REFERENCE = Kind(
    _R, "annotations have a category_id that is not in categories", "add the category"
)
CROWD = Kind(
    _F,
    "annotations have an iscrowd that is neither 0 nor 1",
    "missing, null, false and '0' mean 0, other numbers, true and '1' mean 1",
)
CROWD_VALUE = Kind(_R, "annotations have an iscrowd without a meaning", "write 0 or 1")
CROWD_MASK = Kind(
    _F,
    "crowds have no segmentation, in a file whose objects have",
    "the region of the crowd is its box",
)
IGNORE = Kind(
    _F,
    "annotations have 'ignore' set",
    "they count as crowds: not learned, and detections on them are no mistakes",
)
AREA = Kind(_F, "annotations have no area, or one that is no number above 0", "measured instead")
BOX = Kind(
    _R,
    "annotations have a bbox that is not four finite numbers, and no polygon to make it from",
    "write [x, y, width, height] in pixels",
)
BOX_FROM_MASK = Kind(_F, "annotations have no usable bbox", "the box around their polygons is used")
NUMBERS_TEXT = Kind(_F, "annotations have numbers written as text", "read as numbers")
BOX_EMPTY = Kind(
    _D, "annotations have a bbox without area", "delete them or correct width and height"
)
BOX_OUTSIDE = Kind(
    _D, "annotations have a bbox outside of the image", "check x and y, and the image's size"
)
BOX_REACHES_OUT = Kind(
    _S,
    "annotations have a bbox that reaches out of the image by more than a pixel",
    "check the image's size (EXIF orientation?) and that a bbox is [x, y, width, height]",
)
BOX_TINY = Kind(
    _S,
    "annotations have a bbox below one pixel in both directions",
    "check that it is in pixels, not in shares of the image",
)
BOX_NORMALIZED = Kind(
    _R,
    "annotations, half of the file or more, have a bbox in shares of the image (0 to 1)",
    "multiply x and width by the image's width, y and height by its height",
)
TOO_FAR = Kind(
    _R,
    "annotations have coordinates absurdly far from the image",
    "correct or delete them",
)
TOO_LARGE = Kind(
    _R,
    "annotations have a segmentation of too many points or parts",
    "simplify the polygons or write it as RLE",
)
SEGMENTATION = Kind(
    _R,
    "annotations have a segmentation that is neither polygons nor RLE",
    "write [[x0, y0, x1, y1, ...], ...] or {size, counts}",
)
SEGMENTATION_FLAT = Kind(
    _F, "annotations have one polygon where a list of polygons belongs", "read as one polygon"
)
SEGMENTATION_POINTS = Kind(
    _F,
    "annotations have polygons as lists of points [[x, y], ...] (labelme's way)",
    "read as polygons",
)
SEGMENTATION_RLES = Kind(_F, "annotations have a list of RLE", "read as one mask of all parts")
POLYGON_PARTS = Kind(
    _F,
    "annotations have polygons of fewer than three points, without area, or with an odd number of "
    "coordinates",
    "those polygons are left out, the rest of the object stays",
)
POLYGON_NONE = Kind(
    _D,
    "annotations have no polygon of three points or more that has an area",
    "draw them again, or delete their segmentation to train on boxes",
)
POLYGON_DISAGREES = Kind(
    _S,
    "annotations have a segmentation that does not fit their bbox",
    "check that x comes before y in both, and that both belong to the same object",
)
RLE = Kind(
    _R,
    "annotations have an RLE that is damaged: counts are no run lengths that fill size",
    "export the masks again",
)
RLE_SIZE = Kind(
    _R, "annotations have an RLE of another size than their image", "size is [height, width]"
)
MASK_MISSING = Kind(
    _R,
    "objects have no segmentation, which this model learns from",
    "draw them, or choose dataset.missing_masks=rectangle (the box as mask) or "
    "boxes (a detector of boxes)",
)


@dataclass
class Problems:
    """The problems of one dataset, by kind.

    Attributes:
        source: the file, for messages.
    """

    source: str | os.PathLike
    _count: dict[Kind, int] = field(default_factory=dict)
    _examples: dict[Kind, list[str]] = field(default_factory=dict)

    def add(self, kind: Kind, entry: str, value: Any = "") -> None:
        """Count one more of a kind.

        Args:
            kind: what is wrong.
            entry: which entry, as a user would find it.
            value: what it has.
        """
        self._count[kind] = self._count.get(kind, 0) + 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(shown(entry) + (f": {shown(value)}" if value != "" else ""))

    def is_full(self, kind: Kind) -> bool:
        """Whether further examples of a kind would not be kept, so that none need be made."""
        return self._count.get(kind, 0) >= _EXAMPLES

    def __len__(self) -> int:
        return sum(self._count.values())

    def __getitem__(self, kind: Kind) -> int:
        return self._count.get(kind, 0)

    def kinds(self, *severities: Severity) -> list[Kind]:
        """The kinds that were found, of these severities or of all."""
        return [k for k in self._count if not severities or k.severity in severities]

    def lines(self, *severities: Severity) -> Iterator[str]:
        """One sentence per kind that was found."""
        for kind in self.kinds(*severities):
            count, examples = self._count[kind], "; ".join(self._examples[kind])
            which = f"{count}: {examples}" if count <= _EXAMPLES else f"{count}, first {examples}"
            yield f"{self.source}: {kind.what} ({which}); {kind.severity.value}: {kind.remedy}"

    def report(self) -> None:
        """Log what was repaired, left out or looks wrong, and refuse what cannot be used.

        Raises:
            ValueError: if anything is refused; it lists all of that.
        """
        for line in self.lines(Severity.FIXED, Severity.DROPPED, Severity.SUSPECT):
            logger.warning(line)
        self.refuse()

    def refuse(self) -> None:
        """Refuse what cannot be used.

        Raises:
            ValueError: if there is any; it lists all of it.
        """
        if refused := list(self.lines(Severity.REFUSED)):
            raise ValueError("\n  ".join(refused))
