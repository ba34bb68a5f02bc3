"""The benchmark of MPViT's stages, on small images."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_the_direct_way_gives_the_same_and_checkpointing_keeps_less():
    code = "from benchmarks.mpvit_stages import measure; print(*measure(1, side=64), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    speed, memory = done.stdout.strip().splitlines()
    assert "direct / ours" in speed
    values = dict(part.split("=") for part in memory[4:-1].split(", ") if "=" in part)
    assert float(values["ours"]) < 0.5 * float(values["plain"])
