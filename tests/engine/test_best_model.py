"""The best model by evaluations, and the end of a training that gets no better."""

import json

import pytest
from omegaconf import OmegaConf
from torch import nn
from toy_runs import CONFIG, TINY, load_script, metrics, train_net

from mimdet.checkpoint.file import read_checkpoint
from mimdet.checkpoint.strict import StrictCheckpointer
from mimdet.engine.best_model import BestModel, EarlyStop, check_early_stop


class Trainer:
    """What a hook sees of its trainer."""

    start_iter, max_iter = 0, 100

    def __init__(self, start_iter=0):
        self.iter = self.start_iter = start_iter


@pytest.fixture
def checkpointer(tmp_path):
    return StrictCheckpointer(nn.Linear(1, 1), str(tmp_path))


def hook(checkpointer, patience=None, start_iter=0):
    made = BestModel(checkpointer, "bbox/AP", patience)
    made.trainer = Trainer(start_iter)
    made.before_train()
    return made


def evaluate(hook, iteration, value):
    hook.trainer.iter = iteration
    hook.see({"bbox": {"AP": value}})
    hook.after_step()


def best(tmp_path):
    return read_checkpoint(str(tmp_path / "model_best.pth"), "the test")["iteration"]


def test_the_best_model_is_kept_and_the_last_checkpoint_stays(checkpointer, tmp_path):
    tracked = hook(checkpointer)
    checkpointer.save("model_0000009", iteration=9)
    for iteration, value in ((9, float("nan")), (19, 3.0), (29, 5.0), (39, 5.0), (49, 4.0)):
        evaluate(tracked, iteration, value)
    assert best(tmp_path) == 29
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000009.pth"


def test_training_ends_after_as_many_evaluations_without_a_better_one(checkpointer, tmp_path):
    tracked = hook(checkpointer, patience=2)
    for iteration, value in ((9, 3.0), (19, 2.0), (29, 4.0), (39, 4.0)):
        evaluate(tracked, iteration, value)
    with pytest.raises(EarlyStop):
        evaluate(tracked, 49, 1.0)
    assert read_checkpoint(str(tmp_path / "model_final.pth"), "the test")["iteration"] == 49
    assert best(tmp_path) == 29


def test_a_resumed_run_knows_the_evaluations_before_it_and_not_those_after(checkpointer, tmp_path):
    lines = [{"iteration": k, "bbox/AP": v} for k, v in ((9, 3.0), (19, 1.0), (29, 9.0))]
    lines.append({"iteration": 25, "total_loss": 1.0})
    text = "\n".join(map(json.dumps, lines))
    (tmp_path / "metrics.json").write_text(text + '\n{"iterat')  # killed while it wrote
    tracked = hook(checkpointer, patience=3, start_iter=20)
    evaluate(tracked, 29, 2.0)
    assert not (tmp_path / "model_best.pth").exists()
    with pytest.raises(EarlyStop):
        evaluate(tracked, 39, 3.0)


def test_an_evaluation_without_the_metric_is_told(checkpointer, caplog):
    hook(checkpointer).see({"segm": {"AP": 1.0}})
    assert "the evaluation has no bbox/AP (train.best_metric)" in caplog.text


@pytest.mark.parametrize(
    "train, message",
    [
        ({"best_metric": "bbox/AP", "early_stop": {"patience": 0}}, "from 1, .*got 0"),
        ({"best_metric": "bbox/AP", "early_stop": {"patience": "many"}}, "got 'many'"),
        ({"early_stop": {"patience": 2}}, "needs the metric that is to get better"),
    ],
)
def test_a_patience_that_is_none_is_refused(train, message):
    with pytest.raises(ValueError, match=message):
        check_early_stop(OmegaConf.create({"train": train}))


def test_a_run_evaluates_with_all_tokens_keeps_its_best_model_and_ends_early(toy_root, tmp_path):
    words = [*TINY, f"toy.root={toy_root}", f"train.output_dir={tmp_path}", "train.max_iter=9"]
    words += ["train.eval_period=1", "train.best_metric=bbox/AP", "train.early_stop.patience=1"]
    train_net(*words, "train.eval_sample_ratio=1.0", "dataloader.test.num_workers=0")
    values = [m["bbox/AP"] for m in metrics(tmp_path) if "bbox/AP" in m]
    assert len(values) < 9
    assert best(tmp_path) == values.index(max(values))
    assert json.loads((tmp_path / "results.json").read_text())["protocol"]["sample_ratio"] == 1.0
    assert "sample_ratio: 0.5" in (tmp_path / "config.yaml").read_text()


def test_a_ratio_on_the_command_line_of_an_evaluation_comes_first():
    ratio = "model.backbone.bottom_up.sample_ratio=0.25"
    words = ["--config-file", CONFIG, "train.eval_sample_ratio=1.0", "train.init_checkpoint=a.pth"]
    parse = load_script("lazyconfig_train_net.py").parse_args
    for more, expected in (([], 1.0), ([ratio], None)):
        cfg = parse([*words, "--eval-only", *more]).config.unpack()
        assert cfg.train.eval_sample_ratio == expected
    assert parse([*words, ratio]).config.unpack().train.eval_sample_ratio == 1.0
