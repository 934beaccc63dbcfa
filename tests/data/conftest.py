"""Fixtures of the tests of data."""

from tests.data.file_server import server

__all__ = ["server"]
