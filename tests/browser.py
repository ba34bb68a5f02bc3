"""A page as a browser shows it: what it says on its console, and what is drawn at which size."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")

# Shows the page in frames of several widths, looks at what is in them, and writes what it finds.
_LOOK = """<!doctype html><body><script>
const widths = WIDTHS, found = {};
async function look(frame) {
  const page = frame.contentDocument, box = element => element.getBoundingClientRect();
  const images = [...page.querySelectorAll("img")].map(i => i.src);
  images.push(...[...page.querySelectorAll("image")].map(i => i.getAttribute("href")));
  const broken = [];
  for (const source of images) {
    const image = new Image();
    const is_there = new Promise(done => {
      image.onload = () => done(true);
      image.onerror = () => done(false);
    });
    image.src = source;
    if (!await is_there) broken.push(source.slice(0, 60));
  }
  const texts = [...page.querySelectorAll("svg text")].map(t => box(t).height);
  const empty = [...page.querySelectorAll("svg, img")].filter(e => !box(e).width || !box(e).height);
  return {
    overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    pictures: images.length, broken: broken, charts: page.querySelectorAll("svg.chart").length,
    smallest_text: Math.min(...texts), empty: empty.length, title: page.title,
  };
}
async function main() {
  for (const width of widths) {
    const frame = document.createElement("iframe");
    frame.style = `width:${width}px;height:900px;border:0`;
    frame.src = "PAGE";
    await new Promise(done => { frame.onload = done; document.body.append(frame); });
    found[width] = await look(frame);
  }
  document.body.textContent = "FOUND" + JSON.stringify(found) + "END";
}
main();
</script></body>"""


def chromium() -> str:
    """The browser; the test fails where there is none, and says what to install."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail("the tests of reports need a browser: apt-get install chromium")
    return found


def _start(folder: Path, *words: str) -> subprocess.CompletedProcess:
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files")
    profile = f"--user-data-dir={folder / 'profile'}"
    return subprocess.run(
        [chromium(), *options, profile, "--enable-logging=stderr", *words],
        capture_output=True,
        text=True,
        timeout=120,
    )


def look_at(page: Path, folder: Path, *widths: int) -> tuple[dict[str, dict], list[str]]:
    """What is drawn at each width in pixels, and the lines that came on the console."""
    looker = folder / "look.html"
    text = _LOOK.replace("WIDTHS", json.dumps(widths)).replace("PAGE", page.as_uri())
    looker.write_text(text)
    done = _start(folder, "--virtual-time-budget=20000", "--dump-dom", looker.as_uri())
    found = re.search(r"FOUND(.*)END", done.stdout)
    assert found, done.stdout[-500:] + done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(found[1]), console
