"""YAML files that would take much time or memory to read."""

import pytest

from mimdet.config import load_config


def _bomb(levels: int) -> str:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


def _ladder(levels: int) -> str:
    """Each list holds the one before it: few values, but deep ones."""
    return "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, levels))])


@pytest.mark.parametrize(
    "text, why",
    [
        (_bomb(9), "more than 50000 values, counting aliases in full (line 5)"),
        (_bomb(200), "more than 50000 values"),
        ("a: &a {x: 1}\n" + "b: {<<: [*a,*a]}\n" * 20_000, "more than 50000 values"),
        (_ladder(100), "more than 60 levels deep"),
        ("a: " + "[" * 100_000, "more than 60 levels deep"),
        ("a: " + "{a: " * 100_000, "more than 60 levels deep"),
        ("- " * 100_000, "more than 60 levels deep"),
        ("a: &a [*a]", "the alias *a stands for what it is part of (line 1)"),
        ("a: *b", "the alias *b stands for"),
        ("a: " + "1" * 4200, "a text has 4200 characters"),
        ("a: [" + "1," * 200_000, "more than 50000 values"),
        ("a: 2020-99-99", "cannot be read: month must be in 1..12"),
        ("a: !!python/object/apply:functools.partial [1]", "cannot be read: "),
        ("a: !!python/object/new:functools.partial [1]", "cannot be read: "),
        ("#" * (3 << 20), "of at most 2 MiB, got 3 MiB"),
    ],
)
def test_a_file_that_is_no_config_is_refused_early_by_its_name(tmp_path, text, why):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as e:
        load_config(str(path), [])
    assert str(path) in str(e.value) and why in str(e.value)


def test_a_file_at_the_limit_of_depth_is_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("a: " + "{a: [" * 28 + "1" + "]}" * 28)
    assert load_config(str(path), [])


def test_aliases_of_a_usual_size_are_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("a: &a [1, 2]\nb: &b {c: *a}\nd: {<<: *b, e: *a}")
    cfg = load_config(str(path), [])
    assert cfg.d.c == [1, 2] and cfg.d.e == [1, 2]
