"""The truth beside the detections of a run."""

import json

from mimdet.evaluation.truth_file import write_truth_file


def test_it_has_boxes_and_the_ids_of_the_users_file_and_no_masks(tmp_path):
    content = {
        "info": {"year": 2020},
        "images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 5, "license": 3}],
        "categories": [{"id": 1, "name": "cat", "supercategory": "pet"}],
        "annotations": [
            {"id": 9, "image_id": 1, "category_id": 1, "bbox": [0, 1, 2, 3], "area": 6}
            | {"iscrowd": 0, "segmentation": [[0, 1, 2, 3, 4, 5]]}
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    written = tmp_path / "written.json"
    ids = dict(image_ids={1: "img-7"}, category_ids={1: 70})
    write_truth_file(str(tmp_path / "truth.json"), written, str(tmp_path), **ids)
    assert json.loads(written.read_text()) == {
        "image_root": str(tmp_path),
        "images": [{"id": "img-7", "file_name": "a.jpg", "height": 4, "width": 5}],
        "annotations": [
            {"id": 9, "image_id": "img-7", "category_id": 70, "bbox": [0, 1, 2, 3], "area": 6}
            | {"iscrowd": 0}
        ],
        "categories": [{"id": 70, "name": "cat"}],
    }
