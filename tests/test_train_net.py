"""The training script: it learns, goes on where it was, evaluates, and reads its options."""

import json
import math
import signal
import sys
import time

import pytest
import torch
from toy_runs import CONFIG, RATIO, TINY, command, load_script, metrics, started, train_net

from detectron2.config import LazyConfig, instantiate


def iterations_of(lines: list[dict]) -> list[int]:
    return [line["iteration"] for line in lines if "total_loss" in line]


# --- Training -------------------------------------------------------------------------------------


def test_training_lowers_the_loss(trained):
    losses = [line["total_loss"] for line in metrics(trained) if "total_loss" in line]
    assert len(losses) == 40
    assert all(math.isfinite(loss) for loss in losses)
    # metrics are medians of up to 20 iterations: the first five against the last twenty
    assert losses[-1] < 0.7 * losses[4]


def test_training_leaves_checkpoint_config_log_metrics_and_results(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"config.yaml", "log.txt", "metrics.json", "results.json", "model_final.pth"} <= names
    assert {"run.json", "report.html", "report.json", "instances_truth.json"} <= names
    assert "kept_tokens_training.npz" in names
    assert (trained / "last_checkpoint").read_text() == "model_final.pth"
    assert not [name for name in names if ".tmp" in name]
    results = json.loads((trained / "results.json").read_text())
    assert results["bbox"]["AP"] > 0
    assert results["segm"]["AP"] > 0
    assert results["seconds_per_batch"] > 0
    assert "coco_instances_results.json" in names
    for line in (trained / "metrics.json").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # strict JSON has no NaN


def test_the_metrics_of_the_evaluation_are_on_the_line_of_their_iteration(trained):
    last = metrics(trained)[-1]
    assert last["iteration"] == 40
    assert last["bbox/AP"] == json.loads((trained / "results.json").read_text())["bbox"]["AP"]


def test_a_seed_gives_the_same_training_again(toy_root, tmp_path):
    losses = []
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        folders = (f"toy.root={toy_root}", f"train.output_dir={tmp_path / name}")
        train_net(*TINY, *folders, "train.max_iter=2", "train.eval_period=0", f"train.seed={seed}")
        losses.append([line.get("total_loss") for line in metrics(tmp_path / name)])
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_a_detector_checkpoint_starts_another_training_from_iteration_0(
    trained, toy_root, tmp_path
):
    folders = (f"toy.root={toy_root}", f"train.output_dir={tmp_path}")
    weights = f"train.init_checkpoint={trained / 'model_final.pth'}"
    train_net(*TINY, *folders, weights, "train.max_iter=1")
    (line,) = [line for line in metrics(tmp_path) if "total_loss" in line]
    assert line["iteration"] == 0
    assert line["total_loss"] < 0.8 * metrics(trained)[0]["total_loss"]


def wait_for(path, process, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def test_a_killed_training_goes_on_from_its_checkpoint(toy_root, tmp_path):
    output = tmp_path / "out"
    overrides = (*TINY, f"toy.root={toy_root}", f"train.output_dir={output}")
    overrides += ("train.max_iter=16", "train.checkpointer.period=4")
    with started(command(*overrides)) as process:
        wait_for(output / "last_checkpoint", process)
        process.kill()
    assert process.returncode == -signal.SIGKILL  # so it was not yet done
    before = metrics(output)
    name = (output / "last_checkpoint").read_text()
    first = torch.load(output / name, weights_only=True)["iteration"] + 1
    assert first in (4, 8, 12)

    train_net("--resume", *overrides)

    lines = metrics(output)[len(before) :]
    assert iterations_of(lines) == list(range(first, 16))
    assert f"Starting training from iteration {first}\n" in (output / "log.txt").read_text()
    assert torch.load(output / "model_final.pth", weights_only=True)["iteration"] == 15
    cfg = LazyConfig.load(str(output / "config.yaml"))
    schedule = instantiate(cfg.lr_multiplier)
    rates = {line["iteration"]: line["lr"] for line in lines if "lr" in line}
    expected = {i: cfg.optimizer.lr * schedule(i / 16) for i in range(first, 16)}
    assert rates == pytest.approx(expected)
    assert len(set(rates.values())) > 1


def test_resuming_a_complete_training_only_evaluates_it_again(toy_root, tmp_path):
    folders = (f"toy.root={toy_root}", f"train.output_dir={tmp_path}")
    train_net("--resume", *TINY, *folders, "train.max_iter=2")  # resume without a checkpoint: anew
    assert iterations_of(metrics(tmp_path)) == [0, 1]
    (tmp_path / "results.json").unlink()
    train_net("--resume", *TINY, *folders, "train.max_iter=2")
    assert iterations_of(metrics(tmp_path)) == [0, 1]
    assert (tmp_path / "results.json").exists()
    predictions = sorted(path.name for path in tmp_path.glob("coco_instances_results*"))
    assert predictions == ["coco_instances_results.1.json", "coco_instances_results.json"]


def test_a_second_training_in_a_folder_is_refused_and_changes_nothing(trained, toy_root, capsys):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    with pytest.raises(SystemExit) as caught:
        train_net(*TINY, f"toy.root={toy_root}", f"train.output_dir={trained}")
    assert caught.value.code == 2
    assert f"train.output_dir='{trained}' is used: an earlier" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_a_full_disk_ends_a_training_with_one_sentence(toy_root, tmp_path, monkeypatch, capsys):
    def full(content, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(SystemExit, match=r"model_final.pth cannot be written: No space left") as e:
        train_net(
            *TINY,
            *("train.max_iter=1", "train.eval_period=0"),
            *(f"toy.root={toy_root}", f"train.output_dir={tmp_path}"),
        )
    assert "\n" not in e.value.code
    assert "Traceback" not in "".join(capsys.readouterr())
    assert not [p.name for p in tmp_path.iterdir() if "pth" in p.name or p.name == "run.lock"]


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


# A config with a function of its own, which can be imported from nowhere.
OWN_CONFIG = """
from detectron2.config import LazyConfig
from detectron2.modeling.proposal_generator import StandardRPNHead

dataloader, lr_multiplier, model, optimizer, train, toy, mae_checkpoint = LazyConfig.load(
    {config!r},
    ("dataloader", "lr_multiplier", "model", "optimizer", "train", "toy", "mae_checkpoint"),
)

def make_head(**arguments):
    return StandardRPNHead(**arguments)

model.proposal_generator.head._target_ = make_head
with open({log!r}, "a") as file:
    file.write("executed\\n")
"""


# under torchrun nobody starts before the processes, so each reads the config
@pytest.mark.parametrize("starter, executions", [("--num-gpus", 1), ("torchrun", 2)])
def test_two_processes_train_and_evaluate_one_config(toy_root, tmp_path, starter, executions):
    output, config, log = (tmp_path / name for name in ("out", "own.py", "executions.txt"))
    config.write_text(OWN_CONFIG.format(config=CONFIG, log=str(log)))
    overrides = (*TINY, f"toy.root={toy_root}", f"train.output_dir={output}", "train.max_iter=2")
    if starter == "torchrun":
        arguments = [*TORCHRUN, *command(*overrides, config=config)[1:]]
    else:
        arguments = command("--num-gpus", "2", "--dist-url", "auto", *overrides, config=config)
    with started(arguments) as process:
        printed = process.communicate(timeout=200)[0]
    assert process.returncode == 0, printed
    assert "Rank of current process: 0. World size: 2" in (output / "log.txt").read_text()
    assert "Rank of current process: 1. World size: 2" in (output / "log.txt.rank1").read_text()
    assert iterations_of(metrics(output)) == [0, 1]
    assert torch.load(output / "model_final.pth", weights_only=True)["iteration"] == 1
    assert "bbox" in json.loads((output / "results.json").read_text())
    assert log.read_text().split() == ["executed"] * executions


# --- Evaluation -----------------------------------------------------------------------------------


@pytest.fixture
def evaluate(trained, toy_root, tmp_path):
    """Evaluate the trained model -> its results, without times, and its predictions."""

    def run(*overrides, name: str, config=CONFIG) -> tuple[dict, list[dict]]:
        output = tmp_path / name
        folders = [f"train.output_dir={output}", f"+dataloader.evaluator.output_dir={output}"]
        if config == CONFIG:
            weights = f"train.init_checkpoint={trained / 'model_final.pth'}"
            folders += [*TINY, f"toy.root={toy_root}", weights]
        train_net("--eval-only", *folders, *overrides, config=config)
        results = json.loads((output / "results.json").read_text())
        assert results.pop("seconds_per_batch") > 0
        protocol = results.pop("protocol")
        assert protocol["weights"]["file"].endswith("model_final.pth")
        assert protocol["weights"]["kind"] in ("ema", "raw")
        predictions = json.loads((output / "coco_instances_results.json").read_text())
        assert len(predictions) > 20
        return results, predictions

    return run


def test_evaluation_prints_the_table_and_writes_the_results(evaluate, capsys, tmp_path):
    results, _ = evaluate(f"{RATIO}=1.0", name="all")
    printed = capsys.readouterr().out
    for task in ("bbox", "segm"):
        assert {"AP", "AP50", "AP75", "APs", "APm", "APl", "AP-disk"} <= results[task].keys()
        assert 0 < results[task]["AP"] < 100
        assert f"copypaste: Task: {task}" in printed
        assert f"{results[task]['AP']:.4f},{results[task]['AP50']:.4f}," in printed
    assert "Evaluation samples" not in printed
    assert not list((tmp_path / "all").glob("model*.pth"))


def test_the_saved_config_gives_the_same_evaluation(evaluate, tmp_path):
    expected = evaluate(f"{RATIO}=1.0", name="first")
    assert evaluate(name="second", config=tmp_path / "first/config.yaml") == expected


def test_an_evaluation_that_samples_tokens_says_so_and_can_be_repeated(evaluate, capsys):
    first = evaluate(f"{RATIO}=0.5", "model.backbone.bottom_up.sample_seed=5", name="first")
    assert "Evaluation samples 0.5 of the tokens (seed 5)" in capsys.readouterr().out
    again = evaluate(f"{RATIO}=0.5", "model.backbone.bottom_up.sample_seed=5", name="again")
    other = evaluate(f"{RATIO}=0.5", "model.backbone.bottom_up.sample_seed=6", name="other")
    assert first == again
    assert first[1] != other[1]


def test_the_ap_of_a_training_with_ema_is_that_of_evaluating_its_file(
    trained, evaluate, toy_root, tmp_path
):
    output = tmp_path / "ema"
    folders = [f"toy.root={toy_root}", f"train.output_dir={output}"]
    weights = f"train.init_checkpoint={trained / 'model_final.pth'}"
    test = ["model.backbone.bottom_up.sample_seed=0"]
    test += ["+model.roi_heads.box_predictor.test_score_thresh=0.01"]
    change = ("train.ema.decay=0.5", "optimizer.lr=0.001", "train.max_iter=2")
    train_net(*TINY, *folders, weights, *change, *test)
    reported = json.loads((output / "results.json").read_text())
    weights = f"train.init_checkpoint={output / 'model_final.pth'}"
    averaged, predictions = evaluate(weights, *test, name="averaged")
    raw, raw_predictions = evaluate(weights, *test, "train.eval_weights=raw", name="raw")
    assert reported["protocol"]["weights"] == {"kind": "ema", "file": None, "iteration": 1}
    for task in ("bbox", "segm"):
        assert averaged[task] == reported[task]
        assert averaged[task]["AP"] > 0
    assert predictions != raw_predictions

    again = tmp_path / "again"
    folders[1] = f"train.output_dir={again}"
    train_net(*TINY, *folders, weights, "train.max_iter=1", "train.eval_period=0")
    said = f"The raw weights of {output / 'model_final.pth'} are taken, not their average (EMA)"
    assert said in (again / "log.txt").read_text()


def test_what_a_training_may_lack_an_evaluation_may_not(evaluate):
    allowed = "train.allow_missing=['*']"
    with pytest.raises(ValueError, match="an evaluation takes every weight from the file"):
        evaluate("model.roi_heads.num_classes=3", allowed, name="other")


def test_an_evaluation_without_an_evaluator_fails(tmp_path):
    overrides = [*TINY, "train.init_checkpoint=any.pth", f"train.output_dir={tmp_path}"]
    with pytest.raises(ValueError, match="an evaluation needs dataloader.evaluator, and this"):
        train_net("--eval-only", *overrides, "dataloader.evaluator=null")


def test_a_config_without_an_evaluator_evaluates_to_nothing():
    script = load_script("lazyconfig_train_net.py")
    cfg = LazyConfig.load(CONFIG)
    del cfg.dataloader.evaluator
    assert script.do_test(cfg, torch.nn.Identity()) == {}


# --- Options --------------------------------------------------------------------------------------


def parse(*argv: str):
    return load_script("lazyconfig_train_net.py").parse_args(["--config-file", CONFIG, *argv])


def error_of(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        parse(*argv)
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_without_options_one_process_trains_from_the_start():
    args = parse()
    assert (args.num_gpus, args.num_machines, args.machine_rank) == (1, 1, 0)
    assert not args.resume and not args.eval_only and args.opts == []


def test_node_rank_is_another_name_for_machine_rank():
    machines = ("--num-machines", "2", "--dist-url", "tcp://10.0.0.1:29500")
    assert parse(*machines, "--node_rank", "1").machine_rank == 1
    assert parse(*machines, "--machine-rank", "1").machine_rank == 1


def test_master_address_and_port_make_the_url():
    args = parse("--master_addr", "10.0.0.1", "--master_port", "29500")
    assert args.dist_url == "tcp://10.0.0.1:29500"
    assert parse("--dist-url", "auto").dist_url == "auto"


@pytest.mark.parametrize("half", [("--master_addr", "10.0.0.1"), ("--master_port", "29500")])
def test_master_address_and_port_come_together(capsys, half):
    message = "--master_addr and --master_port must be given together"
    assert error_of(capsys, *half).endswith(message)


def test_flags_are_taken_before_and_after_overrides():
    args = parse("train.max_iter=3", "--resume", "+train.note=mine", "--dist-url", "auto")
    assert args.resume and args.dist_url == "auto"
    assert args.opts == ["train.max_iter=3", "+train.note=mine"]


def config_of(*argv: str):
    return parse(*argv).config.unpack()


def test_overrides_change_the_config_and_create_keys_only_with_a_plus():
    cfg = config_of("train.max_iter=3", "+train.note=mine", "model.roi_heads.num_classes=7")
    assert (cfg.train.max_iter, cfg.train.note) == (3, "mine")
    assert cfg.model.roi_heads.num_classes == 7


def test_the_device_is_the_gpu_if_there_is_one():
    assert config_of().train.device == ("cuda" if torch.cuda.is_available() else "cpu")
