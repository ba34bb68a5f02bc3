"""Overrides of the command line."""

import logging

import pytest
import yaml
from omegaconf import OmegaConf
from torch import nn

from detectron2.config import LazyConfig
from detectron2.structures import BoxMode
from mimdet.config import apply_overrides, key_behind, load_config


@pytest.fixture
def cfg():
    return OmegaConf.create(
        {
            "train": {"max_iter": 10, "amp": {"enabled": False}, "path": None},
            "model": {
                "heads": [{"dim": 1}, {"dim": 2}],
                "sizes": [3, 4],
                "bottom_up": "???",
                "width": "${train.max_iter}",
                "same": "${train}",
                "broken": "${nowhere}",
                "names": "${.sizes}",
            },
        }
    )


@pytest.mark.parametrize(
    "text, key, value",
    [
        ("train.max_iter=3", "train.max_iter", 3),
        ("train.amp.enabled=true", "train.amp.enabled", True),
        ("train.path=a/b.pth", "train.path", "a/b.pth"),
        ("train.max_iter=null", "train.max_iter", None),
        ("model.heads.1.dim=5", "model.heads.1.dim", 5),
        ("model.sizes.0=7", "model.sizes.0", 7),
        ("model.sizes=[1,2,3]", "model.sizes", [1, 2, 3]),
        ("model.bottom_up=x", "model.bottom_up", "x"),  # a missing value is still a key
        ("model.width=4", "model.width", 4),  # an interpolation is replaced
        ("model.broken=4", "model.broken", 4),  # also one that leads nowhere
        ("train.amp={enabled:true}", "train.amp.enabled", True),
        ("train={amp:{enabled:true},max_iter:2}", "train.max_iter", 2),
    ],
)
def test_existing_key_is_set_without_a_warning(cfg, text, key, value, caplog):
    with caplog.at_level(logging.WARNING):
        assert apply_overrides(cfg, [text]) is cfg
    assert OmegaConf.select(cfg, key) == value
    assert not caplog.records


@pytest.fixture
def typed():
    """A value of every type that a config can ask for."""
    values = {"flag": True, "count": 3, "rate": 0.5, "folder": "output", "names": "${.folder}"}
    values |= {"free": None, "none": 0, "sizes": [1, 2], "amp": {"count": 1}}
    return OmegaConf.create({**values, "computed": {"_target_": "builtins.float"}})


@pytest.mark.parametrize(
    "text, key, value",
    [
        ("folder=20240101", "folder", "20240101"),
        ("folder=007", "folder", "007"),
        ("folder=1e3", "folder", "1e3"),
        ("folder=true", "folder", "true"),
        ("folder=1.10", "folder", "1.10"),
        ("folder=nan", "folder", "nan"),
        ("folder=größe/日本", "folder", "größe/日本"),
        ("folder=läuft gut", "folder", "läuft gut"),
        ("folder='größe, neu'", "folder", "größe, neu"),
        ("names=20240101", "names", "20240101"),  # the type is that of what it leads to
        ("folder=null", "folder", None),
        ("count=1e3", "count", 1000),
        ("count=2.0", "count", 2),
        ("none=0.05", "none", 0.05),  # 0 may be a share as well as a number
        ("none=1e1", "none", 10),
        ("rate=1", "rate", 1),
        ("rate=1e-4", "rate", 1e-4),
        ("flag=False", "flag", False),
        ("free=20240101", "free", 20240101),
        ("free=1.5", "free", 1.5),
        ("sizes=7", "sizes", 7),  # one value or several
        ("count=[1,2]", "count", [1, 2]),
        ("sizes[1]=7", "sizes.1", 7),
        ("sizes[1]=2.0", "sizes.1", 2),
        ("amp={count:1e3}", "amp.count", 1000),
        ("computed=7e-4", "computed", 7e-4),  # instead of what a call computes
        ("count=${sizes.1}", "count", 2),
        ("++count=text", "count", "text"),
    ],
)
def test_a_value_takes_the_type_that_the_config_has(typed, text, key, value):
    apply_overrides(typed, [text])
    found = OmegaConf.select(typed, key)
    assert found == value and type(found) in (type(value), type(typed.sizes))


@pytest.mark.parametrize("value", ["text", "1.5", "true", "inf", "nan", "'3'", "auto"])
def test_a_whole_number_stays_one(typed, value):
    with pytest.raises(ValueError, match=r"^count must be a whole number, got .*; write \+\+count"):
        apply_overrides(typed, [f"count={value}"])
    assert typed.count == 3


@pytest.mark.parametrize(
    "text, message",
    [
        ("flag=1", "flag must be true or false, got 1;"),
        ("flag=0", "flag must be true or false, got 0;"),
        ("flag=yes", "flag must be true or false, got 'yes';"),
        ("rate=false", "rate must be a number, got False;"),
        ("rate=1e-", "rate must be a number, got '1e-';"),
        ("folder={a:1}", "there is no 'folder.a'"),
        ("amp=true", "amp must be a dict, as {key:value}, got True;"),
        ("amp={count:many}", "amp.count must be a whole number, got 'many';"),
    ],
)
def test_a_value_of_another_type_is_refused_with_key_value_and_what_is_wanted(typed, text, message):
    before = OmegaConf.to_container(typed)
    with pytest.raises((ValueError, KeyError)) as e:
        apply_overrides(typed, [text])
    assert message in e.value.args[0]
    assert OmegaConf.to_container(typed) == before


def test_text_inside_of_a_dict_must_be_quoted(typed):
    config = OmegaConf.create({"train": typed})
    with pytest.raises(ValueError, match=r"train.folder must be text, got 2024;"):
        apply_overrides(config, ["train={folder:2024}"])


def test_a_number_of_classes_can_be_left_to_the_data():
    config = OmegaConf.create({"num_classes": 80})
    assert apply_overrides(config, ["num_classes=auto"]).num_classes == "auto"
    assert apply_overrides(config, ["num_classes=12"]).num_classes == 12


def test_dict_value_is_merged_into_what_is_there(cfg):
    apply_overrides(cfg, ["train={max_iter:2}"])
    assert cfg.train == {"max_iter": 2, "amp": {"enabled": False}, "path": None}


def test_later_overrides_win_and_see_the_keys_of_earlier_ones(cfg):
    apply_overrides(cfg, ["train.max_iter=1", "+new.key=2", "new.key=3", "train.max_iter=4"])
    assert (cfg.train.max_iter, cfg.new.key) == (4, 3)


@pytest.mark.parametrize("text", ["+train.extra=1", "++train.extra=1", "+train={extra:1}"])
def test_plus_creates_a_key(cfg, text):
    apply_overrides(cfg, [text])
    assert cfg.train.extra == 1
    assert cfg.train.max_iter == 10


@pytest.mark.parametrize(
    "text, key, nearest",
    [
        ("train.max_iters=3", "train.max_iters", "train.max_iter"),
        ("trian.max_iter=3", "trian.max_iter", "train.max_iter"),
        ("train.amp.enable=true", "train.amp.enable", "train.amp.enabled"),
        ("train={max_itr:2}", "train.max_itr", "train.max_iter"),
        ("train={amp:{enable:true}}", "train.amp.enable", "train.amp.enabled"),
        ("model.heads.1.dims=2", "model.heads.1.dims", "model.heads.1.dim"),
        ("model.heads.2.dim=2", "model.heads.2.dim", "model.heads.1.dim"),
        ("model.sizes.2=1", "model.sizes.2", "model.sizes.1"),
        ("model.bottom_up.depth=1", "model.bottom_up.depth", "model.bottom_up"),
        # these would replace the whole interpolation
        ("model.same.max_iter=1", "model.same.max_iter", "model.same"),
        ("model.broken.a=1", "model.broken.a", "model.broken"),
        ("model.names.0=1", "model.names.0", "model.names"),
        ("train.path.name=1", "train.path.name", "train.path"),
        ("train.max_iter={x:1}", "train.max_iter.x", "train.max_iter"),
    ],
)
def test_unknown_key_is_refused_with_the_override_and_the_nearest_key(cfg, text, key, nearest):
    before = OmegaConf.to_container(cfg)
    with pytest.raises(KeyError) as e:
        apply_overrides(cfg, [text])
    message = e.value.args[0]
    assert f"there is no {key!r} (from {text!r}); the nearest one is {nearest!r}" in message
    assert f"Write +{key}=..." in message
    assert OmegaConf.to_container(cfg) == before


def test_a_key_of_the_release_that_is_gone_is_refused_with_what_stands_for_it(cfg):
    message = "'model.heads.0.pretrained' is gone .* give the file as mae_checkpoint.path=FILE"
    with pytest.raises(KeyError, match=message):
        apply_overrides(cfg, ["model.heads.0.pretrained=MAE.pth"])


@pytest.mark.parametrize(
    "key, behind",
    [
        ("train.max_iter", "train.max_iter"),
        ("model.width", "train.max_iter"),
        ("model.heads.0.dim", "model.heads.0.dim"),
        ("model.heads.0.new", "model.heads.0.new"),
        ("model.names", "model.names"),
        ("model.same", "train"),
    ],
)
def test_the_key_behind_a_value_is_the_one_that_it_is_taken_from(cfg, key, behind):
    assert key_behind(cfg, key) == behind


def test_refusal_on_an_empty_config_names_no_key():
    with pytest.raises(KeyError, match="the nearest one is 'none'"):
        apply_overrides(OmegaConf.create({}), ["a=1"])


@pytest.mark.parametrize(
    "text",
    ["train.max_iter", "train.max_iter=[1", "train.path=a=b", "model.sizes.-1=1"],
)
def test_text_outside_the_grammar_is_refused_by_its_text(cfg, text):
    with pytest.raises(ValueError) as e:
        apply_overrides(cfg, [text])
    assert f"an override must be key=value, got {text!r}" in str(e.value)
    assert "needs quotes" in str(e.value)


def test_override_without_a_key_is_refused(cfg):
    with pytest.raises(KeyError, match="there is no '' .from '=3'"):
        apply_overrides(cfg, ["=3"])


@pytest.mark.parametrize("value", ["1,2", "choice(1,2)", "range(3)"])
def test_sweep_over_values_is_refused(cfg, value):
    with pytest.raises(ValueError, match="sweep over several values"):
        apply_overrides(cfg, [f"train.max_iter={value}"])


def test_deletion_is_refused(cfg):
    with pytest.raises(NotImplementedError, match="not.* supported"):
        apply_overrides(cfg, ["~train.path"])


def test_no_overrides_change_nothing(cfg):
    before = OmegaConf.to_container(cfg)
    assert OmegaConf.to_container(apply_overrides(cfg, [])) == before


def _saved(tmp_path, content: dict) -> str:
    path = tmp_path / "config.yaml"
    OmegaConf.save(OmegaConf.create(content), path)
    return str(path)


def test_a_config_of_an_earlier_version_is_refused_with_what_to_write(tmp_path):
    encoder = {"_target_": "mimdet.modeling.backbone.mimdet.MIMDetEncoder", "pretrained": None}
    swin = {"_target_": "mimdet.modeling.backbone.timm.PaddedSwin"}
    path = _saved(tmp_path, {"model": {"encoder": encoder, "parts": [swin]}})
    with pytest.raises(ValueError, match=r"config.yaml is a config of an earlier version") as e:
        load_config(path, [])
    assert "write mimdet.modeling.backbone.swin.PaddedSwin for" in str(e.value)
    assert "(model.parts.0._target_)" in str(e.value)
    assert "remove model.encoder.pretrained (give the file as mae_checkpoint.path=" in str(e.value)


def test_a_key_of_another_package_that_is_called_like_a_former_one_of_ours_stays(tmp_path):
    model = {"_target_": "timm.create_model", "pretrained": False}
    assert load_config(_saved(tmp_path, {"model": model}), []).model.pretrained is False


def test_every_config_has_the_switch_of_preflight(tmp_path):
    path = _saved(tmp_path, {"train": {}})
    assert load_config(path, []).preflight is True
    assert load_config(path, ["preflight=False"]).preflight is False


def test_every_config_has_the_switches_of_the_output_folder(tmp_path):
    path = _saved(tmp_path, {"train": {"max_iter": 3}})
    given = load_config(path, ["train.overwrite=True"]).train
    assert given == {"max_iter": 3, "overwrite": True, "resume_from_older": True}
    train = load_config(path, ["train.resume_from_older=False"]).train
    assert (train.overwrite, train.resume_from_older) == (False, False)


def test_a_mae_file_that_no_part_of_the_model_starts_from_is_refused(tmp_path):
    path = _saved(tmp_path, {"mae_checkpoint": {"path": None}, "train": {}})
    load_config(path, [])
    with pytest.raises(ValueError, match="mae_checkpoint.path=a.pth must be taken by an entry of"):
        load_config(path, ["mae_checkpoint.path=a.pth"])


# --- YAML -----------------------------------------------------------------------------------------


@pytest.fixture
def unsafe(monkeypatch):
    """LazyConfig reads YAML as upstream's does."""

    def load(path):
        with open(path, encoding="utf-8") as file:
            return OmegaConf.create(yaml.unsafe_load(file), flags={"allow_objects": True})

    monkeypatch.setattr(LazyConfig, "load", load)


@pytest.mark.parametrize(
    "tag",
    [
        "object/apply:os.mkdir [{sign}]",
        "object/new:os.mkdir [{sign}]",
        "object/apply:torch.os.mkdir [{sign}]",
        "object/apply:torch.hub.load [a, b]",
        "object:os.PathLike {{}}",
        "name:os.system ''",
        "name:torch.os.system ''",
        "module:os ''",
    ],
)
def test_a_yaml_config_runs_no_code_on_either_detectron2(unsafe, tmp_path, tag):
    sign, path = tmp_path / "sign", tmp_path / "config.yaml"
    path.write_text(f"seed: 1\ntrain: {{a: [!!python/{tag.format(sign=sign)}]}}\n")
    message = rf"tag !!python/{tag.split()[0]} is not allowed .*config.yaml, line 2.* run no code"
    with pytest.raises(ValueError, match=message):
        load_config(str(path), [])
    assert not sign.exists()


def test_a_yaml_config_may_hold_values_of_python(unsafe, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "a: !!python/tuple [1, 2]\n"
        "b: !!python/name:torch.nn.LayerNorm ''\n"
        "c: !!python/object/apply:detectron2.structures.BoxMode [1]\n"
    )
    cfg = load_config(str(path), [])
    assert list(cfg.a) == [1, 2]
    assert cfg.b is nn.LayerNorm
    assert cfg.c is BoxMode.XYWH_ABS


def test_a_file_that_is_no_yaml_is_refused_with_the_place(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("a: [1,\n")
    with pytest.raises(ValueError, match=r"config.yaml must be YAML: while parsing[\s\S]* line 2"):
        load_config(str(path), [])
