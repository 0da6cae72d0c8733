"""The index of a report, and of all reports."""

import json
import shutil

from mmctr.report import index, reports
from mmctr.report.reports import Report


def test_index_shows_results_dataset_and_that_it_is_simulated(made):
    report, out = made
    for path, prefix in ((out / "index.html", f"{report.folder.name}/"), (report.index, "")):
        text = path.read_text()
        for run in report.load_runs():
            assert f"{run.summary['metrics']['auc']:.4f}" in text
            assert f'href="{prefix}03_train_{run.strategy}_seed1.html"' in text
        assert "Simulated demo data" in text
        assert report.dataset["fingerprint"] in text
        assert report.provenance["versions"]["torch"] in text
        assert "oracle" in text
        expected = "Negatives: impressions that were not clicked. a &lt;b&gt;half&lt;/b&gt;</p>"
        assert expected in text, "what 05 says that valid can show"


def test_index_lives_on_when_earlier_runs_were_deleted(made, tmp_path):
    report, out = made
    copy = tmp_path / "reports"
    shutil.copytree(out, copy)
    manifest = copy / report.folder.name / reports.MANIFEST
    values = json.loads(manifest.read_text())
    older = copy / "older"
    older.mkdir()
    gone = {"date": "2020-01-01T00:00:00+00:00", "runs": ["../../runs/gone"]}
    (older / reports.MANIFEST).write_text(json.dumps(values | gone))
    current = Report.load(copy / report.folder.name)
    current.runs = []
    index.publish(current, copy)
    assert 'href="older/index.html"' in (copy / "index.html").read_text()


def test_the_index_compares_reports_over_time(again):
    first, _ = again()
    second, _ = again(["v4"])
    text = (again.out / "index.html").read_text()
    assert "Reports over time" in text
    for report in (first, second):
        assert f'href="{report.folder.name}/index.html"' in text
    lines = {
        line.split("</td>")[0].rsplit(">", 1)[-1]: line
        for line in text.split("AUC by run")[1].split("</table>")[0].split("<tr>")[1:]
    }
    assert set(lines) == {"v1", "v4"}
    for run in first.load_runs():
        assert f"{run.summary['metrics']['auc']:.4f}" in lines[run.strategy]
        assert lines[run.strategy].count("<circle") == 1, "a run is shown once, however often used"
    assert "Reports over time" not in (second.folder / "index.html").read_text()


def test_sparkline_rises_with_its_values_and_stays_inside():
    points = index._sparkline([0.5, 0.7, 0.6], 0.4, 0.7)
    assert [x for x, _ in points] == [5, 80, 155]
    heights = [y for _, y in points]
    assert heights[1] < heights[2] < heights[0]
    assert all(0 < y < 28 for y in heights)
    assert index._sparkline([0.5], 0.5, 0.5) == [(5, 25)]
