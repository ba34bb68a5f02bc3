"""mimdet: detection with backbones pre-trained by masked image modelling."""

from importlib.util import find_spec

__version__ = "0.1.0"

if find_spec("detectron2") is None:
    raise ModuleNotFoundError(
        "mimdet needs Detectron2, which is not installed. Either of two will do: detectron2-lite, "
        "by `pip install ./detectron2-lite` in a clone of mimdet, or upstream's, by its own guide "
        "(https://detectron2.readthedocs.io/tutorials/install.html)",
        name="detectron2",
    )
