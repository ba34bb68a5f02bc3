"""The script that writes pictures of detections."""

import json
from pathlib import Path

import pytest
from PIL import Image
from toy_runs import CONFIG, TINY, isolated, load_script


@pytest.fixture
def draw(toy_root, tmp_path):
    """Run the script -> the pictures, by path below the output folder."""

    def run(*options, overrides=()) -> dict[str, Path]:
        output = tmp_path / "pictures"
        argv = ["--config-file", CONFIG, "--output", str(output), *options]
        with isolated():
            main = load_script("tools/draw_predictions.py").main
            main([*argv, *TINY, f"toy.root={toy_root}", *overrides])
        return {str(path.relative_to(output)): path for path in output.rglob("*.*")}

    return run


@pytest.fixture
def weights(trained) -> str:
    return f"train.init_checkpoint={trained / 'model_final.pth'}"


def picture_of(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.copy()


def test_every_image_gets_a_picture(draw, weights, toy_root, capsys):
    pictures = draw(overrides=[weights])
    content = json.loads((toy_root / "annotations/instances_val.json").read_text())
    assert sorted(pictures) == [i["file_name"].replace("jpg", "png") for i in content["images"]]
    printed = capsys.readouterr().out.splitlines()
    assert any("model_final.pth are taken; it has no average" in line for line in printed)
    assert {str(path) for path in pictures.values()} <= set(printed)
    first = content["images"][0]
    width, height = picture_of(pictures["000000.png"]).size
    scale = height // first["height"]
    panel = (2 * first["width"] * scale + 8, first["height"] * scale)
    assert (width, height) == (panel[0], panel[1] + 3 * 13)  # a title above


def test_the_number_of_pictures_can_be_chosen(draw, weights):
    assert sorted(draw("--num-images", "2", overrides=[weights])) == ["000000.png", "000001.png"]


def test_pictures_keep_the_folders_of_images_and_are_not_written_over_them(
    draw, weights, toy_root, tmp_path, capsys
):
    content = json.loads((toy_root / "annotations/instances_val.json").read_text())
    content["images"], content["annotations"] = content["images"][:2], []  # nothing to find
    for image, name in zip(content["images"], ("cam0/frame.png", "cam1/frame.png"), strict=True):
        (tmp_path / name).parent.mkdir()
        picture_of(toy_root / "val" / image["file_name"]).save(tmp_path / name)
        image["file_name"] = name
    (tmp_path / "empty.json").write_text(json.dumps(content))
    data = dict(json_file=tmp_path / "empty.json", image_root=tmp_path, name="same_names")
    overrides = [f"dataloader.test.dataset.{key}={value}" for key, value in data.items()]
    assert sorted(draw(overrides=[weights, *overrides])) == ["cam0/frame.png", "cam1/frame.png"]
    with pytest.raises(SystemExit):
        draw("--output", str(tmp_path), overrides=[weights, *overrides])
    assert "must not take the place of images" in capsys.readouterr().err


def test_a_lower_threshold_shows_more(draw, weights):
    sides = []
    for threshold in ("0.0", "1.0"):
        options = ("--num-images", "1", "--score-threshold", threshold)
        picture = picture_of(draw(*options, overrides=[weights])["000000.png"])
        width, height = picture.size
        sides.append(picture.crop((width // 2 + 4, 0, width, height)).tobytes())
    assert sides[0] != sides[1]


def test_the_weights_must_be_given(draw, capsys, tmp_path):
    with pytest.raises(SystemExit) as caught:
        draw()
    assert caught.value.code == 2
    message = "the weights must be given: train.init_checkpoint=MODEL.pth"
    assert capsys.readouterr().err.splitlines()[-1].endswith(message)
    assert not (tmp_path / "pictures").exists()


def test_a_typo_is_refused(draw, weights, capsys, tmp_path):
    with pytest.raises(SystemExit) as caught:
        draw(overrides=[weights, "train.devise=cpu"])
    assert caught.value.code == 2
    assert "the nearest one is 'train.device'" in capsys.readouterr().err
    assert not (tmp_path / "pictures").exists()
