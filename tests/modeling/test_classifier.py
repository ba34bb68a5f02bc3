"""The classifier's losses by hand, its outputs, and what is refused."""

import pytest
import torch
from torch import nn

from mimdet.modeling.backbone.cmt import CMTClassifier
from mimdet.modeling.classifier import ImageClassifier

TINY = dict(img_size=32, embed_dims=(4, 8, 8, 8), depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8))


class Logits(nn.Module):
    """A network that gives the first pixels of an image as logits."""

    def __init__(self, num_classes: int = 3):
        super().__init__()
        self.num_classes = num_classes
        self.scale = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.scale.weight)

    def get_classifier(self) -> nn.Module:
        return nn.Linear(2, self.num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0, 0, : self.num_classes] * self.scale.weight


def sample(*logits: float, **rest) -> dict:
    image = torch.zeros(3, 2, 4)
    image[0, 0, : len(logits)] = torch.tensor(logits)
    return {"image": image, **rest}


BATCH = [sample(2.0, 0.0, 0.0, label=0), sample(0.0, 1.0, 0.0, label=2)]
PROBABILITIES = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).log_softmax(dim=1)


def test_loss_of_labels_is_the_mean_cross_entropy():
    loss = ImageClassifier(Logits()).train()(BATCH)
    assert list(loss) == ["loss_cls"]
    expected = -(PROBABILITIES[0, 0] + PROBABILITIES[1, 2]) / 2
    torch.testing.assert_close(loss["loss_cls"], expected)


def test_label_smoothing_gives_every_class_its_share():
    loss = ImageClassifier(Logits(), label_smoothing=0.3).train()(BATCH)["loss_cls"]
    targets = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    torch.testing.assert_close(loss, -(targets * PROBABILITIES).sum(dim=1).mean())


def test_soft_targets_are_taken_as_they_are():
    targets = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.2, 0.6]])
    mixed = [{**s, "target": t} for s, t in zip(BATCH, targets, strict=True)]
    loss = ImageClassifier(Logits(), label_smoothing=0.3).train()(mixed)["loss_cls"]
    torch.testing.assert_close(loss, -(targets * PROBABILITIES).sum(dim=1).mean())


def test_evaluation_gives_the_logits_of_each_image():
    outputs = ImageClassifier(Logits()).eval()(BATCH)
    assert [output["logits"].tolist() for output in outputs] == [[2, 0, 0], [0, 1, 0]]


def test_every_parameter_of_a_network_gets_a_gradient():
    network = CMTClassifier(num_classes=3, **TINY)
    model = ImageClassifier(network).train()
    model([{"image": torch.randn(3, 32, 32), "label": k} for k in range(3)])["loss_cls"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_the_last_layer_starts_small_and_with_the_given_scale():
    network = CMTClassifier(**TINY)
    for std in (2e-5, 0.02):
        ImageClassifier(network, head_std=std)
        assert network.head.weight.std().item() == pytest.approx(std, rel=0.02)
        assert not network.head.bias.any()


def test_a_label_beyond_the_classes_is_refused():
    batch = [sample(1.0, label=3)]
    with pytest.raises(ValueError, match="below the number of classes 3, got 3; set the number"):
        ImageClassifier(Logits()).train()(batch)
