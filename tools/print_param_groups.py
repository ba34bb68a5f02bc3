#!/usr/bin/env python
"""Print the optimiser's parameter groups of a config: learning rate, factor and weight decay.

    python tools/print_param_groups.py --config-file CONFIG.py [key=value ...]
    python tools/print_param_groups.py --config-file CONFIG.py --names

The factor is the group's learning rate as a multiple of `optimizer.lr`; both are before the
schedule. The line "none" is what no group trains.
"""

import argparse

import mimdet  # noqa: F401  (first: it says what to do without Detectron2)
from detectron2.config import LazyConfig
from mimdet.analysis.param_groups import param_group_table, param_groups_of_config
from mimdet.config import apply_overrides


def main(argv: list[str] | None = None) -> None:
    """Read the command line, build and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="a LazyConfig file")
    parser.add_argument("--names", action="store_true", help="list the tensors of each group")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="overrides of the config")
    args = parser.parse_args(argv)
    try:
        cfg = apply_overrides(LazyConfig.load(args.config_file), args.opts)
        groups, rest = param_groups_of_config(cfg)
    except (FileNotFoundError, KeyError, ValueError) as e:
        parser.error(e.args[0] if len(e.args) == 1 else str(e))
    print(param_group_table(groups, rest, args.names))


if __name__ == "__main__":
    main()
