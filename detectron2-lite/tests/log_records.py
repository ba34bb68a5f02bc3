"""What loggers are told, for tests to look at."""

import contextlib
import logging


@contextlib.contextmanager
def captured(*logger_names: str):
    """The records of some loggers, whether or not they propagate."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    loggers = [logging.getLogger(name) for name in logger_names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield records
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


def messages(records: list[logging.LogRecord]) -> str:
    return "\n".join(record.getMessage() for record in records)
