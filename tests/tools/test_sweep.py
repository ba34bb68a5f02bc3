"""A sweep of two learning rates; the trainings run in this process."""

import json
import signal
import sys

import pytest
from toy_runs import CONFIG, TINY, isolated, load_script

LR = "optimizer.lr=1e-3,1e-4"


class Trainings:
    """Runs the trainings of a sweep here; `fails` is the exit code of all that come, if not 0."""

    def __init__(self):
        self.started, self.fails = [], 0

    def __call__(self, command):
        assert command[1:4] == ["-m", "mimdet", "train"]
        self.started.append(command[4:])
        if not self.fails:
            train_net = load_script("lazyconfig_train_net.py")
            with isolated():
                train_net.main(train_net.parse_args(command[4:]))
        return self.fails


@pytest.fixture
def trained(monkeypatch):
    trainings = Trainings()
    monkeypatch.setattr(load_script("tools/sweep.py"), "_call", trainings)
    return trainings


def sweep(*arguments):
    load_script("tools/sweep.py").main([CONFIG, *map(str, arguments)])


def test_a_sweep_trains_compares_and_is_resumed(toy_root, tmp_path, trained, capsys):
    tiny = [text for text in TINY if "max_iter" not in text]
    command = [LR, *tiny, "train.max_iter=2", f"toy.root={toy_root}", "--output", tmp_path / "out"]
    trained.fails = 3
    with pytest.raises(SystemExit) as caught:
        sweep(*command)
    assert caught.value.code == 3
    assert "ended with exit code 3; the same command again" in capsys.readouterr().err

    trained.fails = 0
    sweep(*command)
    first, second = (tmp_path / "out" / name / "seed_0" for name in ("lr_1e-3", "lr_1e-4"))
    assert (first / "model_final.pth").is_file() and (second / "model_final.pth").is_file()
    assert len(trained.started) == 3
    data = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [model["name"] for model in data["models"]] == ["lr=1e-3", "lr=1e-4"]
    assert {"setting": "optimizer.lr", "values": [0.001, 0.0001]} in data["config"]

    out = capsys.readouterr().out
    assert out.splitlines()[-1] == str(tmp_path / "out" / "compare.html")

    with pytest.raises(SystemExit) as caught:
        sweep(*command, "optimizer.weight_decay=0.2")
    assert caught.value.code == 2
    assert "was trained with other settings (optimizer.weight_decay=0.2)" in capsys.readouterr().err

    (second / "results.json").unlink()  # as if it had been killed
    (second / "run.json").unlink()
    trained.fails = 4
    with pytest.raises(SystemExit):
        sweep(*command)
    assert f"[1/2] {first}: is finished" in capsys.readouterr().out
    assert len(trained.started) == 4
    assert {"--resume", f"train.output_dir={second}"} <= set(trained.started[-1])


def test_commands_are_printed_and_nothing_is_run(tmp_path, trained, capsys):
    sweep(LR, "--seeds", 2, "--print", "--data", "my data", "--epochs", 5, "--output", tmp_path)
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 4 and not trained.started and not list(tmp_path.iterdir())
    assert lines[1] == (
        f"mimdet train --config-file {CONFIG} --resume --data 'my data' --epochs 5 "
        f"optimizer.lr=1e-4 train.seed=0 train.output_dir={tmp_path}/lr_1e-4/seed_0"
    )
    assert printed.err.startswith(f"When all have run: mimdet compare {tmp_path}/lr_1e-3 ")


def test_a_sweep_of_no_seeds_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        sweep(LR, "--seeds", 0)
    assert caught.value.code == 2
    assert "--seeds must be at least 1, got 0" in capsys.readouterr().err


def test_a_notice_to_end_reaches_the_training():
    waits = "import os, signal; os.kill(os.getppid(), signal.SIGTERM); signal.pause()"
    before = signal.getsignal(signal.SIGTERM)
    assert load_script("tools/sweep.py")._call([sys.executable, "-c", waits]) == -signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_ctrl_c_waits_for_the_training():
    ends = "import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(0.5); exit(7)"
    before = signal.getsignal(signal.SIGINT)
    assert load_script("tools/sweep.py")._call([sys.executable, "-c", ends]) == 7
    assert signal.getsignal(signal.SIGINT) == before
