"""The benchmark command, on the quickest of its benchmarks."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "benchmarks.run", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def test_the_command_prints_a_table_and_writes_it_to_a_dated_file_with_the_command(tmp_path):
    options = ["--repeats", "1", "--only", "pooling"]
    done = run(*options, "--hardware", "cpu_here", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("speed_cpu_here_20") and path.suffix == ".md"
    report = path.read_text()
    assert "    python -m benchmarks.run " + " ".join(options) in report
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 2 and all(row in report for row in rows)
    assert str(REPOSITORY) not in report and str(tmp_path) not in report


def test_repeats_below_one_are_an_error():
    done = run("--repeats", "0")
    assert done.returncode == 2 and "--repeats must be at least 1, got 0" in done.stderr
