import argparse
import inspect
import logging
import os
from pathlib import Path

import golden_data
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from toy_trainers import OneLoss, messages

from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.engine import (
    create_ddp_model,
    default_argument_parser,
    default_setup,
    default_writers,
)
from detectron2.engine.defaults import create_ddp_model as create_ddp_model_of_defaults
from detectron2.layers import ShapeSpec
from detectron2.utils.events import EventStorage

GOLDEN = golden_data.load("engine")[1]
ARGUMENTS = argparse.Namespace(config_file="", resume=False, eval_only=False)


@pytest.fixture(autouse=True)
def restored_logging_and_numerics():
    """`default_setup` changes loggers and numerics of the process; undo that after each test."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore")]
    before = [(lg, lg.handlers[:], lg.level, lg.propagate) for lg in loggers]
    precision = torch.get_float32_matmul_precision()
    benchmark = torch.backends.cudnn.benchmark
    yield
    for lg, handlers, level, propagate in before:
        for handler in lg.handlers:
            if handler not in handlers:
                handler.close()
        lg.handlers[:], lg.propagate = handlers, propagate
        lg.setLevel(level)
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.benchmark = benchmark


def test_argument_parser_gives_the_values_of_the_reference():
    expected = dict(GOLDEN["default_argument_parser"])
    line = "--config-file c.py --resume --num-gpus 2 train.max_iter=3 x.y=1"
    actual = vars(default_argument_parser().parse_args(line.split()))
    port = int(actual.pop("dist_url").removeprefix("tcp://127.0.0.1:"))
    assert port == 49152 + hash(os.getuid()) % 16384
    del expected["dist_url"]
    assert actual == expected


def test_argument_parser_has_defaults_for_everything():
    actual = vars(default_argument_parser().parse_args([]))
    assert (actual["config_file"], actual["num_gpus"], actual["opts"]) == ("", 1, [])
    assert (actual["num_machines"], actual["machine_rank"]) == (1, 0)
    assert not actual["resume"] and not actual["eval_only"]


def test_argument_parser_shows_the_epilog_in_its_help():
    assert "as you like it" in default_argument_parser("as you like it").format_help()
    assert "--num-gpus 8" in default_argument_parser().format_help()


def golden_config(output_dir, seed=-1):
    return OmegaConf.create(
        {
            "train": {
                "output_dir": str(output_dir),
                "max_iter": 10,
                "seed": seed,
                "amp": {"enabled": False},
                "checkpointer": {"period": 5, "max_to_keep": 3},
            },
            "model": LazyCall(nn.Linear)(in_features=3, out_features="${..dim}", bias=True),
            "dim": 4,
            "optimizer": LazyCall(torch.optim.AdamW)(params=None, lr=1e-4, betas=(0.9, 0.999)),
            "shape": LazyCall(ShapeSpec)(channels=3),
            "names": ["a", "b", [1, 2.5, None, True]],
        },
        flags={"allow_objects": True},
    )


def test_setup_writes_the_config_of_the_reference(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    default_setup(golden_config("out_dir", seed=7), ARGUMENTS)
    assert sorted(os.listdir("out_dir")) == GOLDEN["default_setup_files"]
    expected = GOLDEN["config_yaml"].replace("seed: -1", "seed: 7")
    assert Path("out_dir/config.yaml").read_text() == expected
    expected_model = GOLDEN["config_yaml_reload"]
    loaded = LazyConfig.load("out_dir/config.yaml")
    assert type(loaded).__name__ == expected_model["type"]
    assert loaded.model._target_ == expected_model["target"]
    assert type(instantiate(loaded.optimizer._target_)) is str
    loaded.model.out_features = 4
    assert type(instantiate(loaded.model)).__name__ == expected_model["instantiated"]


def test_config_is_saved_as_the_text_of_the_reference(tmp_path):
    LazyConfig.save(golden_config("out_dir"), str(tmp_path / "config.yaml"))
    assert (tmp_path / "config.yaml").read_text() == GOLDEN["config_yaml"]


@pytest.mark.lite
def test_config_with_a_lambda_is_saved_in_the_files_of_the_reference(tmp_path):
    cfg = OmegaConf.create({"f": LazyCall(lambda x: x)(x=1)}, flags={"allow_objects": True})
    LazyConfig.save(cfg, str(tmp_path / "lam.yaml"))
    assert sorted(os.listdir(tmp_path)) == GOLDEN["config_with_lambda_files"]


@pytest.mark.lite
def test_setup_logs_rank_environment_arguments_and_config_file(tmp_path):
    config_file = tmp_path / "my_config.py"
    config_file.write_text("train = dict(seed=1)\n")
    arguments = argparse.Namespace(config_file=str(config_file), eval_only=False, opts=["a.b=1"])
    default_setup(golden_config(tmp_path / "out", seed=1), arguments)
    text = (tmp_path / "out" / "log.txt").read_text()
    parts = [
        "Rank of current process: 0. World size: 1",
        "Environment info:",
        "Command line arguments: ",
        f"Contents of args.config_file={config_file}:",
        "train = dict(seed=1)",
        "Full config saved to ",
    ]
    assert [text.find(part) >= 0 for part in parts] == [True] * len(parts)
    assert sorted(parts, key=text.find) == parts
    assert "a.b=1" in text


def test_setup_seeds_the_generators_with_the_configured_seed(tmp_path):
    draws = []
    for _ in range(2):
        default_setup(golden_config(tmp_path, seed=3), ARGUMENTS)
        draws.append((np.random.rand(), torch.rand(()).item()))
    assert draws[0] == draws[1]


@pytest.mark.parametrize("configured", [-1, "absent"])
def test_without_a_seed_two_runs_differ(tmp_path, configured):
    cfg = golden_config(tmp_path, seed=configured)
    if configured == "absent":
        del cfg.train["seed"]
    draws = []
    for _ in range(2):
        default_setup(cfg, ARGUMENTS)
        draws.append(torch.rand(()).item())
    assert draws[0] != draws[1]


@pytest.mark.parametrize("eval_only, expected", [(False, True), (True, False)])
def test_setup_sets_the_cudnn_benchmark_for_training_only(tmp_path, eval_only, expected):
    torch.backends.cudnn.benchmark = False
    cfg = golden_config(tmp_path, seed=1)
    cfg.train.cudnn_benchmark = True
    default_setup(cfg, argparse.Namespace(config_file="", eval_only=eval_only))
    assert torch.backends.cudnn.benchmark == expected


@pytest.mark.lite
def test_setup_sets_the_precision_of_float32(tmp_path):
    cfg = golden_config(tmp_path, seed=1)
    cfg.train.float32_precision = "medium"
    default_setup(cfg, ARGUMENTS)
    assert torch.get_float32_matmul_precision() == "medium"


def test_config_without_output_dir_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    default_setup(OmegaConf.create({"train": {"seed": 1}}), ARGUMENTS)
    assert os.listdir(tmp_path) == []


@pytest.mark.lite
def test_new_run_replaces_the_config_of_an_old_one(tmp_path):
    for seed in (1, 2):
        default_setup(golden_config(tmp_path, seed=seed), ARGUMENTS)
    assert sorted(os.listdir(tmp_path)) == ["config.yaml", "log.txt"]


def test_default_writers_make_the_folder_and_the_metrics_file(tmp_path):
    writers = default_writers(str(tmp_path / "new"), max_iter=3)
    names = [type(writer).__name__ for writer in writers]
    assert names == ["CommonMetricPrinter", "JSONWriter", "TensorboardXWriter"]
    assert os.listdir(tmp_path / "new") == ["metrics.json"]
    with EventStorage():
        for writer in writers:
            writer.close()


@pytest.mark.lite
def test_default_writers_leave_out_tensorboard_where_it_is_not_installed(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    writers = default_writers(str(tmp_path))
    assert len(writers) == 2
    assert [m for m in messages(caplog) if "tensorboard is not installed" in m]
    for writer in writers:
        writer.close()


def test_model_stays_as_it_is_in_a_single_process():
    model = OneLoss()
    assert create_ddp_model(model, fp16_compression=True, find_unused_parameters=True) is model
    assert create_ddp_model_of_defaults is create_ddp_model


@pytest.mark.lite
@pytest.mark.parametrize("name", ["DefaultTrainer", "DefaultPredictor", "PreciseBN"])
def test_names_that_are_left_out_are_explained(name):
    import detectron2.engine

    with pytest.raises(ImportError, match=f"{name} is not part of detectron2-lite"):
        getattr(detectron2.engine, name)


def test_names_are_importable_from_the_package():
    import detectron2.engine as engine

    assert inspect.ismodule(engine.hooks)
    assert engine.EvalHook is engine.hooks.EvalHook
    assert engine.HookBase is engine.train_loop.HookBase
