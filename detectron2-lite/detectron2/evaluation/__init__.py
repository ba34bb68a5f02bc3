"""Running a model on a data set and measuring what it predicts."""

from detectron2._missing import missing_names

from .coco_evaluation import COCOEvaluator
from .evaluator import DatasetEvaluator, DatasetEvaluators, inference_context, inference_on_dataset
from .lvis_evaluation import LVISEvaluator
from .testing import print_csv_format

__all__ = [
    "COCOEvaluator",
    "DatasetEvaluator",
    "DatasetEvaluators",
    "LVISEvaluator",
    "inference_context",
    "inference_on_dataset",
    "print_csv_format",
]

__getattr__ = missing_names(
    __name__,
    """
    COCOPanopticEvaluator CityscapesInstanceEvaluator CityscapesSemSegEvaluator
    PascalVOCDetectionEvaluator RotatedCOCOEvaluator SemSegEvaluator verify_results
    """,
)
