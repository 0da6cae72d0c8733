"""A dataset whose clicks are easy to learn."""

import pytest

from tests.checkerboard import checkerboard


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    """Items of two kinds; a user clicks items of the kind of their only earlier click."""
    return checkerboard(tmp_path_factory.mktemp("easy"))
