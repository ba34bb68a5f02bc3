import os
import random
import re
import runpy
import sys

import numpy as np
import pytest
import torch

import detectron2
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.file_io import PathManager
from detectron2.utils.memory import retry_if_cuda_oom


@pytest.fixture(autouse=True)
def hash_seed(monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "0")


def draws() -> tuple:
    return np.random.rand(), torch.rand(()).item(), random.random()


def test_the_same_seed_gives_the_same_numbers_everywhere():
    seed_all_rng(7)
    first = draws()
    seed_all_rng(7)
    assert draws() == first
    assert os.environ["PYTHONHASHSEED"] == "7"


def test_a_drawn_seed_is_logged(caplog):
    with caplog.at_level("INFO", "detectron2.utils.env"):
        seed_all_rng()
    assert re.search(r"Using a generated random seed \d+", caplog.text)


@pytest.mark.lite
def test_the_seed_in_use_is_returned():
    assert seed_all_rng(3) == 3
    assert seed_all_rng() == int(os.environ["PYTHONHASHSEED"])


@pytest.mark.lite
@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match=rf"seed must be in \[0, 4294967295\], got {seed}"):
        seed_all_rng(seed)


# ----------------------------------------------------------------------------- memory


class Scripted:
    """Runs out of memory for the first `failures` calls, then returns where it was called."""

    def __init__(self, failures: int):
        self.failures, self.calls = failures, 0

    def __call__(self, x, scale=1):
        self.calls += 1
        if self.calls <= self.failures:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return x * scale


class OnDevice:
    """Stands for a tensor on the GPU."""

    device = torch.device("cuda", 0)

    def to(self, device):
        assert torch.device(device).type == "cpu"
        return 5


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_full_gpu_is_answered_by_two_retries(failures):
    func = Scripted(failures)
    result = retry_if_cuda_oom(func)(torch.tensor(3), scale=2)
    assert result == 6 and func.calls == failures + 1


def test_the_last_retry_moves_arguments_to_the_cpu():
    assert retry_if_cuda_oom(Scripted(2))(OnDevice()) == 5


@pytest.mark.lite
def test_falling_back_to_the_cpu_is_a_warning(caplog):
    retry_if_cuda_oom(Scripted(2))(torch.tensor(3))
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "CPU" in record.message


def test_out_of_memory_on_the_cpu_and_other_errors_are_passed_on():
    with pytest.raises(RuntimeError, match="out of memory"):
        retry_if_cuda_oom(Scripted(3))(torch.tensor(3))

    def fail():
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        retry_if_cuda_oom(fail)()


# ----------------------------------------------------------------------------- files


def test_the_path_manager_reads_local_files(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    with PathManager.open(str(tmp_path / "a.txt")) as file:
        assert file.read() == "hello"


def test_detectron2_names_mean_files_of_the_download_server(monkeypatch, tmp_path):
    from iopath.common.file_io import HTTPURLHandler

    (tmp_path / "a.txt").write_text("hello")
    asked = []

    def download(self, path, force=False, **kwargs):
        asked.append(path)
        return str(tmp_path / "a.txt")

    monkeypatch.setattr(HTTPURLHandler, "_get_local_path", download)
    with PathManager.open("detectron2://models/a.txt") as file:
        assert file.read() == "hello"
    assert PathManager.get_local_path("detectron2://a.txt") == str(tmp_path / "a.txt")
    server = "https://dl.fbaipublicfiles.com/detectron2"
    assert asked == [f"{server}/models/a.txt", f"{server}/a.txt"]


@pytest.mark.lite
def test_an_interrupted_atomic_write_leaves_the_old_file(tmp_path):
    from detectron2.utils.file_io import atomic_write

    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    with atomic_write(path) as file:
        file.write("new")
    with atomic_write(tmp_path / "b", "wb") as file:
        file.write(b"\x00")
    assert path.read_text() == "new" and (tmp_path / "b").read_bytes() == b"\x00"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b"]


# ----------------------------------------------------------------------------- environment


def test_the_environment_names_versions_and_the_build_of_torch():
    text = collect_env_info()
    for word in ["sys.platform", "numpy", "PyTorch", "GPU available", "fvcore", "iopath"]:
        assert word in text
    assert detectron2.__version__ in text and torch.__config__.show() in text


@pytest.mark.lite
def test_the_environment_tells_lite_from_upstream():
    assert "detectron2-lite, no compiled ops" in collect_env_info()
    assert detectron2.__version__.startswith("0.6+lite.")


def test_the_environment_is_what_the_module_prints_when_run(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "detectron2.utils.collect_env")
    runpy.run_module("detectron2.utils.collect_env", run_name="__main__")
    assert "sys.platform" in capsys.readouterr().out
