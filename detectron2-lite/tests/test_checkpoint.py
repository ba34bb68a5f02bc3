"""Saving, loading and matching of checkpoints, and what is refused."""

import argparse
import logging
import os
import pickle

import golden_data
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from log_records import captured, messages
from torch import nn

from detectron2.checkpoint import Checkpointer, DetectionCheckpointer, PeriodicCheckpointer

_, GOLDEN = golden_data.load("engine")
FVCORE = "fvcore.common.checkpoint"


class _Model(nn.Module):
    """The model of the stored training."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.bn = nn.BatchNorm1d(3)


class _Counter:
    """A checkpointable with one number."""

    def __init__(self, value: int = 0):
        self.value = value

    def state_dict(self) -> dict:
        return {"value": self.value}

    def load_state_dict(self, state: dict) -> None:
        self.value = state["value"]


class _Execute:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def filled_state() -> dict[str, torch.Tensor]:
    return golden_data.fill(_Model()).state_dict()


def assert_same_state(actual: dict, expected: dict) -> None:
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def save_file(path, content) -> str:
    torch.save(content, path)
    return str(path)


def pickle_file(path, content, protocol: int = pickle.DEFAULT_PROTOCOL) -> str:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return str(path)


def tree(value):
    """A checkpoint in the notation of the stored file."""
    if isinstance(value, torch.Tensor):
        return f"Tensor{list(value.shape)} {str(value.dtype).removeprefix('torch.')}".replace(
            ", ", ","
        )
    if isinstance(value, dict):
        return {key: tree(item) for key, item in value.items()}
    return value


def test_checkpointer_is_that_of_fvcore():
    assert issubclass(DetectionCheckpointer, Checkpointer)


def test_a_saved_file_has_the_stored_layout(tmp_path):
    checkpointer = DetectionCheckpointer(_Model(), str(tmp_path), trainer=_Counter(6))
    checkpointer.save("model_final", iteration=6)
    assert (tmp_path / "last_checkpoint").read_bytes() == GOLDEN["last_checkpoint"].encode()
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert list(saved) == GOLDEN["checkpoint_SimpleTrainer_top_level_order"]
    assert tree(saved["model"]) == GOLDEN["checkpoint_SimpleTrainer"]["model"]
    types = GOLDEN["checkpoint_periodic_top_level"]
    assert type(saved["model"]).__name__ == types["model"]
    assert type(saved["trainer"]).__name__ == types["trainer"]


def test_what_was_saved_is_loaded(tmp_path):
    first = golden_data.fill(_Model())
    DetectionCheckpointer(first, str(tmp_path), trainer=_Counter(6)).save("model", foo="bar")
    second, counter = _Model(), _Counter()
    checkpointer = DetectionCheckpointer(second, str(tmp_path), trainer=counter)
    rest = checkpointer.load(str(tmp_path / "model.pth"))
    assert_same_state(second.state_dict(), first.state_dict())
    assert counter.value == 6
    assert rest == {"foo": "bar"}


def test_resume_takes_the_tagged_file_and_the_trainer(tmp_path):
    first = golden_data.fill(_Model())
    saver = DetectionCheckpointer(first, str(tmp_path), trainer=_Counter(6))
    saver.save("model_final", iteration=6)
    second, counter = _Model(), _Counter()
    checkpointer = DetectionCheckpointer(second, str(tmp_path), trainer=counter)
    stored = GOLDEN["resume"]
    assert checkpointer.has_checkpoint() == stored["has_checkpoint"]
    assert checkpointer.get_checkpoint_file() == str(tmp_path / stored["checkpoint_file"])
    rest = checkpointer.resume_or_load("", resume=True)
    assert list(rest) == stored["returned_keys"]
    assert rest["iteration"] == counter.value == stored["trainer_iter_after_load"]
    assert_same_state(second.state_dict(), first.state_dict())


def test_without_resume_only_the_weights_are_loaded(tmp_path):
    saver = DetectionCheckpointer(golden_data.fill(_Model()), str(tmp_path), trainer=_Counter(6))
    saver.save("model")
    model, counter = _Model(), _Counter()
    checkpointer = DetectionCheckpointer(model, str(tmp_path), trainer=counter)
    rest = checkpointer.resume_or_load(str(tmp_path / "model.pth"), resume=False)
    assert_same_state(model.state_dict(), filled_state())
    assert counter.value == 0
    assert list(rest) == ["trainer"]


def test_a_folder_of_checkpoints_can_be_moved(tmp_path):
    DetectionCheckpointer(_Model(), str(tmp_path)).save("model")
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("model.pth", "last_checkpoint"):
        (tmp_path / name).rename(moved / name)
    checkpointer = DetectionCheckpointer(_Model(), str(moved))
    assert checkpointer.get_checkpoint_file() == str(moved / "model.pth")


def test_a_bare_state_dict_is_loaded(tmp_path):
    model = _Model()
    path = save_file(tmp_path / "bare.pth", filled_state())
    rest = DetectionCheckpointer(model).load(path)
    assert list(rest) == GOLDEN["load_bare_state_dict_returns"]
    assert_same_state(model.state_dict(), filled_state())


def test_entries_that_do_not_fit_are_skipped_with_warnings(tmp_path):
    state = filled_state()
    del state["fc.bias"]
    state["extra.weight"] = torch.zeros(1)
    state["bn.weight"] = torch.zeros(7)
    path = save_file(tmp_path / "misfit.pth", {"model": state, "foo": 1})
    model = _Model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with captured(FVCORE) as records:
        rest = DetectionCheckpointer(model).load(path)
    stored = GOLDEN["load_with_mismatch"]
    assert list(rest) == stored["returned_keys"]
    after = model.state_dict()
    assert torch.equal(after["bn.weight"], before["bn.weight"])
    assert torch.equal(after["fc.bias"], before["fc.bias"])
    assert torch.equal(after["fc.weight"], filled_state()["fc.weight"])
    warnings = [record for record in records if record.levelno >= logging.WARNING]
    assert {(r.name, r.levelname) for r in warnings} == set(
        map(tuple, stored["loggers_and_levels"])
    )
    text = messages(warnings)
    assert "Skip loading parameter 'bn.weight' to the model due to incompatible shapes" in text
    assert "(7,) in the checkpoint but (3,) in the model!" in text
    assert "Some model parameters or buffers are not found in the checkpoint:" in text
    assert "fc.bias" in text
    assert "The checkpoint state_dict contains keys that are not used by the model:" in text
    assert "extra.weight" in text


def test_constants_of_detectors_are_not_reported(tmp_path):
    model = nn.Linear(1, 1)
    model.register_buffer("pixel_mean", torch.zeros(3))
    model.register_buffer("pixel_std", torch.zeros(3))
    state = nn.Linear(1, 1).state_dict()
    state["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    path = save_file(tmp_path / "old.pth", state)
    with captured(FVCORE) as records:
        DetectionCheckpointer(model).load(path)
    assert [record for record in records if record.levelno >= logging.WARNING] == []


def test_the_prefix_of_data_parallel_training_is_removed(tmp_path):
    state = {f"module.{name}": value for name, value in filled_state().items()}
    model = _Model()
    DetectionCheckpointer(model).load(save_file(tmp_path / "ddp.pth", state))
    assert_same_state(model.state_dict(), filled_state())


def test_the_wrapper_of_data_parallel_training_is_not_saved(tmp_path):
    DetectionCheckpointer(nn.DataParallel(_Model()), str(tmp_path)).save("model")
    saved = torch.load(tmp_path / "model.pth", weights_only=True)
    assert list(saved["model"]) == list(filled_state())


@pytest.mark.parametrize("path", ["", None])
def test_no_path_loads_nothing(path):
    with captured(FVCORE) as records:
        assert DetectionCheckpointer(_Model()).load(path) == {}
    assert "No checkpoint found. Initializing model from scratch" in messages(records)


def test_loading_is_announced_with_the_path(tmp_path):
    path = save_file(tmp_path / "bare.pth", filled_state())
    with captured(FVCORE, "detectron2") as records:
        DetectionCheckpointer(_Model()).load(path)
    assert f"[DetectionCheckpointer] Loading from {path} ..." in messages(records)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(AssertionError, match="Checkpoint .*nothing.pth not found!"):
        DetectionCheckpointer(_Model()).load(str(tmp_path / "nothing.pth"))


def test_nothing_is_saved_without_a_folder_or_by_other_ranks(tmp_path):
    DetectionCheckpointer(_Model()).save("model")
    DetectionCheckpointer(_Model(), str(tmp_path), save_to_disk=False).save("model")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_name_with_a_folder_is_refused(tmp_path):
    with pytest.raises(AssertionError, match="best/model"):
        DetectionCheckpointer(_Model(), str(tmp_path)).save("best/model")


# ---- file types ------------------------------------------------------------------------------


def numpy_state() -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in filled_state().items()}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_of_arrays_is_loaded(tmp_path, protocol):
    content = {"model": numpy_state(), "__author__": "somebody", "count": np.float64(3)}
    model = _Model()
    path = pickle_file(tmp_path / "model.pkl", content, protocol)
    rest = DetectionCheckpointer(model).load(path)
    assert_same_state(model.state_dict(), filled_state())
    assert rest["__author__"] == "somebody"
    assert rest["count"] == 3


@pytest.mark.lite
def test_a_torch_file_may_hold_arrays_and_numpy_scalars(tmp_path):
    content = {"model": numpy_state(), "best": np.float64(0.5), "epoch": np.int64(3)}
    model = _Model()
    rest = DetectionCheckpointer(model).load(save_file(tmp_path / "model.pth", content))
    assert_same_state(model.state_dict(), filled_state())
    assert rest == {"best": 0.5, "epoch": 3}


def test_any_other_suffix_is_a_torch_file(tmp_path):
    model = _Model()
    DetectionCheckpointer(model).load(save_file(tmp_path / "model.bin", filled_state()))
    assert_same_state(model.state_dict(), filled_state())


def test_a_pycls_file_is_matched_by_heuristics(tmp_path):
    path = save_file(tmp_path / "model.pyth", {"model_state": filled_state(), "epoch": 3})
    model = nn.ModuleDict({"backbone": _Model()})
    DetectionCheckpointer(model).load(path)
    assert_same_state(model["backbone"].state_dict(), filled_state())


@pytest.mark.lite
@pytest.mark.parametrize("content", [{"blobs": {"conv1_w": np.zeros(1)}}, {"w": np.zeros(1)}])
def test_a_caffe2_pickle_is_refused_with_the_reason(tmp_path, content):
    path = pickle_file(tmp_path / "caffe.pkl", content)
    with pytest.raises(ValueError, match=r"caffe\.pkl has no 'model': .* Caffe2 checkpoint"):
        DetectionCheckpointer(_Model()).load(path)


def test_values_must_be_tensors_or_arrays(tmp_path):
    path = save_file(tmp_path / "other.pth", {"model": {"fc.bias": 1.0}})
    with pytest.raises(ValueError, match="fc.bias"):
        DetectionCheckpointer(_Model()).load(path)


# ---- safety ----------------------------------------------------------------------------------


@pytest.mark.lite
@pytest.mark.parametrize("name", ["evil.pth", "evil.pkl"])
@pytest.mark.parametrize("call", [(os.getenv, "HOME"), (os.system, "touch {}"), (eval, "1")])
def test_code_in_a_file_is_refused_by_name(tmp_path, name, call):
    function, argument = call
    touched = tmp_path / "touched"
    content = {"model": numpy_state(), "args": _Execute(function, argument.format(touched))}
    write = pickle_file if name.endswith(".pkl") else save_file
    path = write(tmp_path / name, content)
    with pytest.raises(pickle.UnpicklingError, match=rf"\b{function.__name__}\b"):
        DetectionCheckpointer(_Model()).load(path)
    assert not touched.exists()


@pytest.mark.lite
@pytest.mark.parametrize("legacy", [False, True])
def test_a_type_of_another_library_is_refused_by_name(tmp_path, legacy):
    path = tmp_path / "args.pth"
    content = {"model": filled_state(), "args": argparse.Namespace(lr=1.0)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(pickle.UnpicklingError, match=r"argparse\.Namespace"):
        DetectionCheckpointer(_Model()).load(str(path))


# ---- matching heuristics ---------------------------------------------------------------------


class _Detector(nn.Module):
    """A model whose backbone is a sequence."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, 3))
        self.head = nn.Conv2d(1, 1, 1)


@pytest.mark.lite
def test_entries_match_model_entries_that_end_with_their_name(tmp_path):
    state = golden_data.fill(nn.Sequential(nn.Linear(2, 3))).state_dict()
    path = save_file(tmp_path / "backbone.pth", state)
    model = _Detector()
    with captured(FVCORE, "detectron2") as records:
        DetectionCheckpointer(model).load(path + "?matching_heuristics=True")
    assert_same_state(model.backbone.state_dict(), state)
    text = messages(records)
    assert "Following weights matched with submodule backbone.0 - Total num: 2" in text
    assert "head" in text


def test_without_heuristics_names_must_be_equal(tmp_path):
    path = save_file(tmp_path / "backbone.pth", nn.Sequential(nn.Linear(2, 3)).state_dict())
    for query in ("", "?matching_heuristics=False"):
        model = _Detector()
        before = model.backbone[0].weight.clone()
        DetectionCheckpointer(model).load(path + query)
        assert torch.equal(model.backbone[0].weight, before)


def test_the_longest_match_wins(tmp_path):
    state = {"weight": torch.zeros(3, 2), "0.weight": torch.ones(3, 2)}
    model = nn.ModuleDict({"backbone": nn.Sequential(nn.Linear(2, 3))})
    path = save_file(tmp_path / "both.pth", state)
    DetectionCheckpointer(model).load(path + "?matching_heuristics=True")
    assert torch.equal(model["backbone"][0].weight, torch.ones(3, 2))


def test_a_name_matches_only_at_a_dot(tmp_path):
    path = save_file(tmp_path / "part.pth", {"ight": torch.ones(3, 2), "bias": torch.ones(3)})
    model = nn.ModuleDict({"fc": nn.Linear(2, 3)})
    before = model["fc"].weight.clone()
    DetectionCheckpointer(model).load(path + "?matching_heuristics=True")
    assert torch.equal(model["fc"].weight, before)
    assert torch.equal(model["fc"].bias, torch.ones(3))


@pytest.mark.lite
def test_an_ambiguous_match_is_refused(tmp_path):
    path = save_file(tmp_path / "one.pth", {"weight": torch.zeros(3, 3)})
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    with pytest.raises(ValueError, match=r"(?i)ambiguous"):
        DetectionCheckpointer(model).load(path + "?matching_heuristics=True")


def test_a_match_of_another_shape_is_not_loaded(tmp_path):
    state = {"weight": torch.zeros(9, 9), "bias": torch.ones(3)}
    path = save_file(tmp_path / "shape.pth", state)
    model = nn.ModuleDict({"fc": nn.Linear(2, 3)})
    before = model["fc"].weight.clone()
    with captured(FVCORE, "detectron2") as records:
        DetectionCheckpointer(model).load(path + "?matching_heuristics=True")
    assert torch.equal(model["fc"].weight, before)
    assert torch.equal(model["fc"].bias, torch.ones(3))
    warnings = messages([r for r in records if r.levelno == logging.WARNING])
    assert "Shape of weight in checkpoint is" in warnings
    assert "not used by the model" in warnings


def test_no_match_at_all_is_a_warning(tmp_path):
    path = save_file(tmp_path / "none.pth", {"x": torch.zeros(1)})
    with captured("detectron2") as records:
        DetectionCheckpointer(_Model()).load(path + "?matching_heuristics=True")
    assert "WARNING" in [record.levelname for record in records]


@pytest.mark.parametrize(
    "query", ["strict=True", "matching_heuristics=True&strict=True", "heuristics"]
)
def test_an_unknown_query_is_refused(tmp_path, query):
    path = save_file(tmp_path / "model.pth", filled_state())
    if query == "heuristics":
        pytest.importorskip("detectron2._missing", reason="upstream drops keys without a value")
    with pytest.raises(ValueError, match=query.rpartition("&")[2].partition("=")[0]):
        DetectionCheckpointer(_Model()).load(f"{path}?{query}")


# ---- several processes -----------------------------------------------------------------------


def _load_what_only_rank_0_sees(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.manual_seed(rank)
    model = nn.parallel.DistributedDataParallel(_Model())
    checkpointer = DetectionCheckpointer(model, folder)
    assert checkpointer.save_to_disk == (rank == 0)
    is_file = os.path.isfile
    if rank == 1:
        os.path.isfile = lambda path: not str(path).endswith(".pth") and is_file(path)
    with captured(FVCORE) as records:
        checkpointer.load(f"{folder}/model.pth")
    assert "Ranks [1] cannot read checkpoint" in messages(records)
    assert_same_state(model.module.state_dict(), filled_state())
    os.path.isfile = is_file
    with pytest.raises(OSError, match="rank 0 must see the checkpoint"):
        checkpointer.load(f"{folder}/nothing.pth")
    dist.destroy_process_group()


@pytest.mark.lite
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12; no threads here
def test_a_rank_that_cannot_see_the_file_gets_the_weights_of_rank_0(tmp_path):
    save_file(tmp_path / "model.pth", {"model": filled_state()})
    mp.start_processes(_load_what_only_rank_0_sees, (str(tmp_path),), nprocs=2, start_method="fork")


# ---- PeriodicCheckpointer --------------------------------------------------------------------


def files(folder) -> list[str]:
    return sorted(path.name for path in folder.glob("*.pth"))


def test_periodic_checkpoints_are_named_by_the_iteration_that_is_done(tmp_path):
    checkpointer = DetectionCheckpointer(_Model(), str(tmp_path))
    periodic = PeriodicCheckpointer(checkpointer, period=3, max_iter=7)
    for iteration in range(7):
        periodic.step(iteration, foo=iteration)
    assert files(tmp_path) == ["model_0000002.pth", "model_0000005.pth", "model_final.pth"]
    saved = torch.load(tmp_path / "model_0000002.pth", weights_only=True)
    assert list(saved) == ["model", "iteration", "foo"]
    assert (saved["iteration"], saved["foo"]) == (2, 2)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_the_last_iteration_may_write_two_checkpoints(tmp_path):
    checkpointer = DetectionCheckpointer(_Model(), str(tmp_path))
    PeriodicCheckpointer(checkpointer, period=2, max_iter=2).step(1)
    assert files(tmp_path) == ["model_0000001.pth", "model_final.pth"]


def test_old_checkpoints_are_deleted_but_never_the_final_one(tmp_path):
    checkpointer = DetectionCheckpointer(_Model(), str(tmp_path))
    periodic = PeriodicCheckpointer(
        checkpointer, period=1, max_iter=3, max_to_keep=2, file_prefix="net"
    )
    for iteration in range(5):
        periodic.step(iteration)
    assert files(tmp_path) == ["net_0000003.pth", "net_0000004.pth", "net_final.pth"]


def test_save_works_outside_of_the_schedule(tmp_path):
    checkpointer = DetectionCheckpointer(_Model(), str(tmp_path))
    PeriodicCheckpointer(checkpointer, period=5).save("now", foo=1)
    assert files(tmp_path) == ["now.pth"]


@pytest.mark.lite
def test_a_new_training_deletes_nothing_of_a_longer_one_before(tmp_path):
    for name in ("model_0000009.pth", "model_final.pth", "model_best.pth", "other_0000000.pth"):
        (tmp_path / name).touch()
    checkpointer = DetectionCheckpointer(_Model(), str(tmp_path))
    periodic = PeriodicCheckpointer(checkpointer, period=1, max_to_keep=1)
    for iteration in range(3):
        periodic.step(iteration)
    assert files(tmp_path) == [
        "model_0000002.pth",
        "model_0000009.pth",
        "model_best.pth",
        "model_final.pth",
        "other_0000000.pth",
    ]


@pytest.mark.lite
def test_a_new_training_deletes_nothing_of_a_shorter_one_before(tmp_path):
    checkpointer = DetectionCheckpointer(_Model(), str(tmp_path))
    earlier = PeriodicCheckpointer(checkpointer, period=2, max_to_keep=9)
    for iteration in range(4):
        earlier.step(iteration)
    periodic = PeriodicCheckpointer(checkpointer, period=3, max_to_keep=1)
    for iteration in range(9):
        periodic.step(iteration)
    assert files(tmp_path) == [
        "model_0000001.pth",
        "model_0000003.pth",
        "model_0000008.pth",
    ]
