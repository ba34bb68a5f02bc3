"""Names of MAE's files, which are those of our ViTs and decoders once the prefixes are gone."""

from collections.abc import Mapping

from torch import Tensor

_PREFIXES = ("module.", "model.", "network.", "encoder.", "backbone.")


def strip_prefixes(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes of wrappers and of the model around an encoder from all names."""
    return {_strip(name): value for name, value in state_dict.items()}


def _strip(name: str) -> str:
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return _strip(name[len(prefix) :])
    return name


def has_decoder(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a MAE state dict (prefixes stripped) holds a decoder."""
    return any(name.startswith("decoder_") for name in state_dict)
