#!/usr/bin/env python
"""Train, evaluate or resume any LazyConfig file.

    python lazyconfig_train_net.py --config-file CONFIG [options] [key=value ...]
    torchrun --nproc-per-node N lazyconfig_train_net.py --config-file CONFIG [key=value ...]
    srun python lazyconfig_train_net.py --config-file CONFIG [key=value ...]

A config file exports `dataloader` (`train`, `test`, `evaluator`), `lr_multiplier`, `model`,
`optimizer` and `train`; `do_train` lists what is read from them.
"""

import gc

# As in `mimdet.__main__`, if Python or a rank's start runs this file and nobody imports it.
_IS_MAIN = __name__ in ("__main__", "__mp_main__")
if _IS_MAIN:
    gc.disable()

import argparse
import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from torch import nn

import mimdet  # noqa: F401  (first: it says what to do without Detectron2)
from detectron2.config import instantiate
from detectron2.engine import default_argument_parser, default_setup, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from mimdet.checkpoint.average import averaged_weights, check_choice
from mimdet.checkpoint.card import Card
from mimdet.checkpoint.evaluated import EvaluatedWeights, load_for_evaluation
from mimdet.checkpoint.saving import ends_in_one_sentence
from mimdet.checkpoint.start import load_starting_weights
from mimdet.checkpoint.strict import StrictCheckpointer
from mimdet.command_line import add_trust, mistakes_in_one_line, overrides_last
from mimdet.config import PackedConfig, key_behind, load_config
from mimdet.engine.best_model import BestModel, EarlyStop, check_early_stop
from mimdet.engine.check_run import check, end_if_refused, number_of_processes
from mimdet.engine.compiling import compile_blocks
from mimdet.engine.console import (
    MovingLine,
    beside_a_moving_line,
    set_up_loggers,
    short_console,
    with_line,
)
from mimdet.engine.costs import Costs
from mimdet.engine.describe_run import make_card
from mimdet.engine.evaluation import (
    at_eval_ratio,
    build_evaluator,
    describe_evaluation,
    settle_eval_ratio,
)
from mimdet.engine.first_tokens import FirstTokens
from mimdet.engine.follow_data import follow_data
from mimdet.engine.hooks import (
    EMA,
    GradientClipping,
    LossNormalizer,
    RepeatableRandomness,
    Throughput,
)
from mimdet.engine.launch import check_processes, launch
from mimdet.engine.memory import MemoryGivenBack, give_back_memory
from mimdet.engine.memory_plan import settle_checkpointing
from mimdet.engine.nonfinite import Rewind, build_policy, check_nonfinite, train_with_rewinds
from mimdet.engine.optimizer import build_optimizer
from mimdet.engine.output_folder import evaluation_folder, training_folder
from mimdet.engine.own_data import DEFAULT_CONFIG, load_own_data
from mimdet.engine.precision import (
    check_compression,
    check_types,
    evaluation_context,
    set_float32_precision,
    settle_amp,
)
from mimdet.engine.preemption import Preemption
from mimdet.engine.preflight import NO_EVALUATOR
from mimdet.engine.propose import parse_memory
from mimdet.engine.reconstructions import Reconstructions
from mimdet.engine.resume import RecentScalars, build_train_loader, is_resuming, settle_seed
from mimdet.engine.run_record import command_of, recorded
from mimdet.engine.shared_index import share_index
from mimdet.engine.trainer import build_trainer, data_parallel
from mimdet.engine.writers import forgive_full_disk, run_writers
from mimdet.evaluation.kept_tokens import save_kept_tokens, watch_tokens
from mimdet.evaluation.results import InferenceTimer, save_results
from mimdet.find_config import find_config

if _IS_MAIN:
    gc.freeze()
    gc.enable()

logger = logging.getLogger("mimdet")

EPILOG = """
Train on images of your own, in COCO format (mimdet.data.coco.layouts tells how they may lie), or
for a segmentor's config with label maps (mimdet.data.label_folders):
    python lazyconfig_train_net.py --data DIR --batch 4 --epochs 36 mae_checkpoint.path=MAE.pth

What that would do and need, and what fits a card of 24 GB:
    python lazyconfig_train_net.py --data DIR --plan --memory 24GB

Overrides may stand before, between and behind the flags.

Train on 8 GPUs from a MAE checkpoint:
    python lazyconfig_train_net.py --config-file CONFIG --num-gpus 8 mae_checkpoint.path=MAE.pth

Evaluate with all tokens:
    python lazyconfig_train_net.py --config-file CONFIG --eval-only \\
        train.init_checkpoint=MODEL.pth model.backbone.bottom_up.sample_ratio=1.0

Train on two machines; the other one has --node_rank 1:
    python lazyconfig_train_net.py --config-file CONFIG --num-gpus 8 --num-machines 2 \\
        --node_rank 0 --master_addr ADDRESS --master_port PORT
"""


def do_test(cfg: DictConfig, model: nn.Module, weights: EvaluatedWeights | None = None) -> dict:
    """Evaluate `model` on `dataloader.test` by `dataloader.evaluator`; {} without an evaluator.

    `weights` says in `results.json` which they are.
    """
    if cfg.dataloader.get("evaluator") is None:
        return {}
    timer = InferenceTimer()
    results_file = Path(cfg.train.output_dir) / "results.json"
    loader = instantiate(share_index(cfg.dataloader.test))
    evaluator = build_evaluator(cfg, results_file)
    callbacks = with_line(timer.callbacks, len(loader))
    with at_eval_ratio(cfg, model), evaluation_context(cfg.train), watch_tokens(model) as kept:
        results = inference_on_dataset(model, loader, evaluator, callbacks=callbacks)
        protocol = describe_evaluation(cfg, model, evaluator, weights)
    print_csv_format(results)
    if comm.is_main_process():
        more = {
            "seconds_per_batch": timer.seconds_per_batch,
            "protocol": protocol,
        }
        save_results({**results, **more}, results_file)
        save_kept_tokens(kept, results_file.with_name("kept_tokens_evaluation.npz"))
    return results


def do_train(args: argparse.Namespace, cfg: DictConfig, rewound: Rewind | None = None) -> None:
    """Train a model, or go on with what `rewound` has ended.

    Besides `model`, `optimizer`, `lr_multiplier` and `dataloader`, these keys are read:

        train.output_dir, train.device, train.max_iter
        train.overwrite                    move an earlier training's files aside
        train.resume_from_older            whether --resume passes over damaged checkpoints
        train.seed                         negative: drawn, kept in the output folder
        train.init_checkpoint              a checkpoint of the whole model to start from
        train.allow_missing, train.allow_unexpected   names that may differ from it
        train.starting_weights             what its parts take from files, where there is none; the
                                           lists of configs with `mae_checkpoint` follow that
        train.amp.{enabled, dtype, eval}   automatic mixed precision
        train.float32_precision            of products of float32 matrices
        train.compile                      "blocks": torch.compile for transformer blocks
        train.accumulation_steps           pieces in which a batch passes through the model
        train.clip_grad.max_norm           if not None
        train.ema.decay                    if not None; the average is what is evaluated, and lies
                                           in checkpoints under ["trainer"]["hooks"]["EMA"]
        train.nonfinite                    "stop", "skip" or "rewind" at a loss of infinity or NaN
        train.nonfinite_max                batches of a run that may be left out
        train.ddp.*                        arguments of DistributedDataParallel
        train.best_metric                  result of which the best model is kept, if not None
        train.early_stop.patience          evaluations without a better one that end the run
        train.eval_sample_ratio            of MIMDet in evaluations, if not that of the model
        train.checkpointer.{period, max_to_keep}, train.eval_period, train.log_period
        train.report                       whether to make the report of the run at its end
    """
    model = instantiate(cfg.model)
    logger.info(f"Model:\n{model}")
    # Before the optimizer is made, whose kernel follows from where the parameters are.
    model.to(cfg.train.device)
    optimizer = build_optimizer(cfg.optimizer, model)
    train_loader = build_train_loader(cfg.dataloader.train)

    resume = args.resume or rewound is not None
    resuming = is_resuming(cfg, resume)
    # A checkpoint of the whole model would replace all that these files give.
    if not (resuming or cfg.train.init_checkpoint):
        start_from_files(cfg, model)

    ema_decay = OmegaConf.select(cfg, "train.ema.decay")
    ema = EMA(model, ema_decay) if ema_decay is not None else None
    # after the average is made: a compiled block is no part of a copy
    compile_blocks(model, cfg.train.get("compile", "off"))
    loss_normalizer = LossNormalizer(model, cfg.train.checkpointer.period)
    card = make_card(cfg, model) if comm.is_main_process() else None
    batch_size = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
    passed = rewound.position if rewound else None
    randomness = RepeatableRandomness(train_loader, batch_size, passed)
    policy = build_policy(cfg, randomness, rewound)
    is_told = comm.is_main_process() and cfg.train.get("report", True)
    reconstructions = None
    if is_told and hasattr(model, "reconstruct"):
        reconstructions = Reconstructions(model, cfg.train.output_dir, cfg.train.max_iter)
    model = data_parallel(model, **cfg.train.ddp)
    trainer = build_trainer(
        model,
        train_loader,
        optimizer,
        amp_enabled=cfg.train.amp.enabled,
        amp_dtype=cfg.train.amp.get("dtype", "float16"),
        accumulation_steps=cfg.train.get("accumulation_steps", 1),
        policy=policy,
    )
    checkpointer = build_checkpointer(cfg, model, card=card, trainer=trainer)

    def evaluate() -> dict:
        # After the last iteration the trainer's number is already that of the next one.
        iteration = min(trainer.iter, cfg.train.max_iter - 1)
        weights = EvaluatedWeights("ema" if ema else "raw", iteration=iteration)
        with ends_in_one_sentence(cfg.train.output_dir), preemption.during_evaluation():
            began = time.perf_counter()
            results = do_test(cfg, ema.averaged if ema else model, weights)
            seconds = time.perf_counter() - began
        if results:
            trainer.storage.put_scalar("seconds/evaluation", seconds, smoothing_hint=False)
        give_back_memory()  # now that the loader and the evaluator are gone
        if best:
            best.see(results)
        return results

    eval_hook = hooks.EvalHook(cfg.train.eval_period, evaluate)
    preemption = Preemption(
        checkpointer,
        eval_hook,
        period=cfg.train.checkpointer.period,
        eval_period=cfg.train.eval_period,
        exchange=loss_normalizer.exchange,
    )
    metric = cfg.train.get("best_metric")
    patience = OmegaConf.select(cfg, "train.early_stop.patience")
    best = BestModel(checkpointer, metric, patience) if metric else None
    max_norm = OmegaConf.select(cfg, "train.clip_grad.max_norm")
    trainer.register_hooks(
        [
            Costs(cfg.train.device),  # first, see there
            hooks.IterationTimer(),
            Throughput(batch_size, train_loader) if batch_size else None,
            randomness,
            RecentScalars(),
            policy,
            GradientClipping(max_norm) if max_norm is not None else None,
            ema,
            loss_normalizer,
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            # Behind all hooks whose states it saves: these have taken in this iteration by then.
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer)
            if comm.is_main_process()
            else None,
            preemption,
            eval_hook,
            best,
            reconstructions,
            FirstTokens(cfg.train.output_dir) if is_told else None,
            MemoryGivenBack(),
        ]
    )
    rest = checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    if not resuming and averaged_weights(rest) is not None:
        logger.info(
            f"The raw weights of {cfg.train.init_checkpoint} are taken, not their average (EMA)"
        )
    if comm.is_main_process():
        # After loading, because it opens files. Last, so that an evaluation's numbers are on the
        # line of their iteration.
        writers = run_writers(cfg.train.output_dir, cfg.train.max_iter)
        line = MovingLine(cfg.train.max_iter)
        trainer.register_hooks(
            [
                hooks.PeriodicWriter([line], period=1),
                hooks.PeriodicWriter(writers, period=cfg.train.log_period),
            ]
        )
        preemption.writers = writers
    with contextlib.suppress(EarlyStop):
        # What a checkpoint calls its iteration has been done.
        trainer.train(trainer.iter + 1 if resuming else 0, cfg.train.max_iter)


def start_from_files(cfg: DictConfig, model: nn.Module) -> None:
    """Give a new model the weights that `train.starting_weights` lists."""
    entries = [instantiate(entry) for entry in cfg.train.get("starting_weights", ())]
    load_starting_weights(model, entries, key_of=partial(key_behind, cfg))


def build_checkpointer(
    cfg: DictConfig, model: nn.Module, card: Card | None = None, **checkpointables
) -> StrictCheckpointer:
    """The checkpointer of a run, with the allow-lists of its config."""
    return StrictCheckpointer(
        model,
        cfg.train.output_dir,
        allow_missing=cfg.train.get("allow_missing", ()),
        allow_unexpected=cfg.train.get("allow_unexpected", ()),
        card=card,
        **checkpointables,
    )


def do_eval(cfg: DictConfig) -> None:
    """Evaluate the weights of `train.init_checkpoint`, see `--eval-only`."""
    if cfg.dataloader.get("evaluator") is None:
        raise ValueError(NO_EVALUATOR)
    model = instantiate(cfg.model).to(cfg.train.device)
    weights = load_for_evaluation(
        model,
        cfg.train.init_checkpoint,
        cfg.train.get("eval_weights"),
        cfg.train.get("allow_unexpected", ()),
    )
    do_test(cfg, data_parallel(model, **cfg.train.ddp), weights)


def main(args: argparse.Namespace) -> None:
    """Run one process of the job, with the arguments of `parse_args`."""
    end_if_refused(args)
    cfg = args.config.unpack()
    follow_data(cfg)
    settled = settle_amp(cfg)
    if args.eval_only:
        notes = evaluation_folder(cfg)
        with set_up(args, cfg, notes, settled), recorded(args, cfg):
            with ends_in_one_sentence(cfg.train.output_dir):
                do_eval(cfg)
        return
    # First of all: the seed and the record below are files of the folder.
    with training_folder(cfg, args.resume) as notes:
        with ends_in_one_sentence(cfg.train.output_dir):
            settle_seed(cfg, args.resume)
        settled += settle_checkpointing(cfg)
        with set_up(args, cfg, notes, settled), recorded(args, cfg):
            train_with_rewinds(partial(do_train, args, cfg), cfg.train.seed)


@contextlib.contextmanager
def set_up(
    args: argparse.Namespace, cfg: DictConfig, notes: list[str], settled: list[str]
) -> Iterator[None]:
    """Detectron2's setup of a process, for a block; it logs what is older than the log.

    Args:
        args: of the process.
        cfg: of the run.
        notes: to warn of.
        settled: what was decided for this machine.
    """
    with ends_in_one_sentence(cfg.train.output_dir):
        set_up_loggers(cfg.train.output_dir)
    with short_console(), ends_in_one_sentence(cfg.train.output_dir):
        default_setup(cfg, args.for_log)  # without what was found and made of it
    with beside_a_moving_line():
        set_float32_precision(cfg.train)
        forgive_full_disk("detectron2", "fvcore", "mimdet")
        for note in notes:
            logger.warning(note)
        for line in settled:
            logger.info(line)
        yield


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line and its config; refuse, before any process starts, what cannot run.

    The config file is executed here, once; the processes get its config as `args.config`.
    """
    parser = default_argument_parser(epilog=EPILOG)
    parser.add_argument("--node_rank", type=int, help="the same as --machine-rank")
    parser.add_argument("--master_addr", help="address of machine 0; needs --master_port")
    parser.add_argument("--master_port", type=int, help="a free port of machine 0")
    parser.add_argument("--data", metavar="DIR", help="train on the images in this folder")
    parser.add_argument("--batch", type=int, help="with --data: images per iteration")
    parser.add_argument("--epochs", type=float, help="with --data: passes over the images")
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print what the training would do and need, what fits the memory, and stop",
    )
    parser.add_argument(
        "--memory", metavar="SIZE", help="with --plan: of a card that is not at hand, as 24GB"
    )
    add_trust(parser)
    words = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(overrides_last(words))
    typed = {k: value for k, value in vars(args).items() if value != parser.get_default(k)}
    args.command = command_of(parser.prog, words)
    if (args.master_addr is None) != (args.master_port is None):
        parser.error("--master_addr and --master_port must be given together")
    if args.master_addr is not None:
        args.dist_url = f"tcp://{args.master_addr}:{args.master_port}"
    if args.node_rank is not None:
        args.machine_rank = args.node_rank
    with mistakes_in_one_line(parser):
        check_processes(args, default_url=parser.get_default("dist_url"))
        args.memory = parse_memory(args.memory) if args.memory is not None else None
        default = DEFAULT_CONFIG if args.data is not None else ""
        # Into `args`, because default_setup logs what the file holds.
        args.config_file = find_config(args.config_file or default)
        if args.data is not None:
            cfg, args.own = load_own_data(args, number_of_processes(args))
        else:
            cfg = load_config(args.config_file, args.opts, trusted=args.trust_config)
            args.own = None
        check_choice(cfg.train.get("eval_weights"))
        check_early_stop(cfg)
        if args.eval_only:
            settle_eval_ratio(cfg, args.opts)
        check_nonfinite(cfg)
        check_types(cfg.train)
        if not args.eval_only:
            check_compression(cfg.train)
    if args.data is None and (args.batch or args.epochs):
        parser.error("--batch and --epochs go with --data; a config has the numbers themselves")
    if args.memory and not args.plan:
        parser.error("--memory goes with --plan; a training takes the memory that there is")
    if args.plan and args.eval_only:
        parser.error("--plan is of a training: leave --eval-only out")
    if args.eval_only and not cfg.train.init_checkpoint:
        parser.error("--eval-only needs the weights to evaluate: train.init_checkpoint=MODEL.pth")
    args.config = PackedConfig(cfg)
    args.is_refused, args.found = False, None
    needed = {"config_file": args.config_file, "eval_only": args.eval_only}
    args.for_log = argparse.Namespace(**typed | needed)
    return args


def run(argv: list[str] | None = None) -> None:
    """Do what the command line asks for, in as many processes as it asks for."""
    args = parse_args(argv)
    check(args)
    if args.plan:
        return
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )


if __name__ == "__main__":
    run()
