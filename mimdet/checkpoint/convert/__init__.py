"""Other people's parameter names: what each source is called, told by, and converted with.

A source is one line of `SOURCES` and one file of this folder, whose functions work on state dicts
and open no files. `mimdet.checkpoint.convert_file` and `tools/convert_checkpoint.py` run them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from mimdet.checkpoint.convert import fastmim, mmseg, mpvit, vitdet_mmdet

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class Source:
    """One foreign naming of parameters.

    Attributes:
        name: how commands and messages call it.
        detect: whether a state dict, without wrappers and prefixes of wrappers, is of this naming.
        to_native: converts such a state dict into our names. It takes every entry or raises
            ValueError.
        from_native: the way back, or None where there is none.
        wrapper: key under which files of this naming hold the state dict.
    """

    name: str
    detect: Callable[[StateDict], bool]
    to_native: Callable[[StateDict], dict[str, Tensor]]
    from_native: Callable[[StateDict], dict[str, Tensor]] | None = None
    wrapper: str = "state_dict"


# Asked in this order; a released classifier of MPViT has the aliases of "mpvit" as well.
SOURCES = (
    Source("fastmim", fastmim.is_fastmim, fastmim.to_native, fastmim.from_native, wrapper="model"),
    Source(
        "mpvit_classification",
        mpvit.is_mpvit_classification,
        mpvit.convert_mpvit_classification,
    ),
    Source("mpvit", mpvit.has_aliases, mpvit.merge_aliases, mpvit.add_aliases, wrapper="model"),
    Source(
        "vitdet_mmdet",
        vitdet_mmdet.is_vitdet_mmdet,
        vitdet_mmdet.to_native,
        vitdet_mmdet.from_native,
    ),
    Source("mmseg", mmseg.is_mmseg, mmseg.to_native, mmseg.from_native),
)


def detect_source(state_dict: StateDict) -> Source | None:
    """The source whose naming `state_dict` has; None for names of ours."""
    return next((source for source in SOURCES if source.detect(state_dict)), None)
