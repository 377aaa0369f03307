"""What the log shows, and what it must not."""

from __future__ import annotations

import pytest
import structlog

from pharos_service import logs


@pytest.mark.parametrize("format", ["console", "json"])
def test_an_exception_is_logged_without_the_values_of_local_variables(
    format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(credential: str) -> None:
        raise RecursionError("too deep" if credential else "")

    before = structlog.get_config()
    try:
        logs.configure(service="test", format=format)
        try:
            fail("-".join(["hunter2"] * 2))
        except RecursionError as error:
            structlog.get_logger("fresh").error("request_failed", exc_info=error)
    finally:
        structlog.configure(**before)
        structlog.contextvars.clear_contextvars()
    shown = capsys.readouterr().err
    assert "request_failed" in shown
    assert "too deep" in shown
    assert "hunter2-hunter2" not in shown
