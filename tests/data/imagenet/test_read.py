"""Image files of every mode, and what is none."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

import mimdet.data.imagenet as public
from mimdet.data.imagenet import load_images, read_image

RAMP = np.add.outer(np.arange(64), np.arange(64)) * 400  # 0 to 50,400


def test_the_public_names_are_found_in_the_package():
    """Configs that runs have saved name them so."""
    assert {"ImageMapper", "ImageTrainLoader", "load_labelled_images"} <= {*public.__all__}
    assert all(hasattr(public, name) for name in public.__all__)


def test_generated_images_need_no_file_and_are_the_same_again():
    pictures = [np.asarray(read_image(r["file_name"])) for r in load_images("synthetic:6")]
    assert pictures[0].shape == (128, 128, 3)
    assert np.array_equal(pictures[5], np.asarray(read_image("synthetic:train:5")))
    assert not np.array_equal(pictures[0], pictures[4])
    assert not np.array_equal(pictures[0], np.asarray(read_image("synthetic:val:0")))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_images_of_all_modes_become_rgb(tmp_path, mode):
    path = tmp_path / "a.tif"
    if mode == "PA":
        path = tmp_path / "a.png"
        Image.new("RGBA", (4, 4), (0, 0, 0, 9)).quantize(4).save(path)
    else:
        Image.new(mode, (4, 4)).save(path)
    assert read_image(str(path)).mode == "RGB"


@pytest.mark.parametrize("transparency", [0, b"\0\x80"])
def test_a_palette_with_transparency_keeps_its_colours_without_a_warning(tmp_path, transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 100, 50, 1, 2, 3])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png", transparency=transparency)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = np.asarray(read_image(str(tmp_path / "a.png")))
    assert pixels.tolist() == [[[200, 100, 50], [1, 2, 3]]]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.ppm"])
def test_16_bits_are_scaled_to_8(tmp_path, name):
    Image.fromarray(RAMP.astype(np.uint16)).save(tmp_path / name)
    pixels = np.asarray(read_image(str(tmp_path / name)))
    assert np.array_equal(pixels, np.repeat((RAMP // 256)[..., None], 3, axis=2))


def test_16_bits_with_the_high_byte_first_are_scaled_to_8(tmp_path):
    Image.frombytes("I;16B", (64, 64), RAMP.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    assert np.array_equal(np.asarray(read_image(str(tmp_path / "a.tif")))[..., 0], RAMP // 256)


@pytest.mark.parametrize("dtype", [np.int32, np.int16, np.float32])
def test_numbers_without_a_fixed_range_are_refused_with_the_range_they_have(tmp_path, dtype):
    Image.fromarray((RAMP // 2).astype(dtype)).save(tmp_path / "a.tif")
    with pytest.raises(OSError, match=r"a\.tif .* 32 bits .* from 0(\.0)? to 25200(\.0)?, .* save"):
        read_image(str(tmp_path / "a.tif"))


def test_what_is_no_regular_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    for path in (str(tmp_path / "a.jpg"), "/dev/zero", str(tmp_path)):
        with pytest.raises(OSError, match="cannot be read as an image .*it is no regular file"):
            read_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp", "bmp", "ppm"])
def test_cut_files_are_refused_by_name(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    Image.effect_noise((64, 64), 50).convert("RGB").save(path)
    content = path.read_bytes()
    for length in (0, 3, 20, len(content) // 2):
        path.write_bytes(content[:length])
        with pytest.raises(OSError, match=rf"cut\.{suffix} cannot be read as an image"):
            read_image(str(path))
