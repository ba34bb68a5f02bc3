"""Memory that is free inside of the heap goes back to the system."""

from pathlib import Path
from types import SimpleNamespace

import toy_runs

from mimdet.engine.memory import MemoryGivenBack


def resident_mib() -> float:
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in x)
    return int(line.split()[1]) / 1024


def test_memory_between_things_that_stay_is_given_back():
    # As in training on the CPU: what is large goes, and between it something small stays. Blocks of
    # 100 KB are below the size at which the C library asks the system for each.
    hook = MemoryGivenBack(period=20)
    blocks = [bytearray(b"x") * 100_000 for _ in range(2000)]
    staying = blocks[::20]
    del blocks
    before = resident_mib()
    hook.trainer = SimpleNamespace(iter=18)
    hook.after_step()
    assert resident_mib() > before - 20
    hook.trainer.iter = 19
    hook.after_step()
    assert resident_mib() < before - 120
    assert len(staying) == 100


def test_memory_is_given_back_after_each_evaluation_of_a_training(toy_root, tmp_path, monkeypatch):
    script = toy_runs.load_script("lazyconfig_train_net.py")
    evaluated = []
    do_test = script.do_test
    monkeypatch.setattr(script, "do_test", lambda *a: evaluated.append("test") or do_test(*a))
    monkeypatch.setattr(script, "give_back_memory", lambda: evaluated.append("given back"))
    overrides = (*toy_runs.TINY, f"toy.root={toy_root}", f"train.output_dir={tmp_path}")
    toy_runs.train_net(*overrides, "train.max_iter=2", "train.eval_period=1")
    assert evaluated == ["test", "given back"] * 2
