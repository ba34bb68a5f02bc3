"""From a checkpoint and images to detections."""

import json
import sys
import types
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from toy_runs import load_script

import mimdet
from detectron2.config import instantiate
from mimdet.analysis.predict_files import PREDICTIONS, predict_files
from mimdet.analysis.predictor import Predictor
from mimdet.analysis.trained_model import trained_model
from mimdet.analysis.videos import annotate_video
from mimdet.checkpoint.card import card_of
from mimdet.checkpoint.file import read_checkpoint
from mimdet.config import load_config_text
from mimdet.modeling.postprocessing import image_masks


@pytest.fixture(scope="module")
def checkpoint(trained):
    return str(trained / "model_final.pth")


@pytest.fixture(scope="module")
def predictor(checkpoint):
    """Keeps detections of any score: after 40 iterations none is sure."""
    return mimdet.Predictor(checkpoint, score_threshold=0.0, device="cpu")


@pytest.fixture(scope="module")
def images(toy_root):
    return sorted(map(str, (toy_root / "val").glob("*.jpg")))


def test_the_checkpoint_tells_config_and_classes(predictor):
    assert predictor.class_names == ["disk", "box", "triangle", "star"]
    assert len(predictor.category_ids) == 4
    assert predictor.model.backbone.bottom_up.sample_ratio == 1.0


def test_detections_are_those_of_the_evaluation_bit_for_bit(predictor, checkpoint):
    card = card_of(read_checkpoint(checkpoint, "the test"), checkpoint)
    ratio = "model.backbone.bottom_up.sample_ratio=1.0"
    cfg = load_config_text(card.config, [ratio, f"train.init_checkpoint={checkpoint}"])
    model = trained_model(cfg).eval()
    count = 0
    for batch in instantiate(cfg.dataloader.test):
        with torch.no_grad():
            expected = model(batch)[0]["instances"]
        found = predictor(batch[0]["file_name"])
        assert np.array_equal(found.boxes, expected.pred_boxes.tensor.numpy())
        assert np.array_equal(found.scores, expected.scores.numpy())
        assert np.array_equal(found.classes, expected.pred_classes.numpy())
        assert np.array_equal(found.masks, image_masks(expected).numpy())
        count += len(found)
    assert count > 10


def test_paths_arrays_and_pil_images_are_one(predictor, images):
    with Image.open(images[0]) as opened:
        picture = opened.convert("RGB")
    results = [predictor(image) for image in (images[0], picture, np.asarray(picture))]
    for found in results[1:]:
        assert len(found) and np.array_equal(found.boxes, results[0].boxes)
    assert len(predictor(np.asarray(picture.convert("L")))) >= 0  # grey


@pytest.mark.parametrize(
    "array", [np.zeros((8, 8, 3)), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8, 3), np.uint8)]
)
def test_other_arrays_are_refused(predictor, array):
    with pytest.raises(ValueError, match="an image must be an array of"):
        predictor(array)


def test_results_are_given_in_the_forms_of_other_tools(predictor, images, monkeypatch):
    found = predictor(images[0])
    entries = found.to_coco("seven")
    assert len(entries) == len(found) == len(found.names)
    assert {entry["image_id"] for entry in entries} == {"seven"}
    ids = [predictor.category_ids[number] for number in found.classes]
    assert [entry["category_id"] for entry in entries] == ids
    stub = types.SimpleNamespace(Detections=lambda **fields: fields)
    monkeypatch.setitem(sys.modules, "supervision", stub)
    fields = found.to_supervision()
    assert fields["xyxy"].shape == (len(found), 4) and fields["mask"].dtype == bool
    assert list(fields["data"]["class_name"]) == found.names


def test_a_threshold_leaves_out_what_is_below(checkpoint, predictor, images):
    least = float(np.median(predictor(images[0]).scores))
    scores = Predictor(checkpoint, score_threshold=least, device="cpu")(images[0]).scores
    assert 0 < len(scores) < len(predictor(images[0])) and (scores >= least).all()


def test_below_ratio_1_detections_repeat(checkpoint, images):
    predictor = Predictor(checkpoint, score_threshold=0.0, device="cpu", sample_ratio=0.5)
    assert np.array_equal(predictor(images[0]).scores, predictor(images[0]).scores)
    with pytest.raises(ValueError, match="above 0 and at most 1, got 1.5"):
        Predictor(checkpoint, sample_ratio=1.5)


def test_a_device_that_is_none_is_refused(checkpoint):
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda, ..., got 'foo'"):
        Predictor(checkpoint, device="foo")


@pytest.mark.parametrize("words", [["--score", "2"], ["--score", "nan"], ["--batch", "0"]])
def test_numbers_out_of_range_are_refused(checkpoint, images, tmp_path, capsys, words):
    with pytest.raises(SystemExit) as ended:
        load_script("tools/predict.py").main([checkpoint, images[0], "--output", "x", *words])
    assert ended.value.code == 2
    assert f"{words[0]} must be" in capsys.readouterr().err


def test_a_file_that_tells_no_config_needs_one(tmp_path, checkpoint, predictor, images):
    content = read_checkpoint(checkpoint, "the test")
    torch.save({"model": content["model"]}, tmp_path / "bare.pth")
    bare = str(tmp_path / "bare.pth")
    with pytest.raises(ValueError, match="does not tell its config, and is a MIMDet .* --config-f"):
        Predictor(bare)
    config = tmp_path / "config.yaml"
    config.write_text(card_of(content, checkpoint).config)
    named = Predictor(bare, str(config), score_threshold=0.0, device="cpu")(images[0])
    assert np.array_equal(named.boxes, predictor(images[0]).boxes)


# --- Files ----------------------------------------------------------------------------------------


def test_a_tree_of_files_is_mirrored_and_damaged_ones_are_counted(predictor, images, tmp_path):
    source = tmp_path / "in"
    for name, image in zip(("a/1.jpg", "b c/ü.jpg"), images, strict=False):
        (source / name).parent.mkdir(parents=True)
        (source / name).write_bytes(Path(image).read_bytes())
    (source / "a/cut.jpg").write_bytes(Path(images[0]).read_bytes()[:500])
    written = predict_files(predictor, [str(source)], str(tmp_path / "out"), batch=2)
    assert (written.images, written.unreadable) == (2, [str(source / "a/cut.jpg")])
    pictures = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.jpg")}
    assert pictures == {"a/1.jpg", "b c/ü.jpg"}
    entries = json.loads((tmp_path / "out/predictions.json").read_text())
    assert len(entries) == written.objects > 0
    assert {entry["file_name"] for entry in entries} == {
        str(source / n) for n in ("a/1.jpg", "b c/ü.jpg")
    }
    assert {*entries[0]} == {
        *("image_id", "category_id", "bbox", "score", "segmentation", "category_name", "file_name")
    }


def test_a_pattern_is_a_source_and_nothing_is_an_error(predictor, toy_root, tmp_path):
    pattern = f"{toy_root}/val/*0.jpg"
    written = predict_files(predictor, [pattern], str(tmp_path), draw=False)
    assert written.images == 1 and not list(tmp_path.glob("*.jpg"))
    with pytest.raises(FileNotFoundError, match="and 'none/\\*.jpg' is none of them"):
        predict_files(predictor, ["none/*.jpg"], str(tmp_path))


def test_a_video_is_annotated_frame_by_frame(predictor, images, tmp_path):
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("h264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for image in images[:3]:
            pixels = np.asarray(Image.open(image).convert("RGB").resize((128, 96)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    written = predict_files(predictor, [str(tmp_path / "film.mp4")], str(tmp_path / "out"), batch=2)
    assert written.images == 3
    entries = json.loads((tmp_path / "out/predictions.json").read_text())
    assert {entry["frame"] for entry in entries} == {0, 1, 2}
    with av.open(str(tmp_path / "out/film.mp4")) as copy:
        assert sum(1 for _ in copy.decode(video=0)) == 3
    assert [p.name for p in (tmp_path / "out").glob("*.mp4")] == ["film.mp4"]


def test_a_copy_of_a_video_that_is_not_finished_leaves_nothing(tmp_path, monkeypatch):
    count = 100  # the encoder holds some dozens back before it begins the file
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("h264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        for _ in range(count):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    monkeypatch.setattr("mimdet.analysis.videos.draw_prediction", lambda frame, found: frame)
    idle = types.SimpleNamespace(predict=lambda pixels: [None] * len(pixels))
    folder = tmp_path / "out"
    folder.mkdir()
    frames = annotate_video(idle, str(tmp_path / "film.mp4"), folder / "film.mp4")
    for _ in range(count):
        next(frames)
    assert [path for path in folder.rglob("*film.mp4") if path.stat().st_size]
    with pytest.raises(KeyboardInterrupt):
        frames.throw(KeyboardInterrupt)
    assert list(folder.iterdir()) == []


def test_a_video_is_never_overwritten_by_its_copy(predictor, tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"the only one")
    with pytest.raises(ValueError, match="must not take the place of images, as .*film.mp4"):
        predict_files(predictor, [str(tmp_path / "film.mp4")], str(tmp_path))
    assert (tmp_path / "film.mp4").read_bytes() == b"the only one"


def test_the_command_tells_what_it_found(checkpoint, images, tmp_path, capsys):
    tool = load_script("tools/predict.py")
    tool.main([checkpoint, images[0], "--output", str(tmp_path), "--score", "0", "--device", "cpu"])
    assert " in 1 images: " in capsys.readouterr().out
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(SystemExit) as ended:
        tool.main([checkpoint, str(tmp_path / "text.jpg"), "--output", str(tmp_path / "out")])
    assert ended.value.code == 1
    assert "1 files could not be read, first" in capsys.readouterr().out


def test_the_command_computes_in_bfloat16_on_a_cpu_if_told_so(checkpoint, images, tmp_path):
    def best(*words):
        options = ("--output", str(tmp_path), "--score", "0", "--device", "cpu", "--no-pictures")
        load_script("tools/predict.py").main([checkpoint, images[0], *options, *words])
        return max(entry["score"] for entry in json.loads((tmp_path / PREDICTIONS).read_text()))

    full, half = best(), best("--half-precision")
    assert best("--full-precision") == full != half == pytest.approx(full, abs=0.03)
