"""mimdet: detection with backbones pre-trained by masked image modelling."""

import sys
from typing import Any

__version__ = "0.1.0"


class _WithoutDetectron2:
    """Import hook that says what to do where no Detectron2 is installed, once a module needs it."""

    @staticmethod
    def find_spec(fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "detectron2":
            raise ModuleNotFoundError(
                "mimdet needs Detectron2, which is not installed. Either of two will do: "
                "detectron2-lite, by `pip install ./detectron2-lite` in a clone of mimdet, or "
                "upstream's, by its own guide "
                "(https://detectron2.readthedocs.io/tutorials/install.html)",
                name=fullname,
            )


# Last, so that it is asked only about a package that nobody else finds. Not an error here: some
# parts, such as the layers, do without Detectron2.
sys.meta_path.append(_WithoutDetectron2)


def __getattr__(name: str) -> Any:
    """`mimdet.Predictor`, imported when it is asked for: it takes seconds, and Detectron2."""
    if name != "Predictor":
        raise AttributeError(f"module 'mimdet' has no attribute {name!r}")
    from mimdet.analysis.predictor import Predictor

    return Predictor
