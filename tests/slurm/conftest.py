"""A SLURM for the tests that need one, and the reason where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from cluster import Cluster, cluster, missing


@pytest.fixture
def slurm() -> Iterator[Cluster]:
    """A running SLURM. Skips where it is not installed or this is not root; in CI that is an error."""
    if reason := missing():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    with cluster() as running:
        yield running
