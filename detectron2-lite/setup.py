"""Builds detectron2-lite, of which pyproject.toml says everything, unless upstream is installed."""

import site
import sys
from importlib.metadata import distributions
from pathlib import Path

from setuptools import setup


def _refuse_beside_another_detectron2() -> None:
    # pip builds by the interpreter of the environment that it installs into, but hides that
    # environment's packages from sys.path. `site` still knows their folders.
    folders = site.getsitepackages()
    if sys.prefix == sys.base_prefix:  # a virtual environment does not see the user's packages
        folders.append(site.getusersitepackages())
    found = {
        f"{dist.name} {dist.version} ({dist.locate_file('')})"
        for dist in distributions(name="detectron2", path=folders)
    }
    found |= {str(link) for f in folders for link in Path(f).glob("detectron2.egg-link")}
    if found:
        sys.exit(
            f"detectron2-lite provides the package `detectron2`, and so does {min(found)}: an "
            "environment holds one of the two. Keep what is there, or remove it first, by "
            "pip uninstall detectron2"
        )


_refuse_beside_another_detectron2()
setup()
