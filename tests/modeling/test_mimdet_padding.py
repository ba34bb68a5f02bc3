"""MIMDet with `padding="exclude"`: an image's features do not depend on its batch."""

import pytest
import torch
from golden_models import fill

from detectron2.structures import ImageList
from mimdet.modeling.backbone.mimdet import MIMDetBackbone, MIMDetDecoder, MIMDetEncoder
from mimdet.modeling.backbone.real_tokens import sample_real_tokens, stem_of_each

SIZES = [(60, 130), (96, 64), (32, 40)]


def backbone(ratio: float, fill_kind: str = "conv", **options) -> MIMDetBackbone:
    sizes = dict(img_size=64, depth=2, num_heads=2)
    encoder = MIMDetEncoder(embed_dim=32, **sizes)
    decoder = MIMDetDecoder(embed_dim=32, decoder_embed_dim=16, fill=fill_kind, **sizes)
    options = dict(padding="exclude", sample_seed=0) | options
    return fill(MIMDetBackbone(encoder, decoder, ratio, **options)).eval()


def picture(hw: tuple[int, int]) -> torch.Tensor:
    return torch.randn(3, *hw, generator=torch.Generator().manual_seed(hw[0]))


def batch(*sizes: tuple[int, int]) -> ImageList:
    return ImageList.from_tensors([picture(hw) for hw in sizes], size_divisibility=32)


@torch.no_grad()
def features(net: MIMDetBackbone, *sizes: tuple[int, int]) -> list[dict[str, torch.Tensor]]:
    """Those of each image, without what pads the batch."""
    maps = net(batch(*sizes))
    own = [[-(-side // 32) * 32 for side in hw] for hw in sizes]
    return [
        {k: x[i, :, : h * x.shape[2] // H, : w * x.shape[3] // W] for k, x in maps.items()}
        for i, (h, w) in enumerate(own)
        for H, W in [batch(*sizes).tensor.shape[-2:]]
    ]


@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("fill_kind", ["conv", "mask"])
def test_an_image_has_the_same_features_alone_and_in_any_batch(ratio, fill_kind):
    net = backbone(ratio, fill_kind)
    alone = [features(net, hw)[0] for hw in SIZES]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2]):
        together = features(net, *(SIZES[i] for i in order))
        for i, got in zip(order, together, strict=True):
            torch.testing.assert_close(got, alone[i], atol=1e-5, rtol=0)


def test_stratified_samples_do_not_depend_on_the_batch_either():
    net = backbone(0.5, sampler="stratified")
    alone, together = (features(net, *sizes)[-1] for sizes in (SIZES[2:], SIZES))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_as_published_they_depend_on_the_batch():
    net = backbone(1.0, padding="attend")
    together, alone = features(net, *SIZES)[2], features(net, SIZES[2])[0]
    assert (together["c4"] - alone["c4"]).abs().max() > 1e-2


@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_what_pads_a_batch_has_no_influence(ratio):
    net, images = backbone(ratio), batch(*SIZES)
    with torch.no_grad():
        expected = net(images)
        images.tensor[2, :, 32:] = 7.0  # below an image of 32 rows
        got = net(images)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_an_image_without_padding_has_the_published_features():
    (plain,), (excluding,) = (
        features(backbone(1.0, padding=p), (64, 96)) for p in ("attend", "exclude")
    )
    torch.testing.assert_close(excluding, plain, atol=1e-5, rtol=0)


def test_each_image_keeps_a_share_of_its_own_tokens():
    grids, grid = [(4, 9), (6, 4), (2, 3)], (6, 9)
    ids, counts = sample_real_tokens(grids, grid, 0.5, torch.device("cpu"))
    assert counts.sum(1).tolist() == [18, 12, 3]
    for (rows, columns), own, kept in zip(grids, ids, counts, strict=True):
        chosen = own[kept]
        assert len(set(chosen.tolist())) == len(chosen)
        assert (chosen // grid[1] < rows).all() and (chosen % grid[1] < columns).all()


def test_every_own_token_is_chosen_equally_often():
    torch.manual_seed(0)
    chosen = torch.zeros(6 * 9)
    for _ in range(2000):
        ids, counts = sample_real_tokens([(6, 9), (2, 3)], (6, 9), 0.5, torch.device("cpu"))
        chosen[ids[1][counts[1]]] += 1
    own = chosen.view(6, 9)[:2, :3]
    assert own.sum() == chosen.sum() == 2000 * 3
    assert ((own / 2000 - 0.5).abs() < 0.06).all()  # more than five deviations


def test_the_smallest_image_keeps_one_token():
    _, counts = sample_real_tokens([(1, 1)], (2, 2), 0.25, torch.device("cpu"))
    assert counts.tolist() == [[True]]


@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_training_gives_every_parameter_a_gradient_and_fillers_give_none(ratio):
    net = backbone(ratio).train()
    images = batch(*SIZES)
    images.tensor.requires_grad_()
    sum(x.square().mean() for x in net(images).values()).backward()
    missing = [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    assert images.tensor.grad.isfinite().all()
    assert not images.tensor.grad[2, :, 32:].any()  # the padding of the smallest image


def test_the_stem_sees_images_one_by_one():
    seen = []

    def stem(x):
        seen.append(tuple(x.shape))
        return [x[:, :, ::4, ::4], x[:, :, ::16, ::16]]

    images = batch(*SIZES)
    maps = stem_of_each(stem, images.tensor, images.image_sizes, 32)
    assert seen == [(1, 3, 64, 160), (1, 3, 96, 64), (1, 3, 32, 64)]
    assert [tuple(x.shape) for x in maps] == [(3, 3, 24, 40), (3, 3, 6, 10)]
    assert not maps[0][2, :, 8:].any()


def test_another_padding_is_refused():
    with pytest.raises(ValueError, match=r"padding must be one of \('attend', 'exclude'\), got 'x"):
        backbone(1.0, padding="x")
