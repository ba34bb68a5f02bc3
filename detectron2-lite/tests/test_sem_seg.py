"""Semantic segmentation: data, crop, segmentor and metrics, against upstream's numbers."""

import logging
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_data import image, load
from PIL import Image
from torch import nn

from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.data.datasets import load_sem_seg
from detectron2.evaluation import SemSegEvaluator
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, SemanticSegmentor
from detectron2.modeling.postprocessing import sem_seg_postprocess

MAPS, META = load("sem_seg")
METRIC_MAPS, METRICS = load("sem_seg_metrics")


def label_map(index: int, height: int, width: int, classes: int) -> np.ndarray:
    """Label map `index` of the rule of golden/README.md: cells of 8 pixels, 255 among them."""
    shape = math.ceil(height / 8), math.ceil(width / 8)
    cells = np.random.RandomState(2000 + index).randint(0, classes + 1, shape)
    cells[cells == classes] = 255
    return cells.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.uint8)


def assert_summary(summary: dict, tensor: torch.Tensor) -> None:
    x = tensor.detach().double().numpy().ravel()
    assert list(tensor.shape) == summary["shape"]
    found = x[summary["flat_index"]]
    np.testing.assert_allclose(found, summary["flat_value"], atol=2e-5, rtol=2e-5)
    assert abs(x.sum() - summary["sum"]) <= 1e-6 * summary["abs_sum"]


@pytest.mark.parametrize("name", META["crop"])
def test_crop_by_areas_takes_the_windows_of_upstream(name):
    case, labels = META["crop"][name], MAPS[name]
    size = case["crop_size"]
    crop = T.RandomCrop_CategoryAreaConstraint(
        "absolute", (size, size), case["cat_max_ratio"], case["ignore"]
    )
    for run in case["runs"]:
        np.random.seed(run["seed"])
        found = T.AugInput(np.zeros((*labels.shape, 3), np.uint8), sem_seg=labels)
        window = crop(found)
        assert [window.y0, window.x0, window.h, window.w] == run["window"]
        assert found.sem_seg.shape == found.image.shape[:2] == tuple(run["window"][2:])


def test_without_an_ignored_label_all_pixels_count():
    labels = np.zeros((8, 8), np.uint8)
    labels[:, 4:] = 255
    crop = T.RandomCrop_CategoryAreaConstraint("absolute", (8, 8), 0.75)
    assert crop._is_mixed(labels)
    crop.ignored_category = 255
    assert not crop._is_mixed(labels)


class ToyBackbone(Backbone):
    """Means of 4x4 pixels."""

    size_divisibility = 8

    def __init__(self, square: int):
        super().__init__()
        self.square = square

    @property
    def padding_constraints(self):
        return {"square_size": self.square}

    def forward(self, x):
        return {"pooled": F.avg_pool2d(x, 4)}

    def output_shape(self):
        return {"pooled": ShapeSpec(channels=3, stride=4)}


class ToyHead(nn.Module):
    """The three colours as scores."""

    ignore_value = 255

    def forward(self, features, targets=None):
        scores = F.interpolate(features["pooled"], scale_factor=4, mode="bilinear")
        if not self.training:
            return scores, {}
        self.targets = targets
        return None, {"loss_sem_seg": F.cross_entropy(scores, targets, ignore_index=255)}


@pytest.mark.parametrize("name", ["square_0", "square_48"])
def test_segmentor_gives_the_losses_and_scores_of_upstream(name):
    case = META["meta_arch"][name]
    model = SemanticSegmentor(
        backbone=ToyBackbone(int(name.removeprefix("square_"))),
        sem_seg_head=ToyHead(),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )
    inputs = []
    sizes = zip(case["images"], case["image_sizes"], case["output_sizes"], strict=True)
    for i, size, (height, width) in sizes:
        labels = torch.from_numpy(label_map(i, *size, 3)).long()
        inputs.append(
            {"image": image(i, *size), "sem_seg": labels, "height": height, "width": width}
        )
    assert list(model.state_dict()) == case["state_dict"]
    assert_summary(case["padded_images"], model.preprocess_image(inputs).tensor)
    assert model(inputs)["loss_sem_seg"].item() == pytest.approx(
        case["loss"]["loss_sem_seg"], abs=1e-5
    )
    targets, expected = model.sem_seg_head.targets, case["padded_targets"]
    assert list(targets.shape) == expected["shape"] and targets.sum() == expected["sum"]
    for summary, output in zip(case["outputs"], model.eval()(inputs), strict=True):
        assert_summary(summary, output["sem_seg"])
    bare = [{"image": x["image"]} for x in inputs]
    shapes = [list(output["sem_seg"].shape[1:]) for output in model(bare)]
    assert shapes == case["image_sizes"]


def test_postprocess_cuts_the_padding_and_resizes():
    case = META["meta_arch"]["postprocess"]
    rng = np.random.RandomState(case["logits_seed"])
    logits = torch.from_numpy(rng.standard_normal(case["logits_shape"]).astype(np.float32))
    size = case["image_size"], case["height"], case["width"]
    assert_summary(case["output"], sem_seg_postprocess(logits, *size))


# Data


@pytest.fixture
def folders(tmp_path):
    """Images and label maps a_10, a_2 and b_10."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for k, name in enumerate(("b_10", "a_2", "a_10")):
        pixels = image(k, 12, 16).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / f"images/{name}.jpg")
        Image.fromarray(label_map(k, 12, 16, 5)).save(tmp_path / f"labels/{name}.png")
    return tmp_path


def names(entries: list[dict]) -> list[str]:
    return [entry["sem_seg_file_name"].split("/")[-1] for entry in entries]


def test_images_and_label_maps_are_paired_in_upstream_order(folders, caplog):
    found = load_sem_seg(str(folders / "labels"), str(folders / "images"))
    assert names(found) == ["a_10.png", "a_2.png", "b_10.png"]
    assert found[0].keys() == {"file_name", "sem_seg_file_name"}
    assert not caplog.records


def test_equal_counts_with_other_names_are_not_paired(folders, caplog):
    (folders / "labels/a_2.png").rename(folders / "labels/c.png")
    found = load_sem_seg(str(folders / "labels"), str(folders / "images"))
    assert names(found) == ["a_10.png", "b_10.png"]
    assert "3 images and" in caplog.text and "2 have no partner" in caplog.text


@pytest.mark.lite
def test_folders_without_pairs_are_refused(folders):
    labels, images = str(folders / "labels"), str(folders / "images")
    with pytest.raises(FileNotFoundError, match="DETECTRON2_DATASETS"):
        load_sem_seg(labels + "x", images)
    with pytest.raises(AssertionError, match="No annotations found"):
        load_sem_seg(labels, images, gt_ext="bmp")
    with pytest.raises(AssertionError, match="none of the 3 in .* the 0 images"):
        load_sem_seg(labels, images, image_ext="bmp")


@pytest.mark.parametrize("name", META["ade20k"]["names"])
def test_ade20k_is_registered(name):
    metadata = MetadataCatalog.get(name)
    assert metadata.stuff_classes == META["ade20k"]["stuff_classes"]
    assert (metadata.evaluator_type, metadata.ignore_label) == ("sem_seg", 255)


@pytest.mark.lite
def test_ade20k_is_read_below_the_root_of_the_moment(monkeypatch, tmp_path):
    root = tmp_path / "ADEChallengeData2016"
    for kind, end in (("images", "jpg"), ("annotations_detectron2", "png")):
        (root / kind / "validation").mkdir(parents=True)
        (root / kind / f"validation/x.{end}").touch()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    (entry,) = DatasetCatalog.get("ade20k_sem_seg_val")
    assert entry["sem_seg_file_name"] == str(root / "annotations_detectron2/validation/x.png")
    metadata = MetadataCatalog.get("ade20k_sem_seg_val").as_dict()
    assert metadata["image_root"] == str(root / "images/validation")


@pytest.mark.parametrize("is_train", [True, False])
def test_mapper_transforms_label_maps_like_images(folders, is_train):
    entry = load_sem_seg(str(folders / "labels"), str(folders / "images"))[0]
    mapper = DatasetMapper(
        is_train, augmentations=[T.HFlipTransform(16), T.Resize((24, 32))], image_format="RGB"
    )
    mapped = mapper(entry)
    assert sorted(mapped) == ["file_name", "height", "image", "sem_seg", "width"]
    assert mapped["image"].shape == (3, 24, 32)
    expected = label_map(2, 12, 16, 5)[:, ::-1].repeat(2, 0).repeat(2, 1)
    assert mapped["sem_seg"].dtype == torch.int64
    assert mapped["sem_seg"].tolist() == expected.tolist()
    assert "sem_seg_file_name" in entry  # the entry itself is left alone


@pytest.mark.lite
def test_label_maps_of_another_size_or_missing_are_named(folders):
    entry = load_sem_seg(str(folders / "labels"), str(folders / "images"))[0]
    mapper = DatasetMapper(True, augmentations=[], image_format="RGB")
    Image.fromarray(label_map(0, 16, 12, 5)).save(entry["sem_seg_file_name"])
    with pytest.raises(ValueError, match=r"a_10.png of image .*a_10.jpg.* \(12, 16\).*\(16, 12\)"):
        mapper(entry)
    (folders / "labels/a_10.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"label map .*a_10.png.* must exist"):
        mapper(entry)


# Metrics


@pytest.fixture
def register():
    """Register a data set of label maps; forgotten afterwards."""

    def add(label_files: dict, classes: int = 6) -> None:
        entries = [{"file_name": k, "sem_seg_file_name": v} for k, v in label_files.items()]
        DatasetCatalog.register("toy_sem_seg", lambda: entries)
        names = [f"c{i}" for i in range(classes)]
        MetadataCatalog.get("toy_sem_seg").set(stuff_classes=names, ignore_label=255)

    yield add
    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.remove("toy_sem_seg")


def evaluator(register, name: str, **options) -> tuple[SemSegEvaluator, list, list]:
    """The evaluator of a stored case, inputs and predicted classes."""
    files = {f"{i}.jpg": f"{name}_gt{i}" for i in range(3)}
    register(files, METRICS[name]["num_classes"])
    found = SemSegEvaluator(
        "toy_sem_seg",
        sem_seg_loading_fn=lambda file, dtype: METRIC_MAPS[file].astype(dtype),
        **options,
    )
    predicted = [torch.from_numpy(METRIC_MAPS[f"{name}_pred{i}"]).long() for i in range(3)]
    return found, [{"file_name": file} for file in files], predicted


@pytest.mark.parametrize("form", ["scores", "classes"])
@pytest.mark.parametrize("name", METRICS)
def test_metrics_equal_upstream(name, form, register, tmp_path):
    case = METRICS[name]
    measured, inputs, predicted = evaluator(register, name, output_dir=str(tmp_path))
    if form == "scores":
        predicted = [F.one_hot(x, case["num_classes"]).permute(2, 0, 1).float() for x in predicted]
    measured.reset()
    measured.process(inputs, [{"sem_seg": x} for x in predicted])
    confusion = case["detectron2_confusion_rows_predicted_columns_true"]
    assert measured._confusion.tolist() == confusion
    found = measured.evaluate()["sem_seg"]
    keys = [k for k in case["detectron2_keys_in_order"] if "Boundary" not in k and "min(" not in k]
    assert list(found) == keys
    for key, value in found.items():
        expected = case["detectron2"][key]
        assert value == pytest.approx(math.nan if expected is None else expected, nan_ok=True), key
    assert sorted(p.name for p in tmp_path.iterdir()) == case["detectron2_files"]


def test_no_true_pixel_at_all_is_nan_with_a_warning(register, caplog):
    register({"0.jpg": "0.png"})
    empty = SemSegEvaluator(
        "toy_sem_seg", sem_seg_loading_fn=lambda file, dtype: np.full((4, 4), 255, dtype)
    )
    empty.process([{"file_name": "0.jpg"}], [{"sem_seg": torch.zeros(4, 4).long()}])
    with caplog.at_level(logging.WARNING):
        found = empty.evaluate()["sem_seg"]
    assert math.isnan(found["mIoU"]) and math.isnan(found["pACC"])
    assert "all metrics are NaN" in caplog.text


@pytest.mark.lite
@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (np.zeros((4, 5)), torch.zeros(4, 4), r"0.jpg must have the size .*\(4, 5\), got \(4, 4\)"),
        (np.full((4, 4), 6), torch.zeros(4, 4), "0.png of image 0.jpg .*below 6, or 255 .*got 6"),
        (np.zeros((4, 4)), torch.full((4, 4), 6), "image 0.jpg must have classes below 6, got 6"),
    ],
)
def test_wrong_sizes_and_labels_name_the_image(truth, predicted, message, register):
    register({"0.jpg": "0.png"})
    measured = SemSegEvaluator(
        "toy_sem_seg", sem_seg_loading_fn=lambda file, dtype: truth.astype(dtype)
    )
    with pytest.raises(ValueError, match=message):
        measured.process([{"file_name": "0.jpg"}], [{"sem_seg": predicted.long()}])
    with pytest.raises(KeyError, match="1.jpg is not in the data set"):
        measured.process([{"file_name": "1.jpg"}], [{"sem_seg": predicted.long()}])
