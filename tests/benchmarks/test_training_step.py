"""What a training step and the parts of a detector cost, measured on little ones."""

import time

import torch
from config_files import CONFIGS
from torch import nn

from benchmarks import training_step
from benchmarks.launches import Launches
from benchmarks.mimdet_parts import PartTimes
from mimdet.config import load_config


def test_a_row_tells_time_waits_operators_and_memory():
    cfg = load_config("toy/retinanet_mpvit_tiny_toy", [])
    cells = [cell.strip() for cell in training_step._row("RetinaNet", cfg, 1).strip("|").split("|")]
    assert len(cells) == training_step._HEADER.splitlines()[0].count("|") - 1
    name, milliseconds, waits, backbone, heads, others, kept = cells
    assert (name, waits) == ("RetinaNet", "1 / 1")
    assert int(milliseconds) > 0 and int(backbone) > int(heads) > 0 and int(others) > 0
    assert kept.endswith(" MiB") and int(kept.split()[0]) > 0


def test_every_toy_detector_is_measured():
    models = {path.stem: load_config(str(path), []).model for path in CONFIGS.glob("toy/*.py")}
    detectors = {name for name, m in models.items() if {"roi_heads", "anchor_generator"} & set(m)}
    assert set(training_step.SYSTEMS.values()) == detectors


def test_launches_are_told_apart_by_part_and_views_are_none():
    net, x = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)), torch.zeros(3, 2, 2)
    with Launches(relu=net[0], linear=net[2]) as counted:
        net(x).sum().item()
    assert counted.operators["relu"] == counted.operators["linear"] == 1
    assert counted.operators[""] == 2  # the sum, and reading it
    assert counted.waits == {"_local_scalar_dense": 1}
    net(x)  # is not counted any more
    assert counted.operators.total() == 4


class Busy(nn.Module):
    """Takes some CPU time before and after what is inside it."""

    def __init__(self, seconds: float, inside: nn.Module | None = None):
        super().__init__()
        self.seconds, self.inside = seconds, inside

    def forward(self, x):
        end = time.process_time() + self.seconds
        while time.process_time() < end:
            pass
        return self.inside(x) if self.inside else x


def test_the_time_of_a_part_within_another_is_not_the_others():
    net = Busy(0.02, Busy(0.06, Busy(0.02)))
    times = PartTimes(net, {"outer": ("", "inside.inside"), "inner": ("inside",)})
    start = time.process_time()
    net(torch.zeros(1))
    whole = time.process_time() - start
    assert times.seconds["outer"] >= 0.04 and times.seconds["inner"] >= 0.06
    assert times.seconds.total() <= whole
