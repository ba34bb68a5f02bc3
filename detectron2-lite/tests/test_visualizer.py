"""Pictures of boxes, masks and labels."""

from types import SimpleNamespace

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from PIL import Image

from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks, ROIMasks
from detectron2.utils.visualizer import ColorMode, VisImage, Visualizer

HEIGHT, WIDTH = 80, 120
GREY = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
BOX = [40.0, 20.0, 100.0, 70.0]  # large enough that its label is inside
META = SimpleNamespace(thing_classes=["cat", "dog"], thing_colors=[(255, 0, 0), (0, 0, 255)])
META.get = lambda key, default=None: getattr(META, key, default)


def bitmap(x0=40, y0=20, x1=100, y1=70) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def detections(**fields) -> Instances:
    return Instances((HEIGHT, WIDTH), **fields)


def changed(picture: VisImage) -> np.ndarray:
    """Where something was drawn on the grey image."""
    return (picture.get_image() != 90).any(axis=2)


def overlay(**given) -> np.ndarray:
    return Visualizer(GREY).overlay_instances(**given).get_image()


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.2, 2, 3.0])
def test_picture_has_the_size_of_the_image_times_the_scale(scale):
    picture = Visualizer(GREY, scale=scale).get_output().get_image()
    assert picture.shape == (round(HEIGHT * scale), round(WIDTH * scale), 3)
    assert picture.dtype == np.uint8


def test_picture_is_the_image_until_something_is_drawn():
    assert (Visualizer(GREY.astype(np.float32)).get_output().get_image() == GREY).all()
    assert not changed(Visualizer(GREY).draw_instance_predictions(detections())).any()
    assert not changed(Visualizer(GREY).draw_dataset_dict({"annotations": []})).any()
    assert not changed(Visualizer(GREY).overlay_instances(boxes=Boxes([]), labels=[])).any()


def test_a_picture_can_be_saved(tmp_path):
    picture = Visualizer(GREY, scale=2).draw_box(BOX)
    picture.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        assert saved.size == (2 * WIDTH, 2 * HEIGHT)


def test_a_box_is_an_outline():
    drawn = changed(Visualizer(GREY).draw_box(BOX, edge_color="r"))
    assert drawn[21:69, 40:42].any(axis=1).all() and drawn[20:22, 41:99].any(axis=0).all()
    assert not drawn[30:60, 50:90].any() and not drawn[:15].any()


def test_a_mask_is_filled_and_the_rest_left_alone():
    picture = Visualizer(GREY).draw_binary_mask(bitmap(), color="r", alpha=0.5).get_image()
    inside = picture[45, 70].astype(int)
    assert abs(inside[0] - 172) <= 2 and abs(inside[1] - 45) <= 2  # half of it red
    assert (picture[:15] == 90).all() and (picture[:, :35] == 90).all()


def test_a_polygon_is_filled():
    corners = np.array([[40, 20], [100, 20], [100, 70], [40, 70]])
    drawn = changed(Visualizer(GREY).draw_polygon(corners, color=(0.0, 1.0, 0.0)))
    assert drawn[22:68, 42:98].all() and not drawn[:18].any()


def test_a_mask_below_the_threshold_of_area_is_not_drawn():
    small = bitmap(40, 20, 42, 22)
    assert not changed(Visualizer(GREY).draw_binary_mask(small, color="r")).any()
    assert changed(Visualizer(GREY).draw_binary_mask(small, "r", area_threshold=1)).any()


def test_all_kinds_of_masks_are_accepted():
    polygon = np.array([40.0, 20, 100, 20, 100, 70, 40, 70])
    rle = mask_util.encode(np.asfortranarray(bitmap().astype(np.uint8)))
    counts = [y for x in range(60) for y in (50, 30)][:-1]
    uncompressed = {"size": [HEIGHT, WIDTH], "counts": [40 * HEIGHT + 20, *counts]}
    uncompressed["counts"].append(HEIGHT * WIDTH - sum(uncompressed["counts"]))
    kinds = [
        bitmap()[None],
        torch.from_numpy(bitmap())[None],
        BitMasks(bitmap()[None]),
        PolygonMasks([[polygon]]),
        [[polygon.tolist()]],
        [rle],
        [uncompressed],
    ]
    for masks in kinds:
        picture = overlay(masks=masks, assigned_colors=["r"])
        assert (picture[22:68, 42:98] != 90).any(axis=2).all()
        assert (picture[:18] == 90).all() and (picture[:, 103:] == 90).all()


def test_small_instances_lie_above_large_ones():
    masks = [bitmap(60, 40, 70, 50), bitmap()]
    boxes = [[60, 40, 70, 50], BOX]
    for given in (dict(masks=masks), dict(masks=masks, boxes=boxes)):
        picture = overlay(**given, assigned_colors=["#ff0000", "#0000ff"], alpha=1.0)
        assert picture[45, 65, 0] > 200 and picture[45, 65, 2] < 50
        assert picture[60, 90, 2] > 200


def test_instances_have_different_colors_by_default():
    masks = [bitmap(20 * i, 10, 20 * i + 18, 60) for i in range(5)]
    picture = overlay(masks=masks, alpha=0.9)
    assert len({tuple(picture[30, 20 * i + 9]) for i in range(5)}) == 5


def prediction(**fields) -> Instances:
    return detections(
        pred_boxes=Boxes([BOX]),
        pred_classes=torch.tensor([1]),
        scores=torch.tensor([0.884]),
        pred_masks=torch.from_numpy(bitmap())[None],
        **fields,
    )


def test_a_prediction_is_drawn_with_box_mask_and_label():
    drawn = changed(Visualizer(GREY, META).draw_instance_predictions(prediction()))
    assert drawn[25:65, 45:95].all()
    assert not drawn[:, :30].any()


@pytest.mark.lite
def test_masks_of_regions_are_drawn_as_those_of_the_image():
    given, regions, pictures = prediction(), ROIMasks(torch.ones(1, 7, 7)), []
    for masks in (regions, regions.to_bitmasks(given.pred_boxes, HEIGHT, WIDTH).tensor):
        given.pred_masks = masks
        pictures.append(Visualizer(GREY, META).draw_instance_predictions(given).get_image())
    np.testing.assert_array_equal(*pictures)


@pytest.mark.parametrize(
    "change",
    [dict(scores=torch.tensor([0.31])), dict(pred_classes=torch.tensor([0]))],
    ids=["score", "class"],
)
def test_label_tells_class_and_score(change):
    pictures = []
    for fields in ({}, change):
        given = detections(pred_boxes=Boxes([BOX]), pred_classes=torch.tensor([1]))
        given.scores = torch.tensor([0.88])
        for name, value in fields.items():
            given.set(name, value)
        # the colours of the box are the same only where they are given
        mode = ColorMode.SEGMENTATION
        meta = SimpleNamespace(**{**vars(META), "thing_colors": [(0, 255, 0)] * 2})
        visualizer = Visualizer(GREY, meta, instance_mode=mode)
        picture = visualizer.draw_instance_predictions(given, jittering=False)
        pictures.append(picture.get_image())
    assert (pictures[0] != pictures[1]).any()


def test_label_of_a_small_object_does_not_cover_it():
    small = Visualizer(GREY).overlay_instances(boxes=[[40, 20, 60, 40]], labels=["cat"])
    bare = Visualizer(GREY).overlay_instances(boxes=[[40, 20, 60, 40]], assigned_colors=["r"])
    assert not changed(small)[24:36, 44:56].any()
    assert changed(small)[42:].any() and not changed(bare)[43:].any()


@pytest.mark.lite
@pytest.mark.parametrize("x, y", [(110, 30), (119, 79), (-20, -20)])
def test_text_at_the_border_stays_inside_the_picture(x, y):
    drawn = [
        changed(Visualizer(GREY).draw_text("cat", place, horizontal_alignment="left")).sum()
        for place in ((50, 30), (x, y))
    ]
    assert drawn[0] == drawn[1]


def test_text_is_aligned():
    edges = [
        changed(Visualizer(GREY).draw_text("cat", (60, 30), horizontal_alignment=alignment))
        .any(axis=0)
        .nonzero()[0]
        for alignment in ("right", "center", "left")
    ]
    assert edges[0].max() <= 62 and edges[2].min() >= 57
    assert edges[0].min() < edges[1].min() < edges[2].min()


def test_text_can_be_turned_and_sized():
    def extent(**style) -> tuple[int, int]:
        rows, columns = np.nonzero(changed(Visualizer(GREY).draw_text("cat", (60, 20), **style)))
        return np.ptp(columns), np.ptp(rows)

    width, height = extent()
    assert width > height
    turned = extent(rotation=90)
    assert turned[0] < turned[1]
    assert extent(font_size=20)[0] > 1.5 * width


def test_annotations_are_drawn():
    box = dict(bbox=[40, 20, 60, 50], bbox_mode=BoxMode.XYWH_ABS, category_id=0)
    polygon = [[40, 20, 100, 20, 100, 70, 40, 70]]
    without = Visualizer(GREY, META).draw_dataset_dict({"annotations": [box]})
    assert changed(without)[20:70, 40:100].any() and not changed(without)[45:65, 50:90].any()
    entry = {"annotations": [{**box, "segmentation": polygon, "iscrowd": 0}]}
    assert changed(Visualizer(GREY, META).draw_dataset_dict(entry))[25:65, 45:95].all()


def test_label_of_a_crowd_says_so():
    box = dict(bbox=[40, 20, 60, 50], bbox_mode=BoxMode.XYWH_ABS, category_id=0)
    widths = []
    for crowd in (0, 1):
        picture = Visualizer(GREY, META).draw_dataset_dict(
            {"annotations": [{**box, "iscrowd": crowd}]}
        )
        widths.append(changed(picture)[24:30, 43:98].any(axis=0).sum())
    assert widths[1] > widths[0] + 10


def test_classes_have_the_colors_of_the_dataset_in_segmentation_mode():
    visualizer = Visualizer(GREY, META, instance_mode=ColorMode.SEGMENTATION)
    picture = visualizer.draw_instance_predictions(prediction(), jittering=False).get_image()
    red, green, blue = picture[60, 90].astype(int)
    assert blue > 200 and red < 40 and green < 40  # class 1 with opacity 0.8


def test_the_image_is_grey_outside_of_masks_in_bw_mode():
    image = GREY.copy()
    image[..., 0] = 200
    visualizer = Visualizer(image, META, instance_mode=ColorMode.IMAGE_BW)
    picture = visualizer.draw_instance_predictions(prediction()).get_image()
    assert (np.ptp(picture[:15], axis=2) <= 1).all()
    assert (np.ptp(picture[60, 60:90], axis=1) > 20).all()


def test_the_whole_image_is_grey_in_bw_mode_without_masks():
    image = GREY.copy()
    image[..., 0] = 200
    boxes = Instances(image.shape[:2])
    boxes.pred_boxes = Boxes([[40.0, 20, 100, 70]])
    visualizer = Visualizer(image, META, instance_mode=ColorMode.IMAGE_BW)
    picture = visualizer.draw_instance_predictions(boxes).get_image()
    assert (np.ptp(picture[:15], axis=2) <= 1).all()
    assert (np.ptp(picture[40:60, 50:90], axis=2) <= 1).all()


def test_a_soft_mask_is_as_opaque_as_its_pixels_are_probable():
    mask = np.zeros(GREY.shape[:2])
    mask[20:70, 40:70], mask[20:70, 70:100] = 0.4, 1.0
    picture = Visualizer(GREY).draw_soft_mask(mask, "r", alpha=0.5).get_image().astype(int)
    change = np.abs(picture - GREY).sum(axis=2)
    assert not change[:15].any()
    assert 0 < change[45, 55] < change[45, 85]
    assert change[45, 55] == pytest.approx(0.4 * change[45, 85], abs=4)


@pytest.mark.lite
def test_the_text_of_a_soft_mask_is_where_it_is_probable():
    mask = np.zeros(GREY.shape[:2])
    mask[20:70, 40:100] = 0.8
    plain = Visualizer(GREY).draw_soft_mask(mask, "r").get_image()
    named = Visualizer(GREY).draw_soft_mask(mask, "r", text="cat").get_image()
    rows, columns, _ = np.nonzero(plain != named)
    assert rows.min() >= 20 and rows.max() < 70 and columns.min() >= 40 and columns.max() < 100
    with pytest.raises(ValueError, match="a mask must have the size of the image"):
        Visualizer(GREY).draw_soft_mask(mask[1:])


@pytest.mark.lite
def test_drawing_leaves_the_random_numbers_of_a_training_alone():
    before = np.random.get_state()[1].copy()
    Visualizer(GREY, META).draw_instance_predictions(prediction())
    assert (np.random.get_state()[1] == before).all()


# ----------------------------------------------------------------------------- errors


@pytest.mark.lite
@pytest.mark.parametrize(
    "given, message",
    [
        (dict(boxes=[BOX], labels=["a", "b"]), "as many, got .'boxes': 1, 'labels': 2"),
        (dict(boxes=[[1, 2, 3, 4, 5]]), r"boxes must be \(N, 4\), got \(1, 5\)"),
        (dict(masks=np.ones((1, 5, 5))), r"the size of the image, \(80, 120\), got \(5, 5\)"),
        (dict(boxes=[BOX], assigned_colors=[(255, 0, 0)]), r"in \[0, 1\], got \(255, 0, 0\)"),
        (dict(boxes=[BOX], assigned_colors=["pinkish"]), "pinkish"),
    ],
    ids=["lengths", "boxes", "masks", "range", "color"],
)
def test_wrong_instances_are_refused(given, message):
    with pytest.raises((ValueError, AssertionError), match=message):
        overlay(**given)


@pytest.mark.lite
def test_keypoints_are_refused():
    with pytest.raises(NotImplementedError, match="not part of detectron2-lite"):
        overlay(keypoints=np.zeros((1, 17, 3)))


@pytest.mark.lite
def test_an_image_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"img_rgb must be \(H, W, 3\) in RGB, got shape \(3, 4\)"):
        Visualizer(np.zeros((3, 4)))
