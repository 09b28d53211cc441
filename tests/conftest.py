"""What every test runs under: one thread a library, a kept compile cache, no skip without a reason."""

import os
from collections.abc import Generator
from typing import TypeVar

from cluster import environment

environment.prepare()  # before numba and torch are imported, which read what it sets once

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

GOOD_REASONS = ("needs a GPU", "needs two GPUs", "needs Linux")
"""How the reason of a skip may begin; whatever else a test needs, `make setup` installs."""

settings.register_profile(
    "tamen",
    deadline=None,  # machines are shared; no test asserts a time
    derandomize="CI" in os.environ,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tamen")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _without_bad_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _without_bad_skip((yield))


def _without_bad_skip(report: Report) -> Report:
    """Turn a skip into a failure unless its reason is a good one; an expected failure is no skip."""
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        path, line, message = report.longrepr
        reason = message.removeprefix("Skipped: ")
        if not reason.startswith(GOOD_REASONS):
            report.outcome = "failed"
            report.longrepr = (
                f"{path}:{line}: skipped because {reason!r}\n"
                f"a reason begins with one of {', '.join(map(repr, GOOD_REASONS))} (tests/conftest.py)"
            )
    return report
