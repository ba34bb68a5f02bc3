"""The command that writes weights without optimiser."""

import pytest
import torch
from pretraining_models import tiny_mae
from toy_runs import load_script

main = load_script("tools/export_checkpoint.py").main


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "model_final.pth"
    trainer = {"optimizer": {"state": torch.zeros(5)}}
    torch.save({"model": tiny_mae().state_dict(), "trainer": trainer}, path)
    return path


def test_both_files_are_written_without_optimiser(checkpoint, tmp_path, capsys):
    full, encoder = tmp_path / "full.pth", tmp_path / "encoder.pth"
    main([str(checkpoint), "--full", str(full), "--encoder", str(encoder)])
    contents = [torch.load(path, weights_only=True) for path in (full, encoder)]
    assert [list(content) for content in contents] == [["model"], ["model"]]
    counts = [len(content["model"]) for content in contents]
    assert counts[1] < counts[0] == len(tiny_mae().state_dict())
    assert capsys.readouterr().out == (
        f"{full}: {counts[0]} tensors\n{encoder}: {counts[1]} tensors\n"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("encoder.pth", "full.pth", "model_final.pth")
    ]


@pytest.mark.parametrize(
    "options, kind, value",
    [
        ((), "averaged (EMA)", 2.0),
        (("--weights", "ema"), "averaged (EMA)", 2.0),
        (("--ema",), "averaged (EMA)", 2.0),
        (("--weights", "raw"), "raw", 1.0),
    ],
)
def test_the_average_is_exported_where_there_is_one_unless_the_raw_weights_are_chosen(
    tmp_path, capsys, options, kind, value
):
    path, full = tmp_path / "model_final.pth", tmp_path / "full.pth"
    raw = {name: torch.full_like(v, 1.0) for name, v in tiny_mae().state_dict().items()}
    average = {name: torch.full_like(v, 2.0) for name, v in raw.items()}
    torch.save({"model": raw, "trainer": {"hooks": {"EMA": average}}}, path)
    main([str(path), "--full", str(full), *options])
    assert capsys.readouterr().err == f"the {kind} weights of {path}\n"
    weights = torch.load(full, weights_only=True)["model"]
    assert weights.keys() == raw.keys()
    assert {v.flatten()[0].item() for v in weights.values()} == {value}


def error_of(capsys, *argv) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in argv])
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_command_that_would_write_nothing_is_refused(checkpoint, capsys):
    assert "nothing to write: give --full FILE" in error_of(capsys, checkpoint)


def test_a_missing_file_is_refused(tmp_path, capsys):
    path = tmp_path / "none.pth"
    assert f"there is no checkpoint {path}" in error_of(
        capsys, path, "--full", tmp_path / "full.pth"
    )


def test_a_file_that_is_no_checkpoint_is_refused_and_nothing_is_written(tmp_path, capsys):
    path, full = tmp_path / "model_final.pth", tmp_path / "full.pth"
    path.write_bytes(b"no checkpoint")
    assert "must be a torch checkpoint of tensors" in error_of(capsys, path, "--full", full)
    torch.save(torch.zeros(2), path)
    assert "a checkpoint must be a dict, got Tensor" in error_of(capsys, path, "--full", full)
    assert not full.exists()


def test_averaged_weights_must_be_there(checkpoint, tmp_path, capsys):
    message = error_of(capsys, checkpoint, "--ema", "--full", tmp_path / "full.pth")
    assert "the run had no train.ema.decay" in message
