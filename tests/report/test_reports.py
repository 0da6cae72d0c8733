"""The manifest of a report."""

from pathlib import Path

import pytest

from mmctr.errors import RunError
from mmctr.report import reports
from mmctr.report.reports import Report, latest_report


def test_manifest_reads_back_and_is_the_latest(made):
    report, out = made
    again = Report.load(report.folder)
    assert again.pages == report.pages
    assert again.runs == report.runs
    assert not any(Path(run).is_absolute() for run in again.runs)
    assert latest_report(out) == out / report.folder.name


@pytest.mark.parametrize("text", [None, "{", "[]", '{"pages": [{"name": 1}]}'])
def test_a_damaged_manifest_is_one_sentence(tmp_path, text):
    if text is not None:
        (tmp_path / reports.MANIFEST).write_text(text)
    with pytest.raises(RunError, match="is not a report"):
        Report.load(tmp_path)
    assert latest_report(tmp_path.parent) is None
