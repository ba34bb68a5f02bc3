"""Backbones trace as one graph, and compiled blocks change no number."""

import copy
import logging

import pytest
import torch
from golden_models import fill
from torch import nn
from torch._dynamo.testing import CompileCounter

from detectron2.structures import ImageList
from detectron2.utils.events import EventStorage
from mimdet.engine.compiling import compile_blocks
from mimdet.layers.block import Block
from mimdet.modeling.backbone.benchmarking import BenchmarkingViTDet
from mimdet.modeling.backbone.mimdet import MIMDetBackbone, MIMDetDecoder, MIMDetEncoder
from mimdet.modeling.backbone.vitae import PlainViTAE, ViTAE
from mimdet.modeling.backbone.vitdet import ViT


def mimdet(**options) -> nn.Module:
    sizes = dict(img_size=64, depth=1, num_heads=2, checkpointing=options["checkpointing"])
    encoder = MIMDetEncoder(embed_dim=32, **sizes)
    decoder = MIMDetDecoder(embed_dim=32, decoder_embed_dim=16, dpr=options["drop_path"], **sizes)
    return MIMDetBackbone(encoder, decoder, 0.5)


def benchmarking(checkpointing: bool, drop_path: float) -> nn.Module:
    sizes = dict(window_size=2, img_size=64, embed_dim=32, depth=4, num_heads=2)
    return BenchmarkingViTDet(**sizes, drop_path_rate=drop_path, with_cp=checkpointing)


def vitdet(checkpointing: bool, drop_path: float) -> nn.Module:
    sizes = dict(img_size=64, embed_dim=16, depth=2, num_heads=2, pretrain_img_size=64)
    windows = dict(window_size=3, window_block_indexes=(1,), use_rel_pos=True)
    return ViT(**sizes, **windows, drop_path_rate=drop_path, use_act_checkpoint=checkpointing)


def vitae(checkpointing: bool, drop_path: float) -> nn.Module:
    sizes = dict(img_size=64, embed_dim=16, depth=2, num_heads=2, pretrain_img_size=64)
    windows = dict(window_size=3, window_block_indexes=(1,), use_rel_pos=True, pcm_groups=4)
    return PlainViTAE(
        **sizes, **windows, drop_path_rate=drop_path, use_act_checkpoint=checkpointing
    )


def staged_vitae(checkpointing: bool, drop_path: float) -> nn.Module:
    widths = dict(img_size=64, embed_dims=(8, 8, 8), token_dims=(8, 16), pcm_groups=4)
    blocks = dict(depth=2, num_heads=2, window_size=3, global_block_indexes=(1,))
    net = ViTAE(**widths, **blocks, drop_path_rate=drop_path, use_act_checkpoint=checkpointing)
    for module in net.modules():  # of the Performer, at a fixed rate
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net


# torch hides this warning of its own, but not from pytest's filter
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")

NETS = {
    "MIMDet": mimdet,
    "Benchmarking-ViT": benchmarking,
    "ViTDet": vitdet,
    "ViTAE-B": vitae,
    "ViTAE-S": staged_vitae,
}


@pytest.fixture(autouse=True)
def _forget_graphs(monkeypatch):
    limit = torch._dynamo.config.recompile_limit
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)  # slow to capture
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = limit


def net_of(name: str, checkpointing: bool, drop_path: float = 0.0) -> nn.Module:
    return fill(NETS[name](checkpointing=checkpointing, drop_path=drop_path)).train()


def batch(net: nn.Module, hw: tuple[int, int] = (64, 64), number: int = 2):
    images = torch.randn(number, 3, *hw, generator=torch.Generator().manual_seed(0))
    sizes = [hw] * (number - 1) + [(hw[0] - 5, hw[1] - 20)]
    return ImageList(images, sizes) if isinstance(net, MIMDetBackbone) else images


def step(net: nn.Module, images, call=None) -> list[torch.Tensor]:
    """Features, gradients and statistics after a training step, whose draws are seeded."""
    net.zero_grad()
    torch.manual_seed(0)
    features = (net if call is None else call)(images)
    sum(feature.square().mean() for feature in features.values()).backward()
    gradients = [p.grad for p in net.parameters() if p.requires_grad]
    statistics = [buffer.clone() for buffer in net.buffers()]
    return [*(f.detach() for f in features.values()), *gradients, *statistics]


def assert_equal(got: list, expected: list) -> None:
    # Relative positions are computed by another kernel, whose order of summation is another.
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


# The graph with checkpointing holds that without, so one backbone without is enough.
@pytest.mark.parametrize(
    "name, checkpointing",
    [("MIMDet", False), *((name, True) for name in NETS)],
)
def test_a_backbone_is_one_graph_with_the_same_numbers(name, checkpointing):
    net, counter = net_of(name, checkpointing), CompileCounter()
    plain = copy.deepcopy(net)
    compiled = torch.compile(net, backend=counter, fullgraph=True)  # a break is an error
    assert_equal(step(net, batch(net), compiled), step(plain, batch(plain)))
    assert counter.frame_count == 1
    if name == "MIMDet":
        assert_token_counts_recompile_at_most_twice(net, compiled, counter)


def assert_token_counts_recompile_at_most_twice(net, compiled, counter) -> None:
    for hw in ((64, 96), (96, 128), (96, 96)):
        images = batch(net, hw)
        assert_equal(step(net, images, compiled), step(net, images))
    assert counter.frame_count <= 1 + 2


# The blocks of ViTAE-B are those of ViTAE-S, and a window costs many seconds of tracing.
@pytest.mark.parametrize("name", [name for name in NETS if name != "ViTAE-B"])
def test_compiled_blocks_give_the_same_numbers_in_training_and_evaluation(name):
    # Half of the paths: what is recomputed must drop the same ones. (Where checkpointing is part of
    # the graph, torch's backend "eager" draws anew, unlike those that are used.)
    net = net_of(name, checkpointing=True, drop_path=0.5)
    images, compiled = batch(net), copy.deepcopy(net)
    expected = step(net, images)
    # The last block drops paths: with a bias in Benchmarking-ViT, with windows in ViTDet.
    blocks = compiled.layers[-1]["NC"] if name == "ViTAE-S" else getattr(compiled, "blocks", None)
    compile_blocks(compiled if blocks is None else blocks[-1:], backend="eager")
    assert list(compiled.state_dict()) == list(net.state_dict())
    assert_equal(step(compiled, images), expected)
    for each in (net, compiled):
        each.eval()
        torch.manual_seed(0)
    with torch.no_grad():
        assert_equal(list(compiled(images).values()), list(_seeded(net, images).values()))


def _seeded(net: nn.Module, images) -> dict[str, torch.Tensor]:
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    features = net(images)
    torch.random.set_rng_state(state)
    return features


def test_every_block_is_compiled_however_many_drop_paths_at_rates_of_their_own():
    torch._dynamo.config.recompile_limit = 2  # of graphs for one code, see `_forget_graphs`
    counter, depth = CompileCounter(), 3
    blocks = nn.ModuleList(Block(8, 2, drop_path=k / 20) for k in range(depth)).train()
    compile_blocks(blocks, backend=counter)
    for length in (5, 7, 9):
        x = torch.zeros(2, length, 8, requires_grad=True)
        for block in blocks:
            x = block(x)
    assert counter.frame_count == depth


def test_off_leaves_a_model_alone():
    net = net_of("MIMDet", checkpointing=False)
    compile_blocks(net, "off")
    assert all(module._compiled_call_impl is None for module in net.modules())


def test_another_choice_is_refused():
    with pytest.raises(ValueError, match=r"train.compile must be one of .*'blocks'.* got 'all'"):
        compile_blocks(nn.Identity(), "all")


def test_a_model_without_such_blocks_is_refused():
    with pytest.raises(ValueError, match="train.compile=blocks needs .* has none; write .*=off"):
        compile_blocks(nn.Conv2d(3, 8, 1))


def test_a_range_of_ratios_is_not_compiled_anew_for_each_number_of_tokens():
    plain = mimdet(checkpointing=False, drop_path=0.0)
    net = MIMDetBackbone(plain.encoder, plain.decoder, [0.25, 1.0]).train()
    counter = CompileCounter()
    compile_blocks(net, backend=counter)
    numbers, graphs = set(), []
    net.encoder.norm.register_forward_hook(lambda m, x, tokens: numbers.add(tokens.shape[1]))
    for iteration in range(8):
        with EventStorage(iteration):
            net(batch(net, (96, 96)))
        graphs.append(counter.frame_count)
    assert len(numbers) > 5 and graphs[-1] == graphs[0]
