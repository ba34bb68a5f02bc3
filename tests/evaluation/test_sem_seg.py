"""Class maps are scored like the scores that they come from."""

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from mimdet.evaluation.sem_seg import SemSegEvaluator

NAME = "test_evaluation_of_class_maps"


@pytest.fixture
def label_file(tmp_path):
    """A registered data set of one image with 3 classes and ignored pixels."""
    labels = np.random.default_rng(0).choice([0, 1, 2, 255], (6, 8)).astype(np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(labels).save(path)
    record = {"file_name": "a.jpg", "sem_seg_file_name": str(path)}
    DatasetCatalog.register(NAME, lambda: [record])
    MetadataCatalog.get(NAME).set(stuff_classes=["a", "b", "c"], ignore_label=255)
    yield path
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def results(prediction: torch.Tensor) -> dict[str, float]:
    evaluator = SemSegEvaluator(NAME)
    evaluator.process([{"file_name": "a.jpg"}], [{"sem_seg": prediction}])
    return evaluator.evaluate()["sem_seg"]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
def test_a_class_map_gives_the_results_of_its_scores(label_file, dtype):
    scores = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
    expected = results(scores)
    assert 0 < expected["mIoU"] < 100
    assert results(scores.argmax(dim=0).to(dtype)) == expected


def test_the_truth_itself_is_right_everywhere(label_file):
    truth = torch.from_numpy(np.array(Image.open(label_file))).int()
    found = results(truth.where(truth != 255, 0))
    assert found["mIoU"] == found["pACC"] == 100
