"""Files that are no COCO files are named as what they are."""

import gzip
import json
import os

import coco_files
import pytest

from mimdet.data.coco.file import read_sections
from mimdet.data.coco.problems import BYTE_ORDER_MARK, Problems


def read(path):
    return read_sections(path, Problems(path))


def test_the_three_lists_of_a_file_are_read(tmp_path):
    content = coco_files.sound()
    assert read(coco_files.write(tmp_path, {**content, "info": {}})) == content


def test_a_byte_order_mark_is_read_over_and_told(tmp_path):
    content = coco_files.sound()
    path = coco_files.write(tmp_path, b"\xef\xbb\xbf" + json.dumps(content).encode())
    found = Problems(path)
    assert read_sections(path, found) == content
    assert found.kinds() == [BYTE_ORDER_MARK]


@pytest.mark.parametrize(
    "text, message",
    [
        (b"", "must be JSON: it is empty"),
        (b"<!DOCTYPE html><html>", "it is a web page"),
        ('{"images": []}'.encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        (b'{"images": [{"id": 1}', "it ends too early; it was cut short"),
        (b'{"images": [NaN]}', "NaN is no number of JSON"),
        (b'{"images": [1, -Infinity]}', "-Infinity is no number of JSON"),
        (b'{"id": 1}\n{"id": 2}\n', "one object per line .JSON lines."),
        ('{"images": []}'.encode("utf-16-le"), "it is UTF-16; save it as UTF-8"),
        ('{"images": []}'.encode("utf-32"), "it is UTF-32; save it as UTF-8"),
        (b'{"a": "\xe9"}', "must be JSON: it is no UTF-8 .* save it as UTF-8"),
        (b"{}}", "must be JSON: JSON is malformed: trailing characters"),
        # mtime=0: by default the bytes hold the time, and two test processes must name tests alike
        (gzip.compress(b"{}", mtime=0), "it is a compressed archive; unpack it"),
        (b"PK\x03\x04abc", "it is a compressed archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
        (b'<?xml version="1.0"?><annotation>', "it is XML .Pascal VOC"),
        (b"<annotation><folder>a</folder>", "it is XML .Pascal VOC"),
        (b"0 0.5 0.5 0.2 0.2\n1 0.1 0.1 1e-3 0.1\n", "a label file of YOLO"),
        (b"filename,file_size,region_count\na.png,1,0\n", "it is a table .CSV."),
        (b"train: images\nnames: [red]\n", "it is YAML"),
        (b'[{"image": "a.png", "annotations": []}]', "a list of images .CreateML"),
        (b'[{"id": 1, "data": {}, "annotations": []}]', "a list of tasks .Label Studio"),
        (b'[{"name": "a.png", "labels": []}]', "a list of frames .BDD100K"),
        (b'[{"images": [], "annotations": []}]', "a list of datasets; give one"),
        (b'{"images": 1e999}', "must be JSON: Number out of range"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deep"),
        (b'{"images":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deep"),
        (b"[]", "must be a COCO file, but it is a list"),
        (b'[{"image_id": 1, "category_id": 1, "score": 0.5}]', "a list of detections"),
        (b"3", "it is a int"),
        (b"{}", "an object with"),
        (b'{"images": []}', "without annotations"),
        (b'{"a.png1": {"filename": "a.png", "regions": []}}', "export of VIA"),
        (b'{"_via_img_metadata": {}}', "export of VIA"),
        (b'{"shapes": [], "imagePath": "a.png"}', "labelme file of one image"),
        (b'{"images": {}, "annotations": [], "categories": []}', "each a list, got .*dict"),
        (b'{"images": [], "annotations": []}', "'categories': 'NoneType'"),
    ],
)
def test_what_is_no_coco_file_is_named(tmp_path, text, message):
    path = coco_files.write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as e:
        read(path)
    assert path in str(e.value) and len(str(e.value)) < 500


def test_a_pipe_or_a_folder_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", tmp_path):
        with pytest.raises(ValueError, match="no regular file"):
            read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.json does not exist"):
        read(tmp_path / "none.json")
