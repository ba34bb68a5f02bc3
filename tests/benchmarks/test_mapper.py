"""The benchmark of the mapper compares two ways to the same samples."""

import numpy as np
import torch

from benchmarks import mapper
from benchmarks.plain_mapper import PlainMapper
from detectron2.structures import BoxMode


def test_the_default_mapper_gives_what_the_plain_one_gives_bit_by_bit(tmp_path):
    entries = [mapper._entry(tmp_path, seed) for seed in range(3)]
    copies = [{**e, "annotations": [dict(a) for a in e["annotations"]]} for e in entries]
    plain = PlainMapper(mapper._augmentations(mapper._PILLOW))
    ours = mapper._mapper(mapper._PILLOW)
    for seed in range(4):  # with and without flips and crops
        samples = [mapper._mapped(way, entries, seed) for way in (plain, ours)]
        mapper._assert_equal(*samples)
        assert sum(len(sample["instances"]) for sample in samples[0]) > 10
    assert entries == copies


def test_samples_that_differ_are_noticed(tmp_path):
    entry = mapper._entry(tmp_path, 0)
    other = {**entry, "annotations": [dict(a) for a in entry["annotations"]]}
    x, y, width, height = other["annotations"][3]["bbox"]
    other["annotations"][3].update(bbox=[x, y, width - 1, height], bbox_mode=BoxMode.XYWH_ABS)
    ours = mapper._mapper(mapper._PILLOW)
    one, two = (mapper._mapped(ours, [e], seed=0) for e in (entry, other))
    assert torch.equal(one[0]["image"], two[0]["image"])
    with np.testing.assert_raises(AssertionError):
        mapper._assert_equal(one, two)
