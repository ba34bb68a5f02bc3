"""The memory plan: less is kept with checkpointing, and more with each image."""

import re

from toy_runs import CONFIG, load_script

from mimdet.config import load_config
from mimdet.engine.kept_memory import kept_bytes

tool = load_script("tools/plan_memory.py")


def test_each_image_more_keeps_as_much_as_the_one_before():
    model = load_config(CONFIG, []).model  # besides, the weights are kept once, in bfloat16
    one, two, three = (sum(kept_bytes(model, batch, (128, 128))) for batch in (1, 2, 3))
    assert two - one > 1e6 and abs((three - two) - (two - one)) < 0.01 * (two - one)


def test_a_row_says_what_is_kept_with_and_without_checkpointing(capsys):
    tool.main([str(CONFIG), "--size", "256", "256", "--batch", "16"])
    row = capsys.readouterr().out.splitlines()[-1]
    off, on, heads = map(float, re.findall(r"([\d.]+) GiB", row))
    assert row.startswith("| mimdet_mask_rcnn_fpn_sr_0p5_toy | 0.5 | 16 | 256x256 |")
    assert on < 0.7 * off and heads > 0
