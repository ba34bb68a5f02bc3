"""Images for pretraining and classification: every source, bad files, repeatable batches."""

import itertools
import logging
import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from detectron2.utils import comm
from mimdet.data.imagenet import (
    ImageMapper,
    ImageTrainLoader,
    load_images,
    load_labelled_images,
    read_image,
    seeded,
)
from mimdet.data.toy import CLASSES


def write_image(path, value: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), (value, 0, 0)).save(path)
    return str(path)


def names(records) -> list[str]:
    return [record["file_name"] for record in records]


# --- Sources --------------------------------------------------------------------------------------


def test_a_folder_is_searched_at_any_depth_in_the_order_of_names(tmp_path):
    expected = [
        write_image(tmp_path / "a.JPEG"),
        write_image(tmp_path / "b/c/d.png"),
        write_image(tmp_path / "b/e.jpg"),
    ]
    (tmp_path / "notes.txt").write_text("no image")
    assert names(load_images(tmp_path)) == expected


def test_of_the_root_of_imagenet_only_train_is_taken(tmp_path):
    expected = [write_image(tmp_path / "train" / n / "1.JPEG") for n in ("n01", "n02")]
    write_image(tmp_path / "val/n01/2.JPEG")
    assert names(load_images(tmp_path)) == expected


def test_a_coco_folder_is_a_folder(toy_root):
    assert len(load_images(toy_root / "val")) == 6


def test_a_list_names_images_relative_to_itself(tmp_path):
    first, second = write_image(tmp_path / "x/1.png"), write_image(tmp_path / "2.png")
    (tmp_path / "list.txt").write_text(f"x/1.png\n\n  {second}  \n")
    assert names(load_images(tmp_path / "list.txt")) == [first, second]


def test_generated_images_need_no_file_and_are_the_same_again():
    records = load_images("synthetic:6")
    assert names(records) == [f"synthetic:train:{k}" for k in range(6)]
    pictures = [np.asarray(read_image(name)) for name in names(records)]
    assert pictures[0].shape == (128, 128, 3)
    assert np.array_equal(pictures[5], np.asarray(read_image("synthetic:train:5")))
    assert not np.array_equal(pictures[0], pictures[4])
    assert not np.array_equal(pictures[0], np.asarray(read_image("synthetic:val:0")))


def test_what_was_found_is_logged(tmp_path, caplog):
    first = write_image(tmp_path / "a.png")
    with caplog.at_level(logging.INFO):
        load_images(tmp_path)
    assert f"1 images in {tmp_path}: {first}" in caplog.text


def test_a_source_that_does_not_exist_is_refused():
    with pytest.raises(FileNotFoundError, match="and 'no/such' is none of them .*dataset.source"):
        load_images("no/such")


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match="must hold images .* at any depth, and there is none"):
        load_images(tmp_path)


def test_a_list_with_missing_files_is_refused_with_their_names(tmp_path):
    write_image(tmp_path / "1.png")
    (tmp_path / "list.txt").write_text("1.png\n2.png\n3.png\n")
    with pytest.raises(
        FileNotFoundError, match=r"2 of the 3 images .* do not exist: .*2.png, .*3.png;"
    ):
        load_images(tmp_path / "list.txt")


def test_an_empty_list_is_refused(tmp_path):
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(ValueError, match="must name one image per line, and it names none"):
        load_images(tmp_path / "list.txt")


@pytest.mark.parametrize("source", ["synthetic:", "synthetic:0", "synthetic:many", "synthetic:-3"])
def test_generated_images_without_a_number_are_refused(source):
    with pytest.raises(ValueError, match="must be synthetic:N with N at least 1"):
        load_images(source)


# --- Labels ---------------------------------------------------------------------------------------


def test_labels_are_the_places_of_the_sorted_class_folders(tmp_path):
    for name in ("dog", "cat", "emu"):
        write_image(tmp_path / "train" / name / "1.png")
    write_image(tmp_path / "val/dog/deep/9.png")
    train = load_labelled_images(tmp_path, "train")
    assert [(r["file_name"].split("/")[-2], r["label"]) for r in train] == [
        ("cat", 0),
        ("dog", 1),
        ("emu", 2),
    ]
    (val,) = load_labelled_images(tmp_path, "val")  # a split need not have every class
    assert val["label"] == 1


def test_generated_images_have_the_classes_of_the_shapes():
    labels = [r["label"] for r in load_labelled_images("synthetic:8", "val")]
    assert labels == [0, 1, 2, 3, 0, 1, 2, 3] and len(CLASSES) == 4


def test_a_split_without_a_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no {tmp_path}/val"):
        load_labelled_images(tmp_path, "val")


def test_a_split_without_classes_is_refused(tmp_path):
    write_image(tmp_path / "train/1.png")
    with pytest.raises(ValueError, match="must hold one folder per class, and it holds no folder"):
        load_labelled_images(tmp_path, "train")


def test_a_split_with_a_class_that_train_lacks_is_refused(tmp_path):
    write_image(tmp_path / "train/cat/1.png")
    write_image(tmp_path / "val/dog/1.png")
    with pytest.raises(ValueError, match=r"must be among those of .*/train, which lacks \['dog'\]"):
        load_labelled_images(tmp_path, "val")


def test_class_folders_without_images_are_refused(tmp_path):
    (tmp_path / "train/cat").mkdir(parents=True)
    with pytest.raises(ValueError, match="no class folder of .* holds an image"):
        load_labelled_images(tmp_path, "train")


# --- Samples --------------------------------------------------------------------------------------


def first_pixel(image: Image.Image) -> torch.Tensor:
    return torch.tensor(image.getpixel((0, 0)))


def test_a_sample_is_the_record_with_its_image(tmp_path):
    record = {"file_name": write_image(tmp_path / "a.png", 7), "label": 3}
    sample = ImageMapper(first_pixel, skip_unreadable=True)(record)
    assert sample["image"].tolist() == [7, 0, 0]
    assert (sample["file_name"], sample["label"]) == (record["file_name"], 3)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_images_of_all_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new(mode, (4, 4)).save(path)
    assert read_image(str(path)).mode == "RGB"


def bad_files(folder) -> list[dict]:
    Image.effect_noise((40, 40), 50).save(folder / "whole.png")
    content = (folder / "whole.png").read_bytes()
    (folder / "text.jpg").write_text("not an image")
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    files = ("text.jpg", "cut.png", "empty.jpg", "whole.png")
    return [{"file_name": str(folder / name)} for name in files]


def test_unreadable_images_are_skipped_with_a_warning_that_counts_them(tmp_path, caplog):
    mapper = ImageMapper(first_pixel, skip_unreadable=True)
    records = bad_files(tmp_path)
    assert [mapper(r) is None for r in [*records, *records]] == [True, True, True, False] * 2
    messages = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert len(messages) == 3  # each file once
    assert messages[0].startswith(f"skipped image 1 of this process: {tmp_path}/text.jpg cannot be")
    assert messages[2].startswith("skipped image 3 of this process")


def test_an_evaluation_does_not_skip_images(tmp_path):
    mapper = ImageMapper(first_pixel, skip_unreadable=False)
    with pytest.raises(OSError, match="text.jpg cannot be read as an image"):
        mapper(bad_files(tmp_path)[0])


# --- Batches --------------------------------------------------------------------------------------

AUGMENT = create_transform(32, is_training=True, color_jitter=0.4, interpolation="bicubic")


def loader(records=None, **options) -> ImageTrainLoader:
    records = records or load_images("synthetic:10")
    mapper = ImageMapper(AUGMENT, skip_unreadable=True)
    made = ImageTrainLoader(records, mapper=mapper, **{"total_batch_size": 4, **options})
    made.seed = 5
    return made


def take(batches, number: int) -> list[list[dict]]:
    return list(itertools.islice(iter(batches), number))


def assert_equal(actual: list[list[dict]], expected: list[list[dict]]) -> None:
    for a, e in zip(itertools.chain(*actual), itertools.chain(*expected), strict=True):
        assert a["file_name"] == e["file_name"]
        assert torch.equal(a["image"], e["image"])


def test_every_epoch_has_every_image_once_in_another_order():
    found = list(itertools.chain.from_iterable(map(names, take(loader(), 5))))  # 2 epochs of 10
    assert sorted(found[:10]) == sorted(found[10:]) == sorted(names(load_images("synthetic:10")))
    assert found[:10] != found[10:]


def test_an_image_is_augmented_anew_in_every_epoch():
    samples = list(itertools.chain.from_iterable(take(loader(), 5)))
    by_name = {s["file_name"]: s["image"] for s in samples[:10]}
    assert not any(torch.equal(by_name[s["file_name"]], s["image"]) for s in samples[10:])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_that_resumes_sees_the_batches_it_would_have_seen(num_workers):
    expected = take(loader(), 5)
    resumed = loader(num_workers=num_workers)
    resumed.set_start(3)
    assert_equal(take(resumed, 2), expected[3:])


def test_another_seed_gives_other_batches():
    other = loader()
    other.seed = 6
    assert names(take(other, 1)[0]) != names(take(loader(), 1)[0])


def test_two_processes_share_the_batches_of_one(monkeypatch):
    expected = take(loader(), 3)
    shares = []
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(comm, "shared_random_seed", lambda: 0)
    for rank in range(2):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        shares.append(take(loader(), 3))
    joined = [
        [s for pair in zip(*ranks, strict=True) for s in pair]
        for ranks in zip(*shares, strict=True)
    ]
    assert_equal(joined, expected)


def test_loading_leaves_the_random_numbers_of_the_model_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    take(loader(), 2)
    assert torch.equal(torch.rand(3), expected)


def test_an_unreadable_image_is_replaced_in_the_same_way_every_time(tmp_path):
    records = [*bad_files(tmp_path), *load_images("synthetic:3")]
    first = take(loader(records), 4)
    assert {len(batch) for batch in first} == {4}
    assert not {r["file_name"] for r in records[:3]} & set(names(itertools.chain(*first)))
    assert_equal(take(loader(records), 4), first)


def test_images_that_are_all_unreadable_end_the_run(tmp_path):
    with pytest.raises(RuntimeError, match="none of 100 images in a row could be read; .*dataset"):
        take(loader(bad_files(tmp_path)[:3]), 1)


def test_a_collate_function_makes_the_batch():
    assert take(loader(collate_fn=len), 2) == [4, 4]


def test_seeding_a_block_covers_all_generators_and_ends_with_it():
    def draw() -> list[float]:
        return [random.random(), np.random.rand(), torch.rand(1).item()]

    with seeded(1, 2):
        first = draw()
    outside = draw()
    with seeded(1, 2):
        assert draw() == first
    with seeded(1, 3):
        assert not set(draw()) & set(first)
    assert draw() != outside
