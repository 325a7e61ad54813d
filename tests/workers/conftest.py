"""The bench of a measurement, whose worker may be forked."""

from tests.measure.conftest import bench

__all__ = ["bench"]
