"""What a YAML config may name, and what is refused before anything of it is called."""

import sys

import pytest

from mimdet.config import load_config, load_config_text
from mimdet.trusted import find_builder

# Ways to something that runs, loads, downloads or leads out of a trusted package.
FOREIGN = """
os.system posix.system builtins.eval exec open functools.partial subprocess.Popen pickle.loads
importlib.import_module logging.config.dictConfig PIL.Image.open numpy.load ctypes.CDLL
mimdet.config.os.system torch.os.system detectron2.utils.env.subprocess.call
timm.data.transforms.Image.open torch.nn.modules.module.functools.partial
torch.nn.modules.container.OrderedDict torch.nn.modules.linear.math.sqrt
torch.load torch.compile torch.hub.load torch.jit.load torch.utils.cpp_extension.load
torch.ops.load_library torch.package.PackageImporter torch.multiprocessing.spawn
torch.nn.Embedding.from_pretrained torch.nn.Linear.__init__ torch.nn.Linear.__class__
torch.nn.Linear.__init__.__globals__ torch.nn.Module.__getattr__ torch.nn.Linear.__mro__
torch.utils.data.DataLoader torchvision.models.resnet50 torchvision.datasets.CIFAR10
timm.models.load_checkpoint timm.models.vit_base_patch16_224 timm.create_model.__globals__
timm.models.VisionTransformer.load_pretrained timm.data.create_dataset
detectron2.model_zoo.get detectron2.checkpoint.DetectionCheckpointer detectron2.config.get_cfg
detectron2.config.LazyConfig.load detectron2.config.instantiate detectron2.engine.launch
detectron2.data.DatasetCatalog.register detectron2.data.detection_utils.read_image
detectron2.modeling.BACKBONE_REGISTRY.register detectron2.evaluation.inference_on_dataset
detectron2.utils.file_io.PathManager.open fvcore.common.download.download
mimdet.Predictor mimdet.config.load_config mimdet.checkpoint.file.read_checkpoint
mimdet.data.toy.ToyDataset mimdet.data.toy.make_toy_dataset mimdet.engine.launch.launch
mimdet.data.coco.register.write_truth mimdet.evaluation.results.write_json
torch torch.nn torch. .. torch..nn nowhere
""".split()


@pytest.mark.parametrize("name", FOREIGN)
def test_what_runs_loads_or_leads_out_of_a_trusted_package_is_no_builder(name):
    assert find_builder(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "torch.nn.LayerNorm",
        "torch.optim.lr_scheduler.StepLR",
        "timm.models.VisionTransformer",
        "timm.create_model",
        "torchvision.ops.FeaturePyramidNetwork",
        "fvcore.common.param_scheduler.CosineParamScheduler",
        "detectron2.structures.BoxMode",
        "detectron2.modeling.ResNet.make_default_stages",
        "mimdet.modeling.backbone.mimdet.MIMDetEncoder",
    ],
)
def test_what_builds_is_a_builder(name):
    assert find_builder(name) is not None


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A function of a module that the path finds."""
    (tmp_path / "evil.py").write_text("def f():\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("evil", None)


@pytest.mark.parametrize(
    "text, place",
    [
        ("model: {_target_: evil.f}", "model._target_"),
        ("_target_: evil.f", "_target_"),
        ("a: [[{x: {_target_: evil.f}}]]", "a.0.0.x._target_"),
        ("model: {_target_: torch.nn.Linear, in_features: {_target_: evil.f}}", "in_features"),
        ("model: {_target_: torch.nn.Sequential, _args_: [{_target_: evil.f}]}", "_args_.0"),
        ("a: !!python/tuple [{_target_: evil.f}]", "a.0._target_"),
        ("a: &a {_target_: evil.f}\nb: {<<: *a, c: 1}", "a._target_"),
        ("a: {_target_: {_target_: evil.f}}", "a._target_"),
        ("a: {_target_: [evil.f]}", "a._target_"),
        ("a: {_target_: null}", "a._target_"),
        ("a: {_target_: '???'}", "a._target_"),
        ("n: evil.f\na: {_target_: '${n}'}", "a._target_"),
    ],
)
def test_a_foreign_target_is_refused_wherever_it_is(evil, tmp_path, text, place):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="_target_ .* is not allowed") as e:
        load_config(str(path), [])
    assert place in str(e.value) and str(path) in str(e.value)
    assert "evil" not in sys.modules


def test_the_config_of_a_checkpoint_is_held_to_the_same_and_named_by_the_checkpoint(evil):
    with pytest.raises(ValueError, match=r"_target_ evil.f is not allowed .* in a.pth\)"):
        load_config_text("model: {_target_: evil.f}", source="a.pth")
    assert load_config_text("a: {_target_: evil.f}", trusted=("evil",)).a._target_ == "evil.f"
    with pytest.raises(ValueError, match="is not allowed"):
        load_config_text("a: {_target_: evil.f}", trusted=("evi",))  # no beginnings of names


@pytest.mark.parametrize(
    "text",
    [
        "${oc.create:'{_target_: os.system}'}",
        "${oc.env:HOME}",
        "https://a/${oc.env:SECRET}",
        "${${a}:HOME}",
        "${oc.env:DETECTRON2_DATASETS,${oc.env:HOME}}",
    ],
)
def test_interpolations_lead_to_keys_alone(text):
    with pytest.raises(ValueError, match="a.pth has .* at b.0: an interpolation of a YAML config"):
        load_config_text(f'a: oc.env\nb: ["{text}"]', source="a.pth")


def test_interpolations_of_keys_and_of_the_folder_of_the_data_stay():
    cfg = load_config_text('a: x/${oc.env:DETECTRON2_DATASETS,datasets}\nb: "${a}"\nc: "${.b}"')
    assert cfg.c.startswith("x/")


@pytest.mark.parametrize(
    "arguments",
    [
        "model_name: 'hf-hub:a/b'",
        "model_name: 'local-dir:a'",
        "model_name: vit_tiny_patch16_224, pretrained: true",
        "model_name: vit_tiny_patch16_224, checkpoint_path: a.pth",
        "model_name: vit_tiny_patch16_224, pretrained_cfg: {url: a}",
    ],
)
def test_a_builder_gets_no_argument_by_which_it_loads_or_downloads(arguments):
    with pytest.raises(ValueError, match=r"of _target_ timm.create_model is not allowed in a.pth"):
        load_config_text(f"m: {{_target_: timm.create_model, {arguments}}}", source="a.pth")


def test_proposals_are_pickles_and_are_not_read_for_a_stranger():
    target = "detectron2.data.get_detection_dataset_dicts"
    with pytest.raises(ValueError, match=r"d.proposal_files of _target_ .* is not allowed"):
        load_config_text(f"d: {{_target_: {target}, names: a, proposal_files: [a.pkl]}}")
