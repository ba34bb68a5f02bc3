"""Starting weights: parts of a new model take what pretraining left in a file, with a report."""

import logging
from collections.abc import Mapping

from torch import Tensor, nn

from mimdet.checkpoint.convert.beit import fit_beit, is_beit
from mimdet.checkpoint.convert.encoder import match_encoder, takes_encoder
from mimdet.checkpoint.convert.fastmim import has_pixel_mask_token
from mimdet.checkpoint.convert.mae import has_decoder, match_mae, strip_prefixes
from mimdet.checkpoint.convert.report import LoadReport
from mimdet.checkpoint.file import read_tensors

logger = logging.getLogger(__name__)


def load_pretrained(model: nn.Module, *, decoder_from_scratch: bool = False) -> None:
    """Start the parts of a new model from the MAE files that they name.

    Every submodule with a `pretrained` path takes from that file what it has; each file is read
    once. What was loaded, resized, left as initialised or not used is logged. A submodule may also
    have `grid_size`, the (h, w) of a position table that is not square, and `pretrained_ignores`,
    names that it does not take. Besides MAE's, files of BEiT and FastMIM are understood.

    Args:
        model: a freshly built model.
        decoder_from_scratch: leave decoders as initialised. Needed on purpose when the file is
            the encoder-only kind.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if a file is no checkpoint, does not fit the module, or lacks the decoder.
    """
    files: dict[str, dict[str, Tensor]] = {}
    for name, module in model.named_modules():
        path = getattr(module, "pretrained", None)
        if not path:
            continue
        name = name or "the model"
        ignored = getattr(module, "pretrained_ignores", ())
        own = {entry: v for entry, v in module.state_dict().items() if entry not in ignored}
        if decoder_from_scratch and has_decoder(own):
            logger.info(f"{name} stays as initialised (mae_checkpoint.decoder_from_scratch=True)")
            continue
        if path not in files:
            files[path] = read_state_dict(path)
        if has_decoder(own) and has_pixel_mask_token(files[path]):
            raise ValueError(
                f"{path} must hold MAE's decoder for {name}, but it is a file of FastMIM, whose "
                "decoder has another width and no positions, and whose mask is a colour "
                "(mae_checkpoint.path); use a full MAE checkpoint, or start only the encoder from "
                "this file with mae_checkpoint.decoder_from_scratch=True"
            )
        if has_decoder(own) and not has_decoder(files[path]):
            raise ValueError(
                f"{path} must hold MAE's decoder for {name}, but it is an encoder-only file "
                "(mae_checkpoint.path); use the full MAE checkpoint, or train the decoder from "
                "its initial weights with mae_checkpoint.decoder_from_scratch=True"
            )
        try:
            matched, report = _match(files[path], own, getattr(module, "grid_size", None))
        except ValueError as e:
            raise ValueError(f"{path} does not fit {name} (mae_checkpoint.path): {e}") from e
        module.load_state_dict(matched, strict=False)
        logger.info(f"{name} from {path}: {report}")


def _match(
    file: Mapping[str, Tensor], own: Mapping[str, Tensor], grid_size: tuple[int, int] | None
) -> tuple[dict[str, Tensor], LoadReport]:
    """What a module takes from a file, by the rules of the file's kind."""
    if takes_encoder(own):
        return match_encoder(file, own)
    if is_beit(file):
        fitted = fit_beit(file, own, grid_size)
        return match_mae(fitted, own, grid_size=grid_size, optional=("pos_embed",))
    return match_mae(file, own, grid_size=grid_size)


def read_state_dict(path: str) -> dict[str, Tensor]:
    """Read the tensors of a pretraining checkpoint, without its wrapper and prefixes.

    Args:
        path: see `mimdet.checkpoint.file.read_tensors`, also for the errors.
    """
    return strip_prefixes(read_tensors(path, "mae_checkpoint.path"))
