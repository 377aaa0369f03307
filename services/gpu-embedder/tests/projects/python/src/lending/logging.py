import logging
import logging.handlers


def get_logger(name: str) -> logging.Logger:
    logger = logging.getLogger(name)
    logger.addHandler(logging.handlers.MemoryHandler(100))
    return logger
