"""The toy dataset: what it promises to its readers."""

import dataclasses
import json
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_util
from shapely.geometry import Polygon, box
from shapely.ops import unary_union

from detectron2.data import MetadataCatalog
from detectron2.data.datasets import load_coco_json
from mimdet.data import toy
from mimdet.data.toy import CLASSES, IGNORED, ToyDataset, make_toy_dataset

SPEC = ToyDataset(num_train=50, num_val=12, seed=0)
TINY = ToyDataset(num_train=2, num_val=1)
SPLITS = ("train", "val")


def contents(root) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def read_annotations(root, split: str) -> dict:
    return json.loads((root / f"annotations/instances_{split}.json").read_text())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy") / "toy"
    assert make_toy_dataset(root, SPEC) is True
    return root


@pytest.fixture(scope="module")
def images(root) -> list[tuple[dict, list[dict]]]:
    """(image record, its annotations) of both splits."""
    found = []
    for split in SPLITS:
        content = read_annotations(root, split)
        for image in content["images"]:
            own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
            found.append((dict(image, path=root / split / image["file_name"]), own))
    return found


def outlines(annotation: dict) -> list[Polygon]:
    return [Polygon(np.reshape(ring, (-1, 2))) for ring in annotation["segmentation"]]


def test_same_spec_gives_the_same_bytes(root, tmp_path):
    make_toy_dataset(tmp_path / "again", SPEC)
    assert contents(tmp_path / "again") == contents(root)


def test_other_seed_gives_other_images_and_annotations(root, tmp_path):
    spec = ToyDataset(num_train=3, num_val=3, seed=1)
    make_toy_dataset(tmp_path / "other", spec)
    other, ours = contents(tmp_path / "other"), contents(root)
    assert all(other[name] != ours[name] for name in other)


def test_more_images_leave_the_first_ones_as_they_are(root, tmp_path):
    make_toy_dataset(tmp_path / "short", ToyDataset(num_train=3, num_val=2))
    for split, num_images in zip(SPLITS, (3, 2), strict=True):
        for name in (f"{split}/{k:06d}.jpg" for k in range(num_images)):
            assert (tmp_path / "short" / name).read_bytes() == (root / name).read_bytes()
        short, ours = read_annotations(tmp_path / "short", split), read_annotations(root, split)
        assert short["annotations"] == ours["annotations"][: len(short["annotations"])]


def test_splits_share_no_image(root):
    train, val = ({p.read_bytes() for p in (root / split).iterdir()} for split in SPLITS)
    assert len(train) == SPEC.num_train and len(val) == SPEC.num_val
    assert not train & val


def test_dataset_that_is_there_is_not_written_again(tmp_path):
    root = tmp_path / "toy"
    make_toy_dataset(root, TINY)
    image = root / "train/000000.jpg"
    image.write_bytes(b"changed")
    assert make_toy_dataset(str(root), TINY) is False
    assert image.read_bytes() == b"changed"


@pytest.mark.parametrize("spec", [ToyDataset(3, 1), ToyDataset(2, 2), ToyDataset(2, 1, seed=1)])
def test_other_toy_dataset_is_not_overwritten(spec, tmp_path):
    root = tmp_path / "toy"
    make_toy_dataset(root, TINY)
    before = contents(root)
    with pytest.raises(FileExistsError, match="is not the toy dataset .*choose another folder"):
        make_toy_dataset(root, spec)
    assert contents(root) == before


@pytest.mark.parametrize("make", ["folder", "file", "empty folder"])
def test_what_is_no_toy_dataset_is_not_overwritten(make, tmp_path):
    root = tmp_path / "mine"
    if make == "file":
        root.write_text("mine")
    else:
        root.mkdir()
    if make == "folder":
        (root / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="mine exists and is not the toy dataset"):
        make_toy_dataset(root, TINY)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("num_train, num_val", [(0, 1), (1, 0), (-1, 1)])
def test_split_without_images_is_refused(num_train, num_val, tmp_path):
    with pytest.raises(ValueError, match="at least one image per split, got ToyDataset"):
        make_toy_dataset(tmp_path / "toy", ToyDataset(num_train, num_val))
    assert not list(tmp_path.iterdir())


def test_an_early_toy_dataset_without_label_maps_is_not_taken_for_this_one(tmp_path):
    root = tmp_path / "toy"
    make_toy_dataset(root, TINY)
    (root / "toy.json").write_text(json.dumps(dataclasses.asdict(TINY)))
    with pytest.raises(FileExistsError, match="or one with other label maps; remove it"):
        make_toy_dataset(root, TINY)


def test_negative_seed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="seed of a toy dataset must be at least 0, .*seed=-1"):
        make_toy_dataset(tmp_path / "toy", ToyDataset(1, 1, seed=-1))
    assert not list(tmp_path.iterdir())


def test_crash_leaves_no_dataset_and_the_next_call_makes_a_whole_one(tmp_path, monkeypatch):
    calls, real = Counter(), toy._make_image

    def crash_at_the_second(rng, index):
        calls["images"] += 1
        if calls["images"] == 2:
            raise KeyboardInterrupt
        return real(rng, index)

    monkeypatch.setattr(toy, "_make_image", crash_at_the_second)
    root = tmp_path / "toy"
    with pytest.raises(KeyboardInterrupt):
        make_toy_dataset(root, TINY)
    assert not root.exists()
    assert make_toy_dataset(root, TINY) is True
    make_toy_dataset(tmp_path / "expected", TINY)
    assert contents(root) == contents(tmp_path / "expected")
    shutil.rmtree(tmp_path / "expected")
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]


@pytest.mark.parametrize("split", SPLITS)
def test_detectron2_reads_each_split(root, split):
    name = f"test_toy_{split}"
    try:
        dicts = load_coco_json(
            str(root / f"annotations/instances_{split}.json"), str(root / split), name
        )
        assert MetadataCatalog.get(name).thing_classes == list(CLASSES)
    finally:
        MetadataCatalog.remove(name)
    assert len(dicts) == getattr(SPEC, f"num_{split}")
    num_read = sum(len(d["annotations"]) for d in dicts)
    assert num_read == len(read_annotations(root, split)["annotations"])  # none was dropped
    for entry in dicts:
        with Image.open(entry["file_name"]) as image:
            assert image.size == (entry["width"], entry["height"])
            assert image.mode == "RGB"


@pytest.mark.parametrize("split", SPLITS)
def test_all_classes_occur_in_each_split(root, split):
    counts = Counter(a["category_id"] for a in read_annotations(root, split)["annotations"])
    assert set(counts) == {1, 2, 3, 4}


def test_some_images_hold_no_object_and_others_several(images):
    counts = Counter(len(own) for _, own in images)
    assert counts[0] == 2  # every 25th of the 50 training images
    assert max(counts) >= 4


def test_polygons_are_valid_and_inside_their_image(images):
    for image, own in images:
        frame = box(0, 0, image["width"], image["height"])
        for annotation in own:
            if not annotation["iscrowd"]:
                for outline in outlines(annotation):
                    assert outline.is_valid and frame.covers(outline), (image, annotation)


def test_box_and_area_are_those_of_the_polygons(images):
    for _, own in images:
        for annotation in own:
            if annotation["iscrowd"]:
                continue
            parts = outlines(annotation)
            x0, y0, x1, y1 = unary_union(parts).bounds
            assert annotation["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=0.011)
            total = sum(p.area for p in parts)
            # corners are rounded to 0.01 pixels; a covered hole is not in the area
            rounding = 0.01 * sum(p.length for p in parts)
            assert 0 < annotation["area"] <= total + rounding


def test_pasted_polygons_have_the_area_of_the_annotation(images):
    for image, own in images:
        for annotation in own:
            if annotation["iscrowd"]:
                continue
            size = (image["height"], image["width"])
            rle = mask_util.merge(mask_util.frPyObjects(annotation["segmentation"], *size))
            drawn = mask_util.decode(rle)
            assert drawn.shape == size
            parts = outlines(annotation)
            # a boundary pixel may count or not
            assert abs(drawn.sum() - sum(p.area for p in parts)) <= sum(p.length for p in parts)


def test_visible_parts_overlap_only_where_one_lies_in_a_hole_of_another(images):
    num_pairs = 0
    for image, own in images:
        objects = [outlines(a) for a in own if not a["iscrowd"]]
        for k, below in enumerate(objects):
            for above in (part for later in objects[k + 1 :] for part in later):
                for part in below:
                    num_pairs += 1
                    rounding = 0.02 * (part.length + above.length)
                    overlap = part.intersection(above).area
                    in_a_hole = above.area - overlap <= rounding
                    assert overlap <= rounding or in_a_hole, image["path"]
    assert num_pairs > 100


def test_no_object_is_a_speck_and_sizes_differ(images):
    areas = [a["area"] for _, own in images for a in own if not a["iscrowd"]]
    assert min(areas) > 20
    assert np.quantile(areas, 0.9) > 4 * np.quantile(areas, 0.1)


def test_crowd_decodes_to_its_box_and_area(images):
    crowds = [(image, a) for image, own in images for a in own if a["iscrowd"]]
    assert len(crowds) == 7  # every eighth of 50 and of 12
    for image, annotation in crowds:
        size = [image["height"], image["width"]]
        assert annotation["segmentation"]["size"] == size
        drawn = mask_util.decode(mask_util.frPyObjects(annotation["segmentation"], *size))
        rows, columns = np.nonzero(drawn)
        x0, y0 = columns.min(), rows.min()
        assert annotation["bbox"] == [x0, y0, columns.max() + 1 - x0, rows.max() + 1 - y0]
        assert annotation["area"] == drawn.sum() > 0


def test_label_maps_tell_disks_from_other_shapes_and_crowds_are_ignored(root, images):
    num_ignored = 0
    for image, own in images:
        path = image["path"]
        with Image.open(root / "sem_seg" / path.parent.name / f"{path.stem}.png") as file:
            assert file.mode == "L" and file.size == (image["width"], image["height"])
            labels = np.asarray(file)
        expected, border = np.zeros_like(labels), np.zeros(labels.shape, dtype=bool)
        for annotation in sorted(own, key=lambda a: a["iscrowd"], reverse=True):
            masks = mask_util.decode(
                mask_util.frPyObjects(annotation["segmentation"], *labels.shape)
            )
            drawn = masks.reshape(*labels.shape, -1).any(axis=2)
            # holes are not annotated, and a pixel at the outline may count or not
            near = {
                axis: drawn != np.roll(drawn, step, axis) for axis in (0, 1) for step in (-1, 1)
            }
            border |= np.logical_or.reduce(list(near.values()))
            of_shape = 1 if annotation["category_id"] == 1 else 2  # 1 is that of disks
            expected[drawn] = IGNORED if annotation["iscrowd"] else of_shape
        num_ignored += (labels == IGNORED).sum()
        assert (labels == expected)[~border].mean() > 0.97, path
    assert num_ignored > 0


@pytest.mark.parametrize(
    "region, counts",
    [
        ([[0, 1], [0, 1]], [2, 2]),
        ([[1, 0], [1, 1]], [0, 2, 1, 1]),  # starts with no zeros
        ([[0, 0], [0, 0]], [4]),
        ([[1, 1], [1, 1]], [0, 4]),
    ],
)
def test_run_lengths_go_down_the_columns_and_start_with_zeros(region, counts):
    assert toy._uncompressed_counts(np.array(region, dtype=np.uint8)) == counts


def test_objects_stand_out_from_the_background(images):
    contrasts = []
    for image, own in images:
        with Image.open(image["path"]) as file:
            pixels = np.asarray(file).astype(float)
        covered = np.zeros(pixels.shape[:2], dtype=bool)
        for annotation in own:
            rles = mask_util.frPyObjects(annotation["segmentation"], *covered.shape)
            covered |= mask_util.decode(rles).reshape(*covered.shape, -1).any(axis=2)
        if own:
            contrasts.append(pixels[covered].mean() - pixels[~covered].mean())
    assert np.mean(contrasts) > 40  # brightness; shapes are mostly lighter
