"""Results as lines of text and by flat names, against stored ones."""

import golden_data
import pytest
from log_records import captured, messages

from detectron2.evaluation import print_csv_format
from detectron2.evaluation.testing import flatten_results_dict

_, GOLDEN = golden_data.load("eval")


def test_csv_lines_equal_stored_lines():
    stored = GOLDEN["runs"]["default"]
    with captured("detectron2.evaluation.testing") as records:
        print_csv_format(stored["results"])
        print_csv_format({"extra": 1.5, "bbox": {"AP": 12.34567}})
    assert messages(records).splitlines() == stored["print_csv_format_lines"]
    assert {record.levelname for record in records} == {"INFO"}
    assert {record.name for record in records} == {"detectron2.evaluation.testing"}


def test_csv_of_nothing_is_nothing():
    with captured("detectron2.evaluation.testing") as records:
        print_csv_format({})
    assert records == []


def test_csv_needs_a_mapping():
    with pytest.raises(AssertionError):
        print_csv_format([1.0])


def test_flattened_names_equal_stored_names():
    stored = GOLDEN["runs"]["default"]
    flat = flatten_results_dict({**stored["results"], "extra": 1.5})
    assert list(flat)[: len(stored["flattened_keys"])] == stored["flattened_keys"]
    assert flat["segm/AP-cat a"] == stored["results"]["segm"]["AP-cat a"]
    assert flat["extra"] == 1.5
