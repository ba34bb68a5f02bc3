"""Bit masks, polygons, masks of regions, and pasting."""

import copy
import math

import golden_data as golden
import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch

from detectron2.layers import paste_masks_in_image
from detectron2.structures import BitMasks, Boxes, PolygonMasks, ROIMasks, polygons_to_bitmask
from detectron2.structures.masks import polygon_area, rasterize_polygons_within_box

# pycocotools 2.0.11 converts its decoded masks by an interface that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ARRAYS, META = golden.load("masks")
IMAGE_SIZE = tuple(META["paste"]["image_shape"])


def polygons() -> list[list[np.ndarray]]:
    return [[np.array(p) for p in instance] for instance in META["polygons"]]


def rectangle(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([x0, y0, x1, y0, x1, y1, x0, y1])


def pasted(threshold: float) -> torch.Tensor:
    masks, boxes = (torch.from_numpy(ARRAYS[f"paste.{name}"]) for name in ("masks", "boxes"))
    return paste_masks_in_image(masks, Boxes(boxes), IMAGE_SIZE, threshold)


def unpacked(name: str) -> torch.Tensor:
    """A stored bool array."""
    shape = ARRAYS[f"{name}#shape"]
    bits = np.unpackbits(ARRAYS[f"{name}#bits"], count=int(np.prod(shape)))
    return torch.from_numpy(bits.reshape(shape).astype(bool))


# --------------------------------------------------------------------------------------- pasting


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_pasted_masks_are_those_of_upstream(threshold):
    masks = pasted(threshold)
    name = f"paste.thr{threshold}"
    assert masks.dtype == torch.bool
    # The values lie off the threshold by 1/4096 only: two pixels per mask may fall differently.
    difference = (masks ^ unpacked(name)).sum(dim=(1, 2))
    assert difference.max() <= 2
    areas = masks.sum(dim=(1, 2)) - torch.from_numpy(ARRAYS[f"{name}.areas"])
    assert areas.abs().max() <= 2


def test_pasted_probabilities_are_those_of_upstream():
    masks = pasted(-1)
    assert masks.dtype == torch.uint8
    golden.assert_array(ARRAYS, "paste.soft", masks.float(), atol=1.0, rtol=0)
    sums = masks.sum(dim=(1, 2), dtype=torch.int64)
    # Rounding down moves each of the pixels of a mask by at most 1.
    slack = masks.ne(0).sum(dim=(1, 2))
    assert ((sums - torch.from_numpy(ARRAYS["paste.soft.sums"])).abs() <= slack).all()


def test_paste_of_nothing_is_empty():
    out = paste_masks_in_image(torch.zeros(0, 28, 28), Boxes(torch.zeros(0, 4)), IMAGE_SIZE)
    assert list(out.shape) == META["paste.empty"]["shape"]


@pytest.mark.lite
def test_paste_of_nothing_has_the_dtype_of_something():
    args = torch.zeros(0, 28, 28), torch.zeros(0, 4), IMAGE_SIZE
    assert paste_masks_in_image(*args, threshold=0.5).dtype == torch.bool
    assert paste_masks_in_image(*args, threshold=-1).dtype == torch.uint8


def test_paste_counts_the_pixels_of_two_boxes():
    boxes = torch.tensor([[5, 5, 20, 20], [-5, 3, 10.5, 12.2]])
    out = paste_masks_in_image(torch.full((2, 28, 28), 0.7), boxes, (30, 40))
    assert out.sum(dim=(1, 2)).tolist() == [225, 90]


def test_paste_of_a_mask_on_a_box_of_its_size_is_the_mask():
    mask = torch.rand(1, 6, 6)
    out = paste_masks_in_image(mask, torch.tensor([[2.0, 1, 8, 7]]), (9, 10), threshold=-1)
    assert torch.equal(out[0, 1:7, 2:8], (mask[0] * 255).to(torch.uint8))


def test_paste_is_inverse_of_crop_for_boxes_on_the_border():
    image_masks = torch.zeros(2, 20, 30, dtype=torch.bool)
    image_masks[0, 3:12, :7] = True
    image_masks[1, 10:, 22:] = True
    boxes = torch.tensor([[0.0, 0, 14, 14], [16, 6, 30, 20]])
    crops = BitMasks(image_masks).crop_and_resize(boxes, 14)
    assert torch.equal(paste_masks_in_image(crops.float(), boxes, (20, 30)), image_masks)


def test_paste_outside_the_image_leaves_it_empty():
    boxes = torch.tensor([[-20.0, 0, -5, 10], [0, 40, 10, 60], [50, 0, 60, 10]])
    assert not paste_masks_in_image(torch.ones(3, 28, 28), boxes, (30, 40)).any()


@pytest.mark.lite
def test_a_box_without_area_pastes_nothing():
    boxes = torch.tensor([[5.0, 5, 5, 10], [5, 5, 10, 5], [10, 10, 5, 5], [float("nan")] * 4])
    assert not paste_masks_in_image(torch.ones(4, 28, 28), boxes, (30, 40)).any()


def test_paste_of_half_precision_masks_works():
    out = paste_masks_in_image(torch.ones(1, 4, 4).half(), torch.tensor([[1.0, 1, 3, 3]]), (4, 4))
    assert out.sum() == 4


def test_paste_needs_square_masks_and_a_box_for_each():
    with pytest.raises(AssertionError):
        paste_masks_in_image(torch.zeros(1, 4, 5), torch.zeros(1, 4), (4, 4))
    with pytest.raises(AssertionError):
        paste_masks_in_image(torch.zeros(2, 4, 4), torch.zeros(1, 4), (4, 4))


@pytest.mark.lite
def test_paste_errors_say_what_was_received():
    with pytest.raises(AssertionError, match=r"square, \(B, M, M\), got \(1, 4, 5\)"):
        paste_masks_in_image(torch.zeros(1, 4, 5), torch.zeros(1, 4), (4, 4))
    with pytest.raises(AssertionError, match="got 2 masks and 1 boxes"):
        paste_masks_in_image(torch.zeros(2, 4, 4), torch.zeros(1, 4), (4, 4))


# ---------------------------------------------------------------------------------- rasterising


def test_rasterised_polygons_are_those_of_upstream():
    masks = np.stack([polygons_to_bitmask(p, *IMAGE_SIZE) for p in polygons()])
    assert masks.dtype == bool
    golden.assert_array(ARRAYS, "poly.bitmask", masks)
    golden.assert_array(ARRAYS, "poly.bitmask.areas", masks.sum(axis=(1, 2)))


def test_bit_masks_from_polygons_are_the_rasterised_polygons():
    for source in (polygons(), PolygonMasks(polygons())):
        masks = BitMasks.from_polygon_masks(source, *IMAGE_SIZE)
        golden.assert_array(ARRAYS, "poly.bitmask", masks.tensor)
    assert BitMasks.from_polygon_masks([], 4, 5).tensor.shape == (0, 4, 5)


def test_no_polygons_rasterise_to_an_empty_mask():
    mask = polygons_to_bitmask([], 3, 4)
    assert mask.shape == (3, 4) and mask.dtype == bool and not mask.any()


def test_overlapping_polygons_rasterise_to_their_union():
    mask = polygons_to_bitmask([rectangle(0, 0, 4, 4), rectangle(2, 2, 6, 6)], 8, 8)
    assert mask.sum() == 16 + 16 - 4


# -------------------------------------------------------------------------------- PolygonMasks


def test_polygon_areas_and_boxes_are_those_of_upstream():
    masks = PolygonMasks(polygons())
    area = masks.area()
    assert area.dtype == torch.float64
    golden.assert_array(ARRAYS, "poly.area", area)
    golden.assert_array(ARRAYS, "poly.bbox", masks.get_bounding_boxes().tensor)


@pytest.mark.parametrize("size", [14, 28])
def test_cropped_polygons_are_those_of_upstream(size):
    crops = PolygonMasks(polygons()).crop_and_resize(torch.from_numpy(ARRAYS["crop.boxes"]), size)
    assert crops.dtype == torch.bool
    golden.assert_array(ARRAYS, f"crop.poly_{size}", crops)


def test_cropping_a_rectangle_counts_120_pixels_in_both_representations():
    polygon_masks = PolygonMasks([[rectangle(10, 10, 50, 40)]])
    bit_masks = BitMasks.from_polygon_masks(polygon_masks, 60, 60)
    box = torch.tensor([[5.0, 5, 55, 45]])
    assert bit_masks.tensor.sum() == 1200
    assert polygon_masks.crop_and_resize(box, 14).sum() == 120
    assert bit_masks.crop_and_resize(box, 14).sum() == 120


def test_cropping_leaves_the_polygons_as_they_were():
    masks = PolygonMasks([[rectangle(1, 1, 3, 3)]])
    masks.crop_and_resize(torch.tensor([[1.0, 1, 3, 3]]), 14)
    assert masks.polygons[0][0].tolist() == rectangle(1, 1, 3, 3).tolist()


def test_cropping_no_instances_and_instances_without_polygons_is_empty():
    assert PolygonMasks([]).crop_and_resize(torch.zeros(0, 4), 14).shape == (0, 14, 14)
    crops = PolygonMasks([[], [rectangle(0, 0, 2, 2)]]).crop_and_resize(
        torch.tensor([[0.0, 0, 2, 2]] * 2), 14
    )
    assert crops.sum(dim=(1, 2)).tolist() == [0, 196]


def test_a_degenerate_box_crops_as_one_tenth_of_a_pixel():
    # The rectangle covers [5, 5.05]: half of the 0.1 pixel that the empty box counts as.
    crop = PolygonMasks([[rectangle(5, 5, 5.05, 5.1)]]).crop_and_resize(
        torch.tensor([[5.0, 5, 5, 5]]), 14
    )
    assert crop[0].any(dim=0).tolist() == [True] * 7 + [False] * 7


def test_polygon_boxes_start_at_zero_and_infinity():
    masks = PolygonMasks([[], [rectangle(-5, -4, -2, -1)]])
    inf = float("inf")
    assert masks.get_bounding_boxes().tensor.tolist() == [[inf, inf, 0, 0], [-5, -4, 0, 0]]


def test_polygon_area_adds_all_polygons():
    masks = PolygonMasks([[rectangle(0, 0, 2, 3), rectangle(0, 0, 1, 1)], []])
    assert masks.area().tolist() == [7.0, 0.0]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (1, [1]),
        (-1, [2]),
        (slice(1, None), [1, 2]),
        ([2, 0], [2, 0]),
        (torch.tensor([True, False, True]), [0, 2]),
        (torch.tensor([2, 2, 1]), [2, 2, 1]),
        (torch.zeros(3, dtype=torch.bool), []),
        (torch.zeros(0, dtype=torch.int64), []),
    ],
)
def test_polygon_masks_are_indexed_like_tensors(item, expected):
    masks = PolygonMasks([[rectangle(i, i, i + 1, i + 1)] for i in range(3)])
    assert [int(p[0][0]) for p in masks[item]] == expected


@pytest.mark.lite
def test_polygon_masks_accept_numpy_indices():
    masks = PolygonMasks([[rectangle(i, i, i + 1, i + 1)] for i in range(3)])
    assert len(masks[np.int64(2)]) == 1
    assert [int(p[0][0]) for p in masks[np.array([False, True, True])]] == [1, 2]


def test_polygon_masks_refuse_indices_of_another_kind():
    with pytest.raises(ValueError):
        PolygonMasks([[rectangle(0, 0, 1, 1)]])[torch.tensor([0.0])]


@pytest.mark.lite
def test_the_error_for_a_bool_index_of_wrong_length_names_the_right_one():
    with pytest.raises(ValueError, match="1 polygon masks cannot be indexed by array.*boolean"):
        PolygonMasks([[rectangle(0, 0, 1, 1)]])[torch.tensor([True, False])]


def test_polygon_masks_stay_on_the_cpu_and_know_which_are_empty():
    masks = PolygonMasks([[rectangle(0, 0, 1, 1)], []])
    assert masks.to("meta").device == torch.device("cpu")
    assert masks.nonempty().tolist() == [True, False]
    assert repr(masks) == "PolygonMasks(num_instances=2)"


def test_polygons_may_be_tensors_and_become_float64_arrays():
    polygon = PolygonMasks([[torch.tensor([0, 0, 1, 0, 1, 1])]]).polygons[0][0]
    assert isinstance(polygon, np.ndarray) and polygon.dtype == np.float64


@pytest.mark.parametrize("outer", [np.zeros((1, 6)), "polygons"])
def test_polygon_masks_must_be_a_list(outer):
    with pytest.raises(ValueError):
        PolygonMasks(outer)


def test_polygons_of_an_instance_must_be_a_list():
    with pytest.raises(ValueError):
        PolygonMasks([np.zeros(6)])


@pytest.mark.parametrize("count", [4, 7])
def test_polygons_need_three_points(count):
    with pytest.raises(ValueError, match=f"Cannot create a polygon from {count} coordinates"):
        PolygonMasks([[np.zeros(count)]])


@pytest.mark.lite
def test_polygon_errors_name_the_instance():
    with pytest.raises(ValueError, match="one list of polygons per instance, got ndarray"):
        PolygonMasks(np.zeros((1, 6)))
    with pytest.raises(ValueError, match=r"got ndarray \(instance 1\)"):
        PolygonMasks([[], np.zeros(6)])
    with pytest.raises(ValueError, match=r"instance 1.*at least 3 points"):
        PolygonMasks([[], [np.zeros(4)]])


def test_joining_polygon_masks_keeps_their_order():
    a, b = (PolygonMasks([[rectangle(i, 0, 9, 9)]]) for i in (3, 4))
    assert [p[0][0] for p in PolygonMasks.cat([a, b])] == [3, 4]
    with pytest.raises(AssertionError):
        PolygonMasks.cat([])


def test_polygon_masks_can_be_copied():
    masks = PolygonMasks(polygons())
    assert torch.equal(copy.deepcopy(masks).area(), masks.area())


# ------------------------------------------------------------------------------------ BitMasks


def test_bit_mask_boxes_are_those_of_upstream():
    boxes = BitMasks.from_polygon_masks(polygons(), *IMAGE_SIZE).get_bounding_boxes()
    assert boxes.tensor.dtype == torch.float32
    golden.assert_array(ARRAYS, "bit.bbox", boxes.tensor)


def test_boxes_of_empty_masks_are_zeros():
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[1, 2, 3] = True
    boxes = BitMasks(masks).get_bounding_boxes()
    assert boxes.tensor.tolist() == [[0, 0, 0, 0], [3, 2, 4, 3]]
    assert BitMasks(masks).nonempty().tolist() == [False, True]


@pytest.mark.parametrize("size", [14, 28])
def test_cropped_bit_masks_are_those_of_upstream(size):
    masks = BitMasks.from_polygon_masks(polygons(), *IMAGE_SIZE)
    crops = masks.crop_and_resize(torch.from_numpy(ARRAYS["crop.boxes"]), size)
    assert crops.dtype == torch.bool
    golden.assert_array(ARRAYS, f"crop.bit_{size}", crops)


def test_cropping_many_masks_is_cropping_each():
    generator = torch.Generator().manual_seed(0)
    masks = BitMasks(torch.rand(70, 12, 16, generator=generator) > 0.5)
    corners = torch.rand(70, 2, generator=generator) * 8
    boxes = torch.cat([corners, corners + 1 + torch.rand(70, 2, generator=generator) * 7], dim=1)
    single = [masks[i].crop_and_resize(boxes[i : i + 1], 7) for i in range(70)]
    assert torch.equal(masks.crop_and_resize(boxes, 7), torch.cat(single))


def test_cropping_no_bit_masks_gives_none():
    assert BitMasks(torch.zeros(0, 5, 6)).crop_and_resize(torch.zeros(0, 4), 14).shape == (
        0,
        14,
        14,
    )


@pytest.mark.parametrize(
    "masks", [BitMasks(torch.zeros(2, 4, 4)), PolygonMasks([[], []])], ids=["bit", "polygon"]
)
def test_cropping_needs_one_box_per_mask(masks):
    with pytest.raises(AssertionError):
        masks.crop_and_resize(torch.zeros(1, 4), 7)


@pytest.mark.lite
def test_the_error_for_missing_boxes_counts_both():
    with pytest.raises(AssertionError, match="got 1 boxes and 2 masks"):
        BitMasks(torch.zeros(2, 4, 4)).crop_and_resize(torch.zeros(1, 4), 7)


def test_bit_masks_are_bool_whatever_they_are_made_from():
    masks = BitMasks(np.array([[[0, 2]], [[1, 0]]], dtype=np.uint8))
    assert masks.tensor.tolist() == [[[False, True]], [[True, False]]]
    assert masks.image_size == (1, 2)
    assert masks.to("meta").device.type == "meta"
    assert len(masks[1]) == 1 and len(masks[torch.tensor([True, True])]) == 2
    assert [m.shape for m in masks] == [(1, 2)] * 2
    assert "num_instances=2" in repr(masks)
    assert len(BitMasks.cat([masks, masks])) == 4


def test_bit_masks_must_have_three_dimensions():
    with pytest.raises(AssertionError):
        BitMasks(torch.zeros(4, 4))
    with pytest.raises(AssertionError):
        BitMasks(torch.zeros(2, 4, 4))[torch.zeros(2, 4, 4, dtype=torch.bool)]


@pytest.mark.lite
def test_bit_mask_errors_give_the_shape():
    with pytest.raises(AssertionError, match=r"\(N, H, W\), got \(4, 4\)"):
        BitMasks(torch.zeros(4, 4))
    with pytest.raises(AssertionError, match="BitMasks.cat needs a list of BitMasks"):
        BitMasks.cat([torch.zeros(1, 4, 4)])


# ------------------------------------------------------------------------------------ ROIMasks


def test_roi_masks_paste_into_bit_masks():
    masks = ROIMasks(torch.full((2, 28, 28), 0.7))
    boxes = Boxes([[5, 5, 20, 20], [-5, 3, 10.5, 12.2]])
    bit_masks = masks.to_bitmasks(boxes, 30, 40, threshold=0.5)
    assert isinstance(bit_masks, BitMasks)
    assert bit_masks.tensor.sum(dim=(1, 2)).tolist() == [225, 90]
    assert not masks.to_bitmasks(boxes, 30, 40, threshold=0.8).tensor.any()


def test_roi_masks_index_move_and_count():
    masks = ROIMasks(torch.zeros(3, 4, 4))
    assert len(masks) == 3 and len(masks[torch.tensor([2, 0])]) == 2 and len(masks[1:]) == 2
    assert masks.to(torch.device("meta")).device.type == "meta"
    assert "3" in repr(masks)


def test_roi_masks_must_have_three_dimensions():
    with pytest.raises(ValueError):
        ROIMasks(torch.zeros(3, 1, 4, 4))


@pytest.mark.lite
def test_the_error_for_roi_masks_gives_the_shape():
    with pytest.raises(ValueError, match=r"\(N, M, M\), got \(3, 1, 4, 4\)"):
        ROIMasks(torch.zeros(3, 1, 4, 4))


# -------------------------------------------------------------------------------- RLE of regions

# Inside, over each border, the whole image, all of the height, beyond the image, and no area.
REGION_BOXES = [
    [5, 5, 20.5, 20],
    [-5, 3, 10.5, 12.2],
    [30, 20, 60, 70],
    [0, 0, 40, 30],
    [-9, -9, 60, 60],
    [10, -4, 14, 40],
    [50, 0, 60, 10],
    [7, 7, 7, 12],
]


@pytest.mark.lite
@pytest.mark.parametrize("threshold", [0.5, 0.2, 0.0])
@pytest.mark.parametrize("full", [False, True], ids=["noise", "full"])
def test_rle_of_regions_is_that_of_their_bitmaps(full, threshold):
    boxes = Boxes(REGION_BOXES)
    masks = torch.ones(8, 28, 28) if full else torch.rand(8, 28, 28)
    bitmaps = ROIMasks(masks).to_bitmasks(boxes, 30, 40, threshold).tensor
    expected = mask_util.encode(np.asfortranarray(bitmaps.permute(1, 2, 0).numpy(), dtype=np.uint8))
    assert ROIMasks(masks).to_rle(boxes, 30, 40, threshold) == expected


@pytest.mark.lite
def test_rle_of_a_region_of_many_pixels_is_that_of_its_bitmap():
    boxes = Boxes([[0, 0, 500, 400], [3.3, 100.7, 490, 350]])
    masks = ROIMasks(torch.rand(2, 28, 28))
    bitmaps = masks.to_bitmasks(boxes, 400, 500).tensor
    expected = mask_util.encode(np.asfortranarray(bitmaps.permute(1, 2, 0).numpy(), dtype=np.uint8))
    assert masks.to_rle(boxes, 400, 500) == expected


@pytest.mark.lite
def test_rle_of_no_regions_is_an_empty_list():
    assert ROIMasks(torch.zeros(0, 28, 28)).to_rle(Boxes(torch.zeros(0, 4)), 30, 40) == []


@pytest.mark.lite
def test_rle_of_bitmaps_is_that_of_pycocotools():
    masks = torch.zeros(9, 30, 40, dtype=torch.bool)  # the first stays empty
    masks[1] = True
    masks[2] = torch.rand(30, 40) < 0.5
    masks[3, 10:20, 5:35] = torch.rand(10, 30) < 0.9
    masks[4, ::2] = True  # every column starts inside and ends outside
    masks[5, 12:, 7:9] = True  # down to the lower border, then a gap
    masks[6, :, 38:] = True  # one run over two columns to the last pixel
    masks[7, 0, 0] = masks[7, 29, 39] = True  # opposite corners
    masks[8, 29, 20] = masks[8, 0, 21] = True  # one run over a border
    expected = mask_util.encode(np.asfortranarray(masks.permute(1, 2, 0).numpy(), dtype=np.uint8))
    assert BitMasks(masks).to_rle() == expected
    assert BitMasks(masks[:0]).to_rle() == []


@pytest.mark.lite
def test_run_lengths_by_hand():
    from detectron2.layers.mask_ops import paste_masks_as_runs

    boxes = torch.tensor([[1.0, 1, 3, 4], [0, 0, 3, 5], [2, 0, 2, 5]])
    runs = paste_masks_as_runs(torch.ones(3, 2, 2), boxes, (5, 3))
    assert [lengths.tolist() for lengths in runs] == [[6, 3, 2, 3, 1], [0, 15], [15]]


@pytest.mark.lite
def test_run_lengths_need_square_masks_and_a_box_for_each():
    from detectron2.layers.mask_ops import paste_masks_as_runs

    with pytest.raises(AssertionError, match="square"):
        paste_masks_as_runs(torch.zeros(1, 4, 5), torch.zeros(1, 4), (4, 4))
    with pytest.raises(AssertionError, match="2 masks and 1 boxes"):
        paste_masks_as_runs(torch.zeros(2, 4, 4), torch.zeros(1, 4), (4, 4))


def test_polygons_of_one_instance_are_rasterised_within_a_box():
    polygon = np.array([10.0, 10, 50, 10, 50, 40, 10, 40])
    box = np.array([5.0, 5, 55, 45])
    mask = rasterize_polygons_within_box([polygon], box, 14)
    boxes = torch.tensor(box[None], dtype=torch.float32)
    assert torch.equal(mask, PolygonMasks([[polygon]]).crop_and_resize(boxes, 14)[0])
    assert mask.sum() == 120
    assert polygon_area(polygon[0::2], polygon[1::2]) == 1200


@pytest.mark.lite
@pytest.mark.parametrize("far", [1e8, -1e8, 1e9, 1e30, math.inf, math.nan])
def test_far_coordinates_are_refused_before_they_end_the_process(far):
    near, away = np.array([0.0, 0, 9, 0, 9, 9]), np.array([0.0, 0, far, 0, far, far])
    masks = PolygonMasks([[near], [near, away]])
    boxes = torch.tensor([[0.0, 0, 40, 40]] * 2)
    with pytest.raises(ValueError, match="polygon of instance 1 reaches from .* 28 x 28 .*too far"):
        masks.crop_and_resize(boxes, 28)
    with pytest.raises(ValueError, match="polygon of instance 0 reaches from .* 50 x 60 .*too far"):
        polygons_to_bitmask([away], 50, 60)


@pytest.mark.lite
def test_a_polygon_with_many_long_edges_is_refused():
    zigzag = np.tile([0.0, 0.0, 1e6, 0.0], 50)
    with pytest.raises(ValueError, match="reaches from 0 to 1e.06 .*too far"):
        polygons_to_bitmask([zigzag], 50, 60)


def test_a_polygon_that_reaches_out_of_the_image_is_cut_off():
    bitmap = polygons_to_bitmask([np.array([-1e5, -1e5, 1e5, -1e5, 1e5, 1e5, -1e5, 1e5])], 5, 6)
    assert bitmap.all()
