"""What LVIS v1 is known for before its files are read: in how many images each class occurs."""

import json
from importlib.resources import files

import torch
from torch import Tensor


def get_lvis_v1_cls_weights(power: float = 0.5) -> Tensor:
    """Weights by which the federated loss draws classes, for LVIS v1.

    Training and evaluation of a checkpoint both need them, with or without the data set at hand,
    so the counts come with this package (`lvis_v1_class_image_count.json`).

    Args:
        power: exponent on the number of training images of a class.

    Returns:
        (1203,) float32, in the order of the category ids.

    Reference:
        Zhou et al. 2021, arXiv 2103.07461, section 5.3.
    """
    content = (files("mimdet.data") / "lvis_v1_class_image_count.json").read_text()
    counts = json.loads(content)["image_count"]
    return torch.tensor(counts, dtype=torch.float32) ** power
