"""The command `mimdet`, also as `python -m mimdet`: each subcommand is one of the scripts.

A subcommand takes what its script takes: `mimdet check` is ``tools/check_dataset.py``, from any
folder and without a clone.
"""

import ast
import contextlib
import gc
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from mimdet.installed import folder

_TOOLS = {
    "predict": "predict",
    "check": "check_dataset",
    "draw": "draw_predictions",
    "reconstruct": "draw_reconstructions",
    "inspect": "inspect_checkpoint",
    "analyze": "analyze_model",
    "plan": "plan_memory",
    "convert": "convert_checkpoint",
    "export": "export",
    "weights": "export_checkpoint",
    "groups": "print_param_groups",
    "report": "report",
    "compare": "compare",
    "ratio": "ratio",
    "sweep": "sweep",
    "toy": "make_toy_dataset",
    "ade20k": "prepare_ade20k",
}
_TRAINING = {
    "train": ([], "Train any config, or resume."),
    "eval": (["--eval-only"], "Evaluate a checkpoint."),
}


def main(argv: list[str] | None = None) -> None:
    """Run the subcommand that the first word names, with the other words.

    Ends with exit code 2 for a word that is no subcommand, and where Detectron2 is missing.
    """
    words = sys.argv[1:] if argv is None else argv
    name = words[0] if words else "--help"
    if name in ("-h", "--help"):
        print(_help())
        return
    if name not in {**_TRAINING, **_TOOLS}:
        raise SystemExit(_failed(f"{name!r} is no subcommand\n\n{_help()}"))
    try:
        with _without_garbage():
            script, fixed = _script(name)
    except ModuleNotFoundError as e:
        if e.name != "detectron2":
            raise
        raise SystemExit(_failed(str(e))) from None
    # The scripts' parsers call themselves by the first word, in help and in errors.
    sys.argv = [f"mimdet {name}", *fixed, *words[1:]]
    script()


@contextlib.contextmanager
def _without_garbage() -> Iterator[None]:
    """For imports, which make hundreds of thousands of objects and no garbage.

    To look for it there, again and again and once more at the end of the process, took a third of
    the time in which a command starts and ends.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _script(name: str) -> tuple[Callable[[], None], list[str]]:
    """The script of a subcommand, and the words that it puts before those of its user."""
    if name in _TRAINING:
        # By import, because the processes that a training starts look `main` up by its module.
        return importlib.import_module("lazyconfig_train_net").run, _TRAINING[name][0]
    spec = importlib.util.spec_from_file_location(_TOOLS[name], _path(name))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main, []


def _path(name: str) -> Path:
    return folder("tools") / f"{_TOOLS[name]}.py"


def _help() -> str:
    """The subcommands with the first sentence of each script, read without running it."""
    lines = [f"  {name:12} {what}" for name, (_, what) in _TRAINING.items()]
    for name in _TOOLS:
        first = (ast.get_docstring(ast.parse(_path(name).read_text())) or "").split("\n\n")[0]
        lines.append(f"  {name:12} {' '.join(first.split())}")
    return "\n".join(
        ["usage: mimdet SUBCOMMAND ...", "", *lines, "", "mimdet SUBCOMMAND --help says more."]
    )


def _failed(message: str) -> int:
    print(f"mimdet: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
