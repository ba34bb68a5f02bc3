import logging
import re

import pytest

from detectron2.utils.logger import (
    create_small_table,
    log_every_n,
    log_every_n_seconds,
    log_first_n,
    setup_logger,
)


@pytest.fixture
def name(request):
    """A logger name of its own for each test, without handlers afterwards."""
    name = f"logger_of_{request.node.name.split('[')[0]}"
    yield name
    logger = logging.getLogger(name)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


STAMP = r"\[\d\d/\d\d \d\d:\d\d:\d\d"


def test_rank_zero_prints_and_writes_to_the_file(name, tmp_path, capsys):
    logger = setup_logger(str(tmp_path), name=name)
    assert logger.level == logging.DEBUG and not logger.propagate
    logger.info("hello")
    out = plain(capsys.readouterr().out)
    assert re.fullmatch(rf"{STAMP} {name}\]: hello\n", out)
    assert re.fullmatch(rf"{STAMP}\] {name} INFO: hello\n", (tmp_path / "log.txt").read_text())


def test_other_ranks_write_to_files_of_their_own_only(name, tmp_path, capsys):
    setup_logger(str(tmp_path / "sub" / "my.log"), 2, name=name).info("hello")
    assert capsys.readouterr().out == ""
    assert "hello" in (tmp_path / "sub" / "my.log.rank2").read_text()


@pytest.mark.lite
@pytest.mark.parametrize("level", ["WARNING", "ERROR"])
def test_warnings_and_errors_have_a_prefix_on_the_screen(level, name, capsys):
    setup_logger(name=name).log(getattr(logging, level), "careful")
    assert plain(capsys.readouterr().out).startswith(f"{level} [")


def test_without_color_the_screen_shows_what_the_file_shows(name, capsys):
    setup_logger(name=name, color=False).warning("careful")
    assert re.fullmatch(rf"{STAMP}\] {name} WARNING: careful\n", capsys.readouterr().out)


def test_child_loggers_are_shown_with_an_abbreviated_root(name, capsys):
    setup_logger(name=name, abbrev_name="d2")
    logging.getLogger(f"{name}.utils.events").info("hello")
    assert " d2.utils.events]: hello" in plain(capsys.readouterr().out)


def test_an_empty_abbreviation_drops_the_root(name, capsys):
    setup_logger(name=name, abbrev_name="")
    logging.getLogger(f"{name}.utils").info("hello")
    assert " utils]: hello" in plain(capsys.readouterr().out)


def test_the_screen_can_be_left_alone(name, capsys):
    setup_logger(name=name, configure_stdout=False).info("hello")
    assert capsys.readouterr().out == ""


def test_propagation_can_be_enabled(name):
    assert setup_logger(name=name, enable_propagation=True).propagate


def test_the_same_call_twice_adds_nothing(name, tmp_path, capsys):
    setup_logger(str(tmp_path), name=name)
    setup_logger(str(tmp_path), name=name).info("hello")
    assert capsys.readouterr().out.count("hello") == 1
    assert (tmp_path / "log.txt").read_text().count("hello") == 1


@pytest.mark.lite
def test_other_arguments_for_the_same_target_do_not_double_its_lines(name, tmp_path, capsys):
    setup_logger(str(tmp_path), name=name)
    setup_logger(name=name, color=False)
    setup_logger(str(tmp_path / "log.txt"), name=name, abbrev_name="x").info("hello")
    assert capsys.readouterr().out.count("hello") == 1
    assert (tmp_path / "log.txt").read_text().count("hello") == 1


@pytest.mark.lite
def test_abbreviations_leave_the_record_alone(name, caplog):
    setup_logger(name=name, abbrev_name="d2", enable_propagation=True)
    logging.getLogger(f"{name}.a").info("hello")
    assert caplog.records[0].name == f"{name}.a"


def test_the_small_table_has_a_column_per_key_and_three_decimals():
    lines = create_small_table({"AP": 12.34567, "AP50": 30.0}).splitlines()
    assert lines[0].split() == ["|", "AP", "|", "AP50", "|"]
    assert lines[2].split() == ["|", "12.346", "|", "30.000", "|"]


@pytest.mark.lite
def test_log_first_n_counts_per_calling_line(caplog):
    for i in range(4):
        log_first_n(logging.WARNING, f"message {i}", n=2)
    assert [r.message for r in caplog.records] == ["message 0", "message 1"]
    assert caplog.records[0].filename == "test_utils_logger.py"


def test_log_first_n_can_count_per_message_and_log_elsewhere(caplog):
    for text in ["a", "b", "a"]:
        log_first_n(logging.WARNING, f"{text} of messages", name="elsewhere", key="message")
    assert [r.message for r in caplog.records] == ["a of messages", "b of messages"]
    assert caplog.records[0].name == "elsewhere"


@pytest.mark.lite
def test_log_first_n_refuses_unknown_keys():
    with pytest.raises(ValueError, match="'caller', 'message'.* got 'line'"):
        log_first_n(logging.INFO, "x", key="line")


def test_log_every_n_seconds_is_silent_in_between(caplog):
    for n in [100, 100, -1]:
        log_every_n_seconds(logging.WARNING, f"after {n}", n=n)
    assert [r.message for r in caplog.records] == ["after 100", "after -1"]


def test_log_every_n_counts_per_calling_line(caplog):
    for i in range(5):
        log_every_n(logging.WARNING, f"third {i}", n=3)
        log_every_n(logging.ERROR, f"each {i}", name="elsewhere")
    thirds = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    each = [r.message for r in caplog.records if r.name == "elsewhere"]
    assert thirds == ["third 0", "third 3"]
    assert each == [f"each {i}" for i in range(5)]
