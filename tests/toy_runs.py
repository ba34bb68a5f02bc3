"""Short runs of the scripts on the small toy dataset of the fixture `toy_root`.

Importing torch takes a process seconds, so most tests run a script's functions in this process.
"""

import contextlib
import functools
import importlib.util
import json
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = str(REPOSITORY / "configs/toy/mimdet_mask_rcnn_fpn_sr_0p5_toy.py")
RATIO = "model.backbone.bottom_up.sample_ratio"

# A run of seconds. The datasets have names of their own, because a name keeps its first folder.
TINY = (
    "train.device=cpu",
    "train.max_iter=4",
    "train.log_period=1",
    "train.report=False",
    "train.checkpointer.period=100",
    "dataloader.train.total_batch_size=2",
    "dataloader.train.dataset.name=tiny_train",
    "dataloader.test.dataset.name=tiny_val",
    "model.proposal_generator.pre_nms_topk=[100,100]",
    "model.proposal_generator.post_nms_topk=[40,40]",
    "model.roi_heads.batch_size_per_image=16",
    "+model.roi_heads.box_predictor.test_topk_per_image=20",
)


SEGMENTOR = str(REPOSITORY / "configs/toy/upernet_vit_toy.py")
TINY_SEGMENTOR = (
    *TINY[:4],
    "dataloader.train.total_batch_size=4",
    "dataloader.train.dataset.name=tiny_sem_seg_train",
    "dataloader.test.dataset.name=tiny_sem_seg_val",
    "model.backbone={embed_dim: 16, num_heads: 2}",
    "model.sem_seg_head.decode_head.channels=8",
)


@functools.cache
def load_script(path: str) -> ModuleType:
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPOSITORY / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Undo what a run changes in its process: loggers and random number generators."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "mimdet")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            for handler in set(logger.handlers) - set(handlers):
                handler.close()
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def train_net(*argv: str, config: str | Path = CONFIG) -> None:
    """What `python lazyconfig_train_net.py --config-file CONFIG ARGV` does, in this process."""
    script = load_script("lazyconfig_train_net.py")
    with isolated():
        script.main(script.parse_args(["--config-file", str(config), *map(str, argv)]))


def start_from_files(cfg: DictConfig, model: nn.Module) -> None:
    """Give a new model the starting weights of its config, as a run does."""
    load_script("lazyconfig_train_net.py").start_from_files(cfg, model)


def command(*argv: str, config: str | Path = CONFIG) -> list[str]:
    """The same as a command line, to be started in the repository."""
    return [sys.executable, "lazyconfig_train_net.py", "--config-file", str(config), *argv]


@contextlib.contextmanager
def started(arguments: list[str]) -> Iterator[subprocess.Popen]:
    """A command that runs in the repository, on the CPU; it ends with the block at the latest."""
    process = subprocess.Popen(
        arguments,
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # its own session: its children end too


def metrics(output_dir: Path) -> list[dict]:
    """The lines of a run's metrics.json."""
    return [json.loads(line) for line in (output_dir / "metrics.json").read_text().splitlines()]
