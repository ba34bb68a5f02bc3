#!/usr/bin/env python
"""Print the optimiser's parameter groups of a config: learning rate, factor and weight decay.

    python tools/print_param_groups.py --config-file CONFIG.py [key=value ...]
    python tools/print_param_groups.py --config-file CONFIG.py --names

The factor is the group's learning rate as a multiple of `optimizer.lr`; both are before the
schedule. The line "none" is what no group trains.
"""

from mimdet.analysis.param_groups import param_group_table, param_groups_of_config
from mimdet.command_line import add_overrides, mistakes_in_one_line, tool_parser
from mimdet.config import load_config


def main(argv: list[str] | None = None) -> None:
    """Read the command line, build and print."""
    parser = tool_parser(__doc__)
    parser.add_argument("--config-file", required=True, help="a LazyConfig file")
    parser.add_argument("--names", action="store_true", help="list the tensors of each group")
    add_overrides(parser)
    args = parser.parse_intermixed_args(argv)
    with mistakes_in_one_line(parser):
        cfg = load_config(args.config_file, args.opts, trusted=args.trust_config)
        groups, rest = param_groups_of_config(cfg)
    print(param_group_table(groups, rest, args.names))


if __name__ == "__main__":
    main()
