"""Tests whose oracle is a package, and needs a newer version of it than loadtrt does."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from packaging.version import Version


def needs(package: str, oldest: str, why: str) -> pytest.MarkDecorator:
    """Skip a test where `package` is older than `oldest`, and say why."""
    here = version(package)
    return pytest.mark.skipif(Version(here) < Version(oldest), reason=f"{package} {here}, older than {oldest}: {why}")
