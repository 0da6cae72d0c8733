"""What a library's error says first becomes a part of a sentence."""

import pytest

from mmctr.errors import first_line


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no luck.\nand more"), "no luck"),
        (ValueError("  \n\n no luck"), "no luck"),
        (KeyError(), "KeyError"),
        (OSError(2, "No such file"), "[Errno 2] No such file"),
    ],
)
def test_the_first_line_of_an_error_fits_into_a_sentence(error, expected):
    assert first_line(error) == expected
