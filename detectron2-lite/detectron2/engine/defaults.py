"""What most training scripts start with: arguments, folders, logs, seeds, metric writers, DDP."""

import argparse
import importlib.util
import inspect
import logging
import os
import sys
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from detectron2.config import LazyConfig
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter
from detectron2.utils.logger import setup_logger

__all__ = ["create_ddp_model", "default_argument_parser", "default_setup", "default_writers"]

# Not None, which a config may hold.
_MISSING = object()
_DDP_ARGUMENTS = inspect.signature(DistributedDataParallel).parameters

_EPILOG = """
Examples:

Train on the 8 GPUs of one machine:
    $ {script} --num-gpus 8 --config-file cfg.py

Change options of the config, behind all flags:
    $ {script} --config-file cfg.py train.init_checkpoint=/path/to/weights.pth

Train on two machines:
    (machine 0) $ {script} --machine-rank 0 --num-machines 2 --dist-url <URL> [--other-flags]
    (machine 1) $ {script} --machine-rank 1 --num-machines 2 --dist-url <URL> [--other-flags]
"""


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """The command line of a training script.

    Args:
        epilog: text below the help; None shows examples.

    Returns:
        A parser for `--config-file`, `--resume`, `--eval-only`, the flags that `launch` needs, and
        `opts`, the overrides of the config, to which everything behind the first of them belongs.
    """
    parser = argparse.ArgumentParser(
        epilog=epilog or _EPILOG.format(script=sys.argv[0]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config-file", default="", metavar="FILE", help="path of the config file")
    add("--resume", action="store_true", help="continue from the last checkpoint of the output_dir")
    add("--eval-only", action="store_true", help="evaluate instead of training")
    add("--num-gpus", type=int, default=1, help="number of GPUs *per machine*")
    add("--num-machines", type=int, default=1, help="number of machines")
    add("--machine-rank", type=int, default=0, help="index of this machine, from 0")
    # The runs of one user meet at one address, those of other users on the machine elsewhere.
    user = os.getuid() if hasattr(os, "getuid") else 1
    add(
        "--dist-url",
        default=f"tcp://127.0.0.1:{49152 + hash(user) % 16384}",
        help="address at which the processes meet, as init_process_group takes it; 'auto' picks a "
        "free port of this machine",
    )
    add(
        "opts",
        default=[],
        nargs=argparse.REMAINDER,
        help="overrides of the config, 'path.key=value', behind all flags",
    )
    return parser


def default_setup(cfg: DictConfig, args: argparse.Namespace) -> None:
    """Set up the output folder, logging, the saved config and the seeds of a run.

    Call it before objects are put into the config, which could not be saved otherwise. It

    1. sets up the loggers `fvcore` and `detectron2`, and logs the environment, the command line
       and the config file;
    2. saves the config as `config.yaml` of the output folder;
    3. seeds all random number generators with seed + rank (with a random number if the seed is
       negative or absent), and sets `cudnn.benchmark` and the precision of float32 products.

    Args:
        cfg: the config. Read are `train.output_dir` (or `output_dir`), `train.seed`,
            `train.cudnn_benchmark` and `train.float32_precision`.
        args: the parsed command line.
    """
    output_dir = _first_of(cfg, "OUTPUT_DIR", "output_dir", "train.output_dir", default=None)
    if output_dir and comm.is_main_process():
        os.makedirs(output_dir, exist_ok=True)
    rank = comm.get_rank()
    setup_logger(output_dir, distributed_rank=rank, name="fvcore")
    logger = setup_logger(output_dir, distributed_rank=rank)
    _log_run(logger, args)
    if output_dir and comm.is_main_process():
        path = os.path.join(output_dir, "config.yaml")
        LazyConfig.save(cfg, path)
        logger.info(f"Full config saved to {path}")

    seed = _first_of(cfg, "SEED", "train.seed", default=-1)
    # With one seed for all, the ranks would draw the same numbers for their different images.
    seed_all_rng(None if seed is None or seed < 0 else seed + rank)
    _set_up_numerics(cfg, eval_only=getattr(args, "eval_only", False))


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """The writers of a run: the log, `metrics.json`, and event files for tensorboard.

    Args:
        output_dir: folder for the files; made if missing.
        max_iter: number of iterations, for the remaining time in the log.

    Returns:
        The writers; without the last one, and with a warning, if tensorboard is not installed.
    """
    os.makedirs(output_dir, exist_ok=True)
    writers: list[EventWriter] = [
        CommonMetricPrinter(max_iter),
        JSONWriter(os.path.join(output_dir, "metrics.json")),
    ]
    if importlib.util.find_spec("tensorboard") is None:  # an extra, other than upstream's
        logging.getLogger(__name__).warning(
            "tensorboard is not installed (pip install tensorboard): no event files are written"
        )
    else:
        writers.append(TensorboardXWriter(output_dir))
    return writers


def create_ddp_model(
    model: nn.Module, *, fp16_compression: bool = False, **kwargs: Any
) -> nn.Module:
    """Wrap a model for data-parallel training if there is more than one process.

    Args:
        model: the model, on its device.
        fp16_compression: exchange the gradients in float16; only for a model on CUDA.
        kwargs: arguments of `DistributedDataParallel`. `device_ids` defaults to the local rank
            for a model on CUDA, and to None for one on the CPU. `broadcast_buffers` may be used
            with every version of torch; where torch calls it `forward_sync_buffers`, all ranks
            start from the buffers of rank 0, as they do from its weights.

    Returns:
        The model itself in a single process, else the wrapped model.
    """
    if comm.get_world_size() == 1:
        return model
    # The name since torch 2.13, where the old one is deprecated.
    if "broadcast_buffers" in kwargs and "forward_sync_buffers" in _DDP_ARGUMENTS:
        kwargs["forward_sync_buffers"] = kwargs.pop("broadcast_buffers")
    on_cuda = any(parameter.is_cuda for parameter in model.parameters())
    if on_cuda:
        kwargs.setdefault("device_ids", [comm.get_local_rank()])
    ddp = (DistributedDataParallel if on_cuda else _DataParallelOnCpu)(model, **kwargs)
    if fp16_compression and on_cuda:
        ddp.register_comm_hook(state=None, hook=fp16_compress_hook)
    elif fp16_compression:
        logging.getLogger(__name__).warning(
            "fp16_compression is left out: the model is not on a CUDA device"
        )
    return ddp


class _DataParallelOnCpu(DistributedDataParallel):
    """The wrapper without torch's check that there is no SyncBatchNorm on the CPU.

    `detectron2.layers.SyncBatchNorm` works there; that of torch raises an error of its own.
    """

    def _passing_sync_batchnorm_handle(self, module: nn.Module) -> None:
        pass


def _first_of(cfg: DictConfig, *keys: str, default: Any) -> Any:
    """The value of the first of the dotted keys that the config has."""
    values = (OmegaConf.select(cfg, key, default=_MISSING) for key in keys)
    return next((value for value in values if value is not _MISSING), default)


def _log_run(logger: logging.Logger, args: argparse.Namespace) -> None:
    logger.info(f"Rank of current process: {comm.get_rank()}. World size: {comm.get_world_size()}")
    logger.info("Environment info:\n" + collect_env_info())
    logger.info(f"Command line arguments: {args}")
    config_file = getattr(args, "config_file", "")
    if config_file:
        with open(config_file, encoding="utf-8") as file:
            logger.info(f"Contents of args.config_file={config_file}:\n{file.read()}")


def _set_up_numerics(cfg: DictConfig, *, eval_only: bool) -> None:
    # cuDNN's search for the fastest kernels does not pay off for images of many sizes.
    if not eval_only:
        torch.backends.cudnn.benchmark = _first_of(
            cfg, "CUDNN_BENCHMARK", "train.cudnn_benchmark", default=False
        )
    precision = _first_of(cfg, "FLOAT32_PRECISION", "train.float32_precision", default="")
    if precision:
        torch.set_float32_matmul_precision(precision)
