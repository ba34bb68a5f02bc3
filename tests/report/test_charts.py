"""Charts: what is drawn is where the numbers say."""

import re

import pytest

from mimdet.report.charts import Bar, Series, bars, line_chart, short


def paths(svg: str) -> list[str]:
    """The data lines of a chart."""
    return re.findall(r'<title>[^<]*</title><path d="([^"]*)"/>', svg)


def test_a_line_goes_from_corner_to_corner_of_its_axes():
    svg = line_chart([Series("a", [(0, 0.0), (10, 1.0)])], "x", "y", y_range=(0, 1))
    assert paths(svg) == ["M48.0 202.0L390.0 8.0"]


def test_on_a_scale_of_powers_of_ten_the_middle_is_the_geometric_mean():
    points = [(0, 1.0), (1, 10.0), (2, 100.0)]
    svg = line_chart([Series("a", points)], "x", "y", log_y=True, y_range=(1, 100))
    assert paths(svg) == ["M48.0 202.0L219.0 105.0L390.0 8.0"]


def test_a_missing_value_is_a_gap_and_a_single_point_a_dot():
    svg = line_chart([Series("a", [(0, 0.0), (1, 1.0), (2, None), (3, 1.0)])], "x", "y")
    (path,) = paths(svg)
    assert path.count("M") == 2 and path.count("L") == 1
    assert svg.count("<circle") == 1


@pytest.mark.parametrize("log_y", [False, True])
@pytest.mark.parametrize("values", [[3.0], [3.0, 3.0], [0.0, -1.0], [1e-9, 1e9]])
def test_any_values_are_drawn_inside_the_chart(values, log_y):
    svg = line_chart([Series("a", list(enumerate(values)))], "x", "y", log_y=log_y)
    for x, y in re.findall(r"[ML](\S+) ([\d.-]+)", "".join(paths(svg))):
        assert 48 <= float(x) <= 390 and 8 <= float(y) <= 202


def test_an_axis_of_one_value_tells_it_once():
    svg = line_chart([Series("a", [(300, 16.1)]), Series("b", [(300, 32.0)])], "iteration", "y")
    assert svg.count(">300<") == 1


@pytest.mark.parametrize("points", [[], [(0, None)], [(0, float("nan"))]])
def test_without_values_there_is_a_sentence(points):
    assert "No values" in line_chart([Series("a", points)], "x", "y")
    assert "No values" in bars([Bar("a", None, "-")])


def test_names_of_strangers_are_text():
    name = "<script>alert(1)</script>"
    for drawn in (
        line_chart([Series(name, [(0, 1.0)]), Series("b", [(0, 2.0)])], name, name, title=name),
        bars([Bar(name, 1.0, name)]),
    ):
        assert "<script" not in drawn and "&lt;script" in drawn


def test_a_small_constant_is_no_line_at_zero():
    svg = line_chart([Series("a", [(0, 1e-3), (1, 1e-3)])], "x", "y")
    assert ">1e-3<" in svg and ">-" not in svg
    assert paths(svg) == ["M48.0 17.2L390.0 17.2"]


def test_series_keep_their_colours_when_another_has_no_values():
    svg = line_chart([Series("a", []), Series("b", [(0, 1.0), (1, 2.0)])], "x", "y")
    assert 'class="s1"' in svg and 'class="s0"' not in svg


def test_the_longest_bar_is_full_and_the_others_in_proportion():
    widths = re.findall(r"width:([\d.]+)%", bars([Bar("a", 4.0, ""), Bar("b", 1.0, "")]))
    assert widths == ["100.0", "25.0"]
    assert "width:40.0%" in bars([Bar("a", 4.0, "")], maximum=10)


@pytest.mark.parametrize(
    "value, text",
    [(0, "0"), (0.00025, "2.5e-4"), (-0.002, "-2e-3"), (0.0123, "0.0123"), (1.5, "1.5")]
    + [(250, "250"), (1234, "1234"), (12345, "12.3k"), (2.5e6, "2.5M"), (4e11, "4e11")],
)
def test_short_numbers(value, text):
    assert short(value) == text


def test_a_deviation_is_an_upright_line_for_which_the_axis_makes_room():
    points = [(0, 2.0), (1, 3.0), (2, None)]
    series = Series("a", points, deviations=[1.0, None, 1.0])
    (path,) = paths(line_chart([series], "x", "y", x_range=(0, 2), y_range=(0, 4)))
    assert path == "M48.0 105.0L219.0 56.5M48.0 153.5V56.5"
    high = Series("a", [(0, 2.0), (1, 3.0)], deviations=[9.0, 1.0])
    (path,) = paths(line_chart([high], "x", "y"))
    low, top = map(float, re.search(r"M48.0 ([\d.]+)V([\d.]+)", path).groups())
    assert 8 <= top < low <= 202
