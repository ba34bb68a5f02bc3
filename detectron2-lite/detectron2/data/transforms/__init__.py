"""Image transforms and random augmentations, usually imported as `T`.

A *transform* is deterministic and changes images, boxes, polygons and masks alike; an
*augmentation* looks at an image, draws random numbers and returns a transform.
"""

from fvcore.transforms.transform import *

from detectron2.data.transforms.augmentation import *
from detectron2.data.transforms.augmentation_impl import *
from detectron2.data.transforms.transform import *
