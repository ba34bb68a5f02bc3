"""What the command lines of all scripts have in common.

Here, because it must hold with either provider of `detectron2`, and because the scripts themselves
are imported by nothing.
"""

import argparse
import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from mimdet.whole_files import refuse_file

# What arguments, configs and files can cause. Any other exception is a fault of the code, and its
# traceback is wanted.
_MISTAKES = (OSError, ImportError, KeyError, ValueError, NotImplementedError)

_SCRIPT = re.compile(r"python tools/\w+\.py")
_OVERRIDE = re.compile(r"[+~]*[A-Za-z_][\w.]*=")


def tool_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the docstring of the tool, examples included.

    Parse with `parse_intermixed_args`, so that overrides may stand before and after flags.
    """
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter)
    as_subcommand = parser.prog.startswith("mimdet ")
    parser.description = _SCRIPT.sub(parser.prog, doc or "") if as_subcommand else doc
    return parser


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Let `parser` take a config's overrides, `args.opts`, and `args.trust_config`."""
    add_trust(parser)
    parser.add_argument("opts", nargs="*", metavar="key=value", help="overrides of the config")


def add_output(parser: argparse.ArgumentParser, what: str, **options: Any) -> None:
    """Let `parser` take `args.output`, a folder; a file in its place is refused before any work."""
    parser.add_argument("--output", type=_folder_to_fill, help=what, **options)


def _folder_to_fill(name: str) -> str:
    try:
        refuse_file(name)
    except NotADirectoryError as e:
        raise argparse.ArgumentTypeError(str(e)) from None
    return name


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Let `parser` widen what a YAML config may call, see `mimdet.trusted`: `args.trust_config`.

    A flag and no key, because a stranger's file must not be able to set it, and no variable of the
    environment, because that would go on for files that nobody had in mind.
    """
    parser.add_argument(
        "--trust-config",
        metavar="PACKAGE[,PACKAGE]",
        type=lambda text: tuple(filter(None, text.split(","))),
        default=(),
        help="let a YAML config, or that of a checkpoint, call everything in these packages",
    )


@contextlib.contextmanager
def mistakes_in_one_line(parser: argparse.ArgumentParser) -> Iterator[None]:
    """End the program with exit code 2 and one line on an error that its user can mend."""
    try:
        yield
    except (*_MISTAKES, OmegaConfBaseException) as e:
        # str() of a KeyError is the repr of its message
        message = str(e.args[0]) if isinstance(e, KeyError) and len(e.args) == 1 else str(e)
        parser.exit(2, f"{parser.prog}: error: {' '.join(message.split()) or repr(e)}\n")


def overrides_last(arguments: Sequence[str]) -> list[str]:
    """Put `key=value` behind all other words; the order of words of a kind stays.

    Detectron2's parser takes everything from the first override on for overrides, flags included.
    """
    # A stable sort by a bool: False, the other words, before True.
    return sorted(arguments, key=lambda word: _OVERRIDE.match(word) is not None)
