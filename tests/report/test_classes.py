"""The table of classes of any task."""

from mimdet.report.classes import class_table


def data(tasks, by_class=None):
    return {
        "tasks": {task: {"metrics": {}, "classes": classes} for task, classes in tasks.items()},
        "detections": by_class and {"by_class": by_class},
    }


def test_the_worst_class_is_first_and_an_undefined_one_last():
    classes = {"cat": {"AP": 30.0}, "none": {"AP": None}, "dog": {"AP": 20.0}}
    columns, rows = class_table(data({"bbox": classes, "segm": {"cat": {"AP": 1.0}}}))
    assert columns == ["Boxes: AP", "Masks: AP"]
    assert rows == [("dog", [20.0, None]), ("cat", [30.0, 1.0]), ("none", [None, None])]


def test_a_segmentor_has_iou_and_accuracy():
    columns, rows = class_table(data({"sem_seg": {"sky": {"IoU": 50.0, "ACC": 60.0}}}))
    assert columns == ["Semantic segmentation: IoU", "Semantic segmentation: accuracy"]
    assert rows == [("sky", [50.0, 60.0])]


def test_a_single_class_is_known_from_its_detections():
    row = {"class": "cat", "AP": 12.0, "objects": 3, "images": 2, "detections": 9}
    columns, rows = class_table(data({}, [row]))
    assert columns == ["Boxes: AP", "objects", "images", "detections"]
    assert rows == [("cat", [12.0, 3, 2, 9])]


def test_without_classes_there_is_no_table():
    assert class_table(data({"accuracy": {}})) is None
