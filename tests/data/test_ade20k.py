"""ADE20K's label maps, shifted to what models and evaluators take."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_runs import load_script

from mimdet.data import ade20k
from mimdet.data.ade20k import find_label_maps

GOLDEN = Path(__file__).parents[1] / "golden/segmentation/pipeline.json"


def save_labels(path: Path, labels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(labels, dtype=np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    """The unpacked folder with two images to train on and one to evaluate on."""
    for split, names in (("training", "ab"), ("validation", "c")):
        for name in names:
            save_labels(tmp_path / f"annotations/{split}/{name}.png", [[0, 1, 2], [75, 149, 150]])
            image = tmp_path / f"images/{split}/{name}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (3, 2)).save(image)
    return tmp_path


def prepare(*words) -> int:
    """Run the tool -> its exit code."""
    try:
        load_script("tools/prepare_ade20k.py").main([str(word) for word in words])
    except SystemExit as ended:
        return ended.code
    return 0


def converted(root) -> dict[str, list]:
    folder = root / "annotations_detectron2"
    return {
        str(path.relative_to(folder)): np.asarray(Image.open(path)).tolist()
        for path in folder.rglob("*.*")
    }


def test_classes_count_from_0_and_what_is_none_becomes_255(root, capsys):
    assert prepare(root) == 0
    expected = [[255, 0, 1], [74, 148, 149]]
    names = ("training/a.png", "training/b.png", "validation/c.png")
    assert converted(root) == dict.fromkeys(names, expected)
    folder = root / "annotations_detectron2"
    assert capsys.readouterr().out == f"{folder}: 3 label maps written, 0 were there\n"


def test_labels_of_the_data_set_are_shifted_as_by_upstream(root):
    golden = json.loads(GOLDEN.read_text())["label_shift"]
    before, after = (np.array(golden[key]) for key in ("before", "after"))
    is_label = (before <= 150) | (before == 255)  # upstream shifts what is none as well
    save_labels(root / "annotations/training/a.png", before[is_label][None])
    prepare(root)
    assert converted(root)["training/a.png"] == [after[is_label].tolist()]


def test_what_is_there_stays_and_the_rest_is_made(root, capsys):
    kept = root / "annotations_detectron2/training/a.png"
    save_labels(kept, [[7]])
    assert prepare(root) == 0
    assert "2 label maps written, 1 were there" in capsys.readouterr().out
    assert converted(root)["training/a.png"] == [[7]]


def test_a_conversion_that_is_stopped_leaves_no_half_of_a_file(root, monkeypatch):
    def stop(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("mimdet.whole_files.os.fsync", stop)
    assert prepare(root) == 2
    assert converted(root) == {}
    monkeypatch.undo()
    assert prepare(root) == 0 and len(converted(root)) == 3


def test_one_split_alone_is_enough(root):
    for part in ("images", "annotations"):
        (root / part / "training").rename(root / f"{part}_elsewhere")
    assert [source.name for source, _ in find_label_maps(root)] == ["c.png"]


def test_what_cannot_be_converted_is_told_by_kind_and_the_rest_is_made(root, capsys):
    save_labels(root / "annotations/training/a.png", [[150, 151, 200]])
    Image.new("P", (3, 2)).save(root / "annotations/training/b.png")
    assert prepare(root) == 1
    summary, values, mode = capsys.readouterr().out.splitlines()
    assert "1 label maps written, 0 were there" in summary
    assert "have labels above 150 (1: " in values and "a.png: 151, 200" in values
    assert "no images of one channel of 8 bits (1: " in mode and "b.png: mode P" in mode
    assert list(converted(root)) == ["validation/c.png"]


def test_a_file_that_is_no_image_is_told(root, capsys):
    (root / "annotations/validation/c.png").write_bytes(b"nothing")
    assert prepare(root) == 1
    assert "label maps cannot be read (1: " in capsys.readouterr().out


def test_images_and_label_maps_must_have_the_same_names(root, capsys):
    (root / "annotations/training/a.png").rename(root / "annotations/training/z.png")
    assert prepare(root) == 2
    error = capsys.readouterr().err
    assert "images have no label map of their name (1: " in error
    assert "label maps have no image of their name (1: " in error
    assert not (root / "annotations_detectron2").exists()


def test_the_folder_is_found_where_the_data_sets_lie(root, monkeypatch, tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    (data / "ADEChallengeData2016").symlink_to(root)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(data))
    assert prepare() == 0 and len(converted(root)) == 3


def test_the_class_count_is_that_of_detectron2s_names():
    from detectron2.data import MetadataCatalog

    assert ade20k.NUM_CLASSES == len(MetadataCatalog.get("ade20k_sem_seg_val").stuff_classes)
