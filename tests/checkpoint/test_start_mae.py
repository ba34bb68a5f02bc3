"""MAE files into encoder and decoder: what is taken, resized, left, and what is refused."""

import argparse
import logging
import pathlib
import pickle

import pytest
import torch
from golden_models import fill, load
from torch import nn

from mimdet.checkpoint.convert.match import match
from mimdet.checkpoint.start import StartingWeights, load_starting_weights
from mimdet.layers.pos_embed import interpolate_pos_embed
from mimdet.modeling.backbone.benchmarking import BenchmarkingViTDet, own_tables
from mimdet.modeling.backbone.mimdet import MIMDetDecoder, MIMDetEncoder

_ALL_RECORDS = [
    record
    for name in ("loading_mimdet_v10", "loading_mimdet_v12_and_benchmarking")
    for record in load(f"loading/{name}.json.gz")
]
RECORDS = [record for record in _ALL_RECORDS if record["variant"] != "benchmarking"]
BENCHMARKING = [record for record in _ALL_RECORDS if record["variant"] == "benchmarking"]
FILLS = {"v10": "mask", "v12": "conv"}
NEW = {"encoder": ["patch_embed.*"], "decoder": ["conv_feat_proj.*"]}


class _Named:
    """What the fill rule needs of a module: tensors by name, none of them frozen."""

    def __init__(self, shapes: dict[str, list[int]]):
        self.tensors = {name: torch.empty(shape) for name, shape in shapes.items()}

    def named_parameters(self) -> tuple:
        return ()

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.tensors


def filled(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    return fill(_Named(shapes)).tensors


def mae_shapes(kind: str = "full") -> dict[str, list[int]]:
    rows = load(f"keys/mae_vit_base_patch16_{kind}.json.gz")["entries"]
    return {name: shape for name, shape, *_ in rows}


# --- ViT-B against the published loader -----------------------------------------------------------


@pytest.fixture(scope="module")
def mae_files(tmp_path_factory):
    """Both kinds of fake MAE file: {kind: (path, state dict)}."""
    full = filled(mae_shapes())
    encoder_only = {name: full[name] for name in mae_shapes("encoder_only")}
    folder = tmp_path_factory.mktemp("mae")
    files = {"full": full, "encoder only": encoder_only}
    for kind, state_dict in files.items():
        torch.save({"model": state_dict}, folder / f"{kind}.pth")
    yield {kind: (str(folder / f"{kind}.pth"), files[kind]) for kind in files}
    for file in folder.iterdir():
        file.unlink()  # 0.8 GB


def start(model: nn.ModuleDict, path: object, from_scratch: bool = False) -> None:
    """Start an encoder, and decoders under any name, as MIMDet's configs do."""
    path = str(path) if path else None
    entries = [StartingWeights(path, to="encoder", allow_missing=NEW["encoder"])]
    entries += [
        StartingWeights(path, to=name, allow_missing=NEW["decoder"], from_scratch=from_scratch)
        for name in model
        if name != "encoder"
    ]
    load_starting_weights(model, entries)


def modules_of_vit_base(img_size: int) -> nn.ModuleDict:
    """The encoder, which is the same in both variants, and the decoder of each."""
    encoder = MIMDetEncoder(img_size, embed_dim=768, depth=12, num_heads=12)
    decoders = {v: MIMDetDecoder(img_size, depth=4, fill=FILLS[v]) for v in FILLS}
    return nn.ModuleDict({"encoder": encoder, **decoders})


@pytest.mark.parametrize("img_size", [224, 800])
@pytest.mark.parametrize("kind", ["full", "encoder only"])
def test_vit_base_takes_what_the_published_loader_takes(mae_files, kind, img_size):
    path, file = mae_files[kind]
    modules = modules_of_vit_base(img_size)
    records = [r for r in RECORDS if (r["file"], r["img_size"]) == (kind, img_size)]
    assert len(records) == 4
    initial = {
        (name, entry): value.clone()
        for name, module in modules.items()
        for entry, value in module.state_dict().items()
        if entry not in file
    }
    start(modules, path, from_scratch=kind == "encoder only")
    for record in records:
        name = "encoder" if record["module"] == "encoder" else record["variant"]
        state_dict = modules[name].state_dict()
        assert list(state_dict) == [entry[0] for entry in record["entries"]]
        for entry, shape, origin, *checksums in record["entries"]:
            value = state_dict[entry]
            assert list(value.shape) == shape, entry
            _assert_checksums(value, *checksums, entry)
            if origin == "file":
                assert torch.equal(value, file[entry]), entry
            elif origin == "derived":
                side = img_size // 16
                assert torch.equal(value, interpolate_pos_embed(file[entry], (side, side)))
            elif (name, entry) in initial:
                assert torch.equal(value, initial[name, entry]), entry


def _assert_checksums(
    value: torch.Tensor, total: float | None, squares: float | None, name: str
) -> None:
    if total is None:  # a random initial value
        return
    x = value.double()
    assert abs(x.sum().item() - total) <= 1e-4 * x.abs().sum().item(), name
    assert x.square().sum().item() == pytest.approx(squares, rel=1e-4), name


def test_benchmarking_vit_takes_what_the_published_loader_takes(mae_files):
    path, file = mae_files["encoder only"]
    own_table, files_table = BENCHMARKING
    assert own_table["args"] == files_table["args"] | {"sincos_pos_embed": True}
    backbone = BenchmarkingViTDet(**own_table["args"])
    new = ["ms_adaptor.*", "*_rel_pos_bias.*"]
    for record in (own_table, files_table):
        assert record["file"] == "encoder only"
        # first as configured, then what another model with `sincos_pos_embed=False` would have
        leave = own_tables(record["args"].get("sincos_pos_embed", False))
        entry = StartingWeights(path, to="", allow_missing=new, leave=leave)
        load_starting_weights(backbone, [entry])
        state_dict = backbone.state_dict()
        assert state_dict.keys() == {entry[0] for entry in record["entries"]}
        for entry, shape, origin, *checksums in record["entries"]:
            value = state_dict[entry]
            assert list(value.shape) == shape, entry
            if origin == "file":
                assert torch.equal(value, file[entry]), entry
                continue
            _assert_checksums(value, *checksums, entry)
            if origin == "derived":
                assert torch.equal(value, interpolate_pos_embed(file[entry], (64, 64))[:, 1:])


def match_shapes(record: dict):
    """`match` of a record, with shapes alone."""
    with torch.device("meta"):
        side = record["img_size"]
        if record["module"] == "encoder":
            module = MIMDetEncoder(side, embed_dim=768, depth=12, num_heads=12)
        else:
            module = MIMDetDecoder(side, depth=4, fill=FILLS[record["variant"]])
        shapes = mae_shapes(record["file"].replace(" ", "_"))
        file = {name: torch.empty(shape) for name, shape in shapes.items()}
        return match(file, module.state_dict(), allow_missing=NEW[record["module"]])


def _lacks_the_decoder(record: dict) -> bool:
    return (record["module"], record["file"]) == ("decoder", "encoder only")


def _id(record: dict) -> str:
    return "-".join(str(record[key]) for key in ("variant", "module", "file", "img_size"))


@pytest.mark.parametrize("record", [r for r in RECORDS if not _lacks_the_decoder(r)], ids=_id)
def test_report_lists_the_names_that_the_published_loader_lists(record):
    _, report = match_shapes(record)
    origin = {name: origin for name, _, origin, *_ in record["entries"]}
    assert report.loaded == [name for name in origin if origin[name] == "file"]
    assert report.resized == [name for name in origin if origin[name] == "derived"]
    assert sorted(report.initial) == record["keys_of_model_not_in_file"]
    assert report.unused == record["keys_of_file_not_used"]


@pytest.mark.parametrize("record", [r for r in RECORDS if _lacks_the_decoder(r)], ids=_id)
def test_a_decoder_that_the_published_loader_leaves_as_initialised_is_refused(record):
    assert len(record["keys_of_model_not_in_file"]) == len(record["entries"])
    with pytest.raises(ValueError, match="the file lacks .*; it is of another architecture"):
        match_shapes(record)


# --- layouts of files, at tiny size ---------------------------------------------------------------

_TINY_SIZES = {768: 32, 2304: 96, 3072: 128, 512: 16, 1536: 48, 2048: 64, 197: 5}


def tiny_file(depth: int = 2, width: int = 32, decoder: bool = True) -> dict[str, torch.Tensor]:
    """A MAE file of 32x32 pixels, `depth` encoder blocks and three decoder blocks."""
    sizes = _TINY_SIZES | {768: width, 2304: 3 * width, 3072: 4 * width}
    blocks = [f"blocks.{i}." for i in range(depth)] + [f"decoder_blocks.{i}." for i in range(3)]
    shapes = {
        name: [sizes.get(n, n) for n in shape]
        for name, shape in mae_shapes().items()
        if "blocks" not in name or name.startswith(tuple(blocks))
    }
    if not decoder:
        names = mae_shapes("encoder_only")
        shapes = {name: shape for name, shape in shapes.items() if name in names}
    return filled(shapes)


def tiny_model(*, img_size: int = 32, fill: str = "mask", depth: int = 2) -> nn.ModuleDict:
    torch.manual_seed(3)
    return nn.ModuleDict(
        {
            "encoder": MIMDetEncoder(img_size, embed_dim=32, depth=depth, num_heads=4),
            "decoder": MIMDetDecoder(
                img_size, embed_dim=32, decoder_embed_dim=16, depth=1, num_heads=4, fill=fill
            ),
        }
    )


def assert_holds(model: nn.ModuleDict, file: dict[str, torch.Tensor]) -> None:
    """Encoder and decoder have the tensors of the file."""
    taken = 0
    for module in model.values():
        for name, value in module.state_dict().items():
            if name in file:
                assert torch.equal(value, file[name]), name
                taken += 1
    # both tables, mask token, 12 per block, two final norms and the embedding
    assert taken == 3 + 3 * 12 + 4 + 2


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("prefix", ["", "module.", "encoder.", "backbone.", "module.encoder."])
def test_files_are_read_with_and_without_wrapper_and_prefixes(tmp_path, prefix, wrapped):
    file = tiny_file()
    content = {prefix + name: value for name, value in file.items()}
    torch.save({"model": content} if wrapped else content, tmp_path / "mae.pth")
    model = tiny_model()
    start(model, tmp_path / "mae.pth")
    assert_holds(model, file)


def test_what_maes_training_script_saves_beside_the_model_does_no_harm(tmp_path):
    content = {
        "model": tiny_file(),
        "args": argparse.Namespace(lr=1e-3, model="mae_vit_base_patch16"),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "epoch": 799,
    }
    torch.save(content, tmp_path / "mae.pth")
    model = tiny_model()
    start(model, tmp_path / "mae.pth")
    assert_holds(model, content["model"])


def test_position_tables_are_resized_to_the_modules_grid_and_stay_frozen(tmp_path):
    file = tiny_file()
    torch.save({"model": file}, tmp_path / "mae.pth")
    model = tiny_model(img_size=64)
    start(model, tmp_path / "mae.pth")
    for table, name in (
        (model["encoder"].pos_embed, "pos_embed"),
        (model["decoder"].decoder_pos_embed, "decoder_pos_embed"),
    ):
        assert torch.equal(table, interpolate_pos_embed(file[name], (4, 4)))
        assert not table.requires_grad


def test_a_file_is_read_once_and_the_log_says_what_became_of_its_tensors(
    tmp_path, caplog, monkeypatch
):
    torch.save({"model": tiny_file()}, tmp_path / "mae.pth")
    read, original = [], torch.load

    def load(file, **options):
        if not options.get("mmap"):  # a mapped file is looked at, and its numbers are not read
            read.append(file)
        return original(file, **options)

    monkeypatch.setattr(torch, "load", load)
    with caplog.at_level(logging.INFO, logger="mimdet"):
        start(tiny_model(img_size=64, fill="conv"), tmp_path / "mae.pth")
    assert read == [str(tmp_path / "mae.pth")]
    encoder, decoder = caplog.messages
    # two blocks of 12, norm and table; stem: four stages of three and the last convolution
    assert (
        f"encoder from {tmp_path / 'mae.pth'}: 27 tensors loaded (pos_embed resized); 14 "
        in encoder
    )
    # one block of 12, embedding, norm and table
    assert ": 17 tensors loaded (decoder_pos_embed resized); 2 (conv_feat_proj.weight, " in decoder


def test_parts_without_a_path_are_left_alone():
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start(model, None)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("decoder_in_file", [True, False])
def test_decoder_from_scratch_leaves_the_decoder_and_loads_the_encoder(tmp_path, decoder_in_file):
    file = tiny_file(decoder=decoder_in_file)
    torch.save({"model": file}, tmp_path / "mae.pth")
    model = tiny_model()
    before = {name: value.clone() for name, value in model["decoder"].state_dict().items()}
    start(model, tmp_path / "mae.pth", from_scratch=True)
    after = model["decoder"].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(model["encoder"].norm.weight, file["norm.weight"])


# --- refusals -------------------------------------------------------------------------------------


def test_an_encoder_only_file_needs_decoder_from_scratch(tmp_path):
    torch.save({"model": tiny_file(decoder=False)}, tmp_path / "mae.pth")
    with pytest.raises(
        ValueError, match=r"encoder-only .* train.starting_weights.1.from_scratch=True"
    ):
        start(tiny_model(), tmp_path / "mae.pth")


def test_a_file_of_another_width_is_refused_with_both_shapes(tmp_path):
    torch.save({"model": tiny_file(width=48)}, tmp_path / "mae.pth")
    message = r"mae.pth does not fit encoder .*has shape \(1, 5, 48\) in the file and \(1, 5, 32\)"
    with pytest.raises(ValueError, match=message):
        start(tiny_model(), tmp_path / "mae.pth")


def test_a_file_of_another_width_and_grid_is_refused_with_both_widths(tmp_path):
    torch.save({"model": tiny_file(width=48)}, tmp_path / "mae.pth")
    with pytest.raises(
        ValueError, match=r"\(1, 5, 48\) in the file and \(1, 17, 32\) in the model"
    ):
        start(tiny_model(img_size=64), tmp_path / "mae.pth")


def test_a_deeper_encoder_is_refused(tmp_path):
    torch.save({"model": tiny_file(depth=3)}, tmp_path / "mae.pth")
    message = r"encoder blocks that the model lacks \(12 \(blocks.2.attn.proj.bias, "
    with pytest.raises(ValueError, match=message):
        start(tiny_model(), tmp_path / "mae.pth")


def test_a_shallower_encoder_is_refused(tmp_path):
    torch.save({"model": tiny_file(depth=1)}, tmp_path / "mae.pth")
    with pytest.raises(ValueError, match=r"the file lacks 12 \(blocks.1.norm1.weight, "):
        start(tiny_model(), tmp_path / "mae.pth")


def test_a_file_without_the_mask_token_is_refused_for_a_decoder_that_uses_it(tmp_path):
    file = tiny_file()
    del file["mask_token"]
    torch.save({"model": file}, tmp_path / "mae.pth")
    with pytest.raises(ValueError, match=r"decoder .*the file lacks 1 \(mask_token\)"):
        start(tiny_model(), tmp_path / "mae.pth")
    start(tiny_model(fill="conv"), tmp_path / "mae.pth")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no checkpoint .*none.pth \(train.starting_weights.0.path\)"
    ):
        start(tiny_model(), tmp_path / "none.pth")


@pytest.mark.parametrize(
    "content",
    [b"", b".", b"a text\n", b"<html>Not found</html>", b"PK\x03\x04 cut short", bytes(range(256))],
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "mae.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="mae.pth must be a torch checkpoint of tensors"):
        start(tiny_model(), path)


def test_a_truncated_checkpoint_is_refused(tmp_path):
    path = tmp_path / "mae.pth"
    torch.save({"model": tiny_file()}, path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="mae.pth must be a torch checkpoint of tensors"):
        start(tiny_model(), path)


@pytest.mark.parametrize(
    "content, message",
    [
        ([1, 2], "must hold a state dict .* got list"),
        ({"model": 3}, "must hold a state dict .* got int"),
        ({}, "must hold a state dict .* got dict"),
        ({"epoch": 3}, "holds no tensors"),
    ],
)
def test_a_checkpoint_without_a_state_dict_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "mae.pth")
    with pytest.raises(ValueError, match=message):
        start(tiny_model(), tmp_path / "mae.pth")


class _Touch:
    """An object whose unpickling makes a file."""

    def __init__(self, marker: pathlib.Path):
        self.marker = marker

    def __reduce__(self):
        return pathlib.Path.touch, (self.marker,)


@pytest.mark.parametrize(
    "save, message",
    [
        (torch.save, "could execute code"),
        (lambda x, f: f.write_bytes(pickle.dumps(x, protocol=2)), "torch.save has not written"),
    ],
)
def test_code_in_a_checkpoint_is_not_executed(tmp_path, save, message):
    marker, path = tmp_path / "executed", tmp_path / "mae.pth"
    save({"model": tiny_file(), "extra": _Touch(marker)}, path)
    with pytest.raises(ValueError, match=f"mae.pth must be a torch checkpoint .* {message}"):
        start(tiny_model(), path)
    assert not marker.exists()
    torch.load(path, weights_only=False) if save is torch.save else pickle.loads(path.read_bytes())
    assert marker.exists()  # the file would have done it
