"""Pictures of class maps with a legend, and predictions of a segmentor."""

import json

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageColor
from sem_seg_runs import save_checkpoint, tiny_config
from torch import nn
from toy_runs import isolated, load_script

from detectron2.config import instantiate
from mimdet.analysis import class_maps
from mimdet.analysis.class_maps import draw_class_map, draw_class_map_comparison
from mimdet.analysis.pictures import GAP, class_color
from mimdet.analysis.predict_files import predict_files
from mimdet.analysis.predictor import ClassMap, Predictor
from mimdet.analysis.trained_model import trained_model
from mimdet.data.toy import SEM_SEG_CLASSES

GREY, HEIGHT, WIDTH = 90, 40, 60
SCALE, TITLE = 8, 3 * 13  # enlarged to 320 pixels; two lines of 13 pixels
NAMES = ["sky", "sea, ocean", "sand"]
IMAGE = np.full((HEIGHT, WIDTH, 3), GREY, dtype=np.uint8)


def mixed(number: int, ground: int = GREY) -> list[int]:
    """The colour of a class over grey."""
    return [
        round(0.5 * ground + 0.5 * channel) for channel in ImageColor.getrgb(class_color(number))
    ]


def map_of(*shares: tuple[int, int]) -> np.ndarray:
    """Class and number of columns, from the left."""
    columns = np.concatenate([np.full(count, number) for number, count in shares])
    return np.tile(columns.astype(np.uint8), (HEIGHT, 1))


@pytest.fixture
def said(monkeypatch):
    """What legends say: (number, word) in their order."""
    shown = []
    draw = class_maps._legend

    def record(entries, *others):
        shown.extend(entries)
        return draw(entries, *others)

    monkeypatch.setattr(class_maps, "_legend", record)
    return shown


def test_pixels_have_the_colours_of_their_classes_and_those_of_none_are_dark():
    picture = np.asarray(draw_class_map(IMAGE, map_of((0, 30), (2, 20), (255, 10)), NAMES))
    assert picture.shape[0] == HEIGHT * SCALE and picture.shape[1] > WIDTH * SCALE
    y = HEIGHT * SCALE // 2
    assert picture[y, 10 * SCALE].tolist() == mixed(0)
    assert picture[y, 40 * SCALE].tolist() == mixed(2)
    assert picture[y, 55 * SCALE].tolist() == [round(0.3 * GREY)] * 3


def test_the_colours_of_the_image_do_not_mix_with_those_of_classes():
    red = np.zeros_like(IMAGE) + np.array([255, 0, 0], dtype=np.uint8)
    picture = np.asarray(draw_class_map(red, map_of((2, 60)), NAMES))
    assert picture[0, 0].tolist() == mixed(2, ground=76)  # the luma of red


def test_the_legend_has_the_classes_that_are_there_the_largest_first(said):
    picture = np.asarray(draw_class_map(IMAGE, map_of((0, 15), (2, 45)), NAMES))
    assert said == [(2, "75%"), (0, "25%")]
    swatches = picture[:, WIDTH * SCALE + 13].astype(int)  # a column through them
    for number in range(3):
        difference = np.abs(swatches - mixed(number, ground=255)).max(axis=1)
        assert (difference.min() <= 1) == (number in (0, 2))


def test_pictures_of_one_size_stay_so_whatever_is_there():
    sizes = {
        draw_class_map(IMAGE, class_map, NAMES).size
        for class_map in (map_of((0, 60)), map_of((1, 30), (2, 30)), map_of((255, 60)))
    }
    assert len(sizes) == 1


def test_classes_that_find_no_room_in_the_legend_are_counted():
    names = [f"class number {k}" for k in range(60)]
    one, many = (
        np.asarray(draw_class_map(IMAGE, class_map, names))[:, WIDTH * SCALE :]
        for class_map in (map_of((0, 60)), map_of(*((k, 1) for k in range(60))))
    )
    row = 20
    last = (HEIGHT * SCALE // row - 1) * row
    assert one[last:].min() == 255 and many[last : last + row].min() < 255
    assert (many[last : last + row, :26] == 255).all()  # words alone, without a colour


class Segmentor(nn.Module):
    """Finds the same class map in every image."""

    def __init__(self, class_map: np.ndarray):
        super().__init__()
        self.class_map = torch.from_numpy(class_map.astype(np.int32))

    def forward(self, batched_inputs):
        assert not self.training and len(batched_inputs) == 1
        return [{"sem_seg": self.class_map}]


def compare(tmp_path, truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    Image.fromarray(IMAGE).save(tmp_path / "image.png")
    Image.fromarray(truth).save(tmp_path / "labels.png")
    entry = dict(
        file_name=str(tmp_path / "image.png"), sem_seg_file_name=str(tmp_path / "labels.png")
    )
    return np.asarray(draw_class_map_comparison(Segmentor(found), entry, {}, NAMES))


def test_truth_is_left_predictions_right_and_the_legend_tells_the_iou_of_pixels_that_count(
    tmp_path, said
):
    truth = map_of((0, 30), (1, 20), (255, 10))
    picture = compare(tmp_path, truth, map_of((0, 40), (2, 20)))
    # Of class 0, 30 columns are found and 10 too many, of class 1 none; 10 columns do not count.
    assert said == [(0, "IoU 75%"), (1, "IoU 0%"), (2, "IoU 0%")]
    side = WIDTH * SCALE
    assert picture.shape[0] == TITLE + HEIGHT * SCALE and picture.shape[1] > 2 * side + GAP
    y = TITLE + 4
    assert picture[y, 45 * SCALE].tolist() == mixed(1)
    assert picture[y, side + GAP + 45 * SCALE].tolist() == mixed(2)


def test_titles_tell_the_share_that_is_right(tmp_path, monkeypatch):
    told = []
    join = class_maps.side_by_side
    monkeypatch.setattr(
        class_maps, "side_by_side", lambda panels: told.append(panels) or join(panels)
    )
    compare(tmp_path, map_of((0, 30), (1, 20), (255, 10)), map_of((0, 40), (2, 20)))
    compare(tmp_path, map_of((255, 60)), map_of((0, 60)))
    details = [[panel.detail for panel in panels] for panels in told]
    assert details == [
        ["2 classes, 17% of the pixels do not count", "60.0% of the pixels right"],
        ["no classes, 100% of the pixels do not count", "no pixel counts"],
    ]


# --- The predictor --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cfg(toy_root):
    return tiny_config(toy_root)


@pytest.fixture(scope="module")
def checkpoint(cfg, tmp_path_factory):
    return save_checkpoint(cfg, tmp_path_factory.mktemp("segmentor") / "model.pth")


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return Predictor(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def images(toy_root):
    return sorted(map(str, (toy_root / "val").glob("*.jpg")))[:2]


def test_class_maps_are_those_of_the_evaluation(predictor, cfg, checkpoint):
    cfg = cfg.copy()
    cfg.train.init_checkpoint = str(checkpoint)
    model = trained_model(cfg).eval()
    (given,) = next(iter(instantiate(cfg.dataloader.test)))
    with torch.no_grad():
        expected = model([given])[0]["sem_seg"].numpy()
    found = predictor(given["file_name"])
    assert isinstance(found, ClassMap) and np.array_equal(found.classes, expected)
    assert found.class_names == list(SEM_SEG_CLASSES)
    assert len(np.unique(found.classes)) > 1  # or the comparison would say little


def test_shares_and_label_maps_follow_from_the_classes():
    found = ClassMap(np.array([[2, 2, 0], [2, 2, 2]], dtype=np.int32), NAMES)
    assert found.shares == pytest.approx({2: 5 / 6, 0: 1 / 6}) and list(found.shares) == [2, 0]
    label_map = found.to_label_map()
    assert label_map.mode == "L" and np.asarray(label_map).tolist() == [[2, 2, 0], [2, 2, 2]]
    with pytest.raises(ValueError, match="numbers of classes up to 255, got 300"):
        ClassMap(np.array([[300]]), NAMES).to_label_map()


def test_classes_that_the_checkpoint_does_not_name_are_called_by_their_numbers(predictor):
    scores = torch.zeros(2, 4, 4)
    scores[1] = 1.0  # class 1 everywhere
    found = predictor._prediction({"sem_seg": scores})
    assert found.classes.tolist() == [[1] * 4] * 4
    more = predictor._prediction({"sem_seg": torch.full((2, 2), 6)})
    assert more.class_names[2:] == ["polygon", *(f"class {k}" for k in range(3, 7))]


def test_files_get_pictures_label_maps_and_shares(predictor, images, tmp_path):
    written = predict_files(predictor, images, str(tmp_path))
    assert (written.images, written.label_maps) == (2, 2)
    entries = json.loads((tmp_path / "predictions.json").read_text())
    for image, entry in zip(images, entries, strict=True):
        assert entry["file_name"] == image
        saved = np.asarray(Image.open(tmp_path / entry["label_map"]))
        assert np.array_equal(saved, predictor(image).classes)
        assert sum(c["share"] for c in entry["classes"]) == pytest.approx(1)
        for told in entry["classes"]:
            assert told["category_name"] == SEM_SEG_CLASSES[told["category_id"]]
    pictures = {path.name for path in tmp_path.glob("*.jpg")}
    assert pictures == {"000000.jpg", "000001.jpg"}


def test_a_video_gets_class_maps_frame_by_frame(predictor, images, tmp_path):
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("h264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for image in images:
            pixels = np.asarray(Image.open(image).convert("RGB").resize((128, 96)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    written = predict_files(predictor, [str(tmp_path / "film.mp4")], str(tmp_path / "out"))
    assert (written.images, written.label_maps) == (2, 0)
    entries = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [entry["frame"] for entry in entries] == [0, 1]
    with av.open(str(tmp_path / "out/film.mp4")) as copy:
        assert sum(1 for _ in copy.decode(video=0)) == 2


def test_the_commands_predict_and_draw(checkpoint, cfg, images, tmp_path, capsys):
    found = tmp_path / "found"
    load_script("tools/predict.py").main([str(checkpoint), images[0], "--output", str(found)])
    assert f"1 label maps: {found}/label_maps; classes in 1 images" in capsys.readouterr().out
    config = checkpoint.with_suffix(".yaml")
    words = ["--config-file", str(config), "--output", str(tmp_path / "drawn"), "--num-images", "1"]
    with isolated():
        draw = load_script("tools/draw_predictions.py").main
        draw([*words, f"train.init_checkpoint={checkpoint}"])
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["000000.png"]
