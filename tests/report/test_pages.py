"""What the pages of a report show."""

from mmctr.evaluation.verdict import Verdict
from mmctr.report import pages
from mmctr.report.reports import Report


def test_every_link_of_every_page_leads_somewhere(made):
    report, out = made
    files = [out / "index.html", *report.folder.glob("*.html")]
    for page in files:
        text = page.read_text()
        links = [part.split('"')[0] for part in text.replace("src=", "href=").split('href="')[1:]]
        for link in links:
            if link.startswith("#"):
                assert f'id="{link[1:]}"' in text, link
            else:
                assert (page.parent / link).exists(), f"{page.name} links {link}"


def test_untrusted_text_is_shown_as_text(made):
    report, _ = made
    assert "<script>alert(1)" not in (report.folder / "01_explore.html").read_text()
    assert "&lt;script&gt;alert(1)" in (report.folder / "01_explore.html").read_text()
    figure = (report.folder / "02_embeddings.html").read_text()
    assert "</script><b>" not in figure
    assert "\\u003c/script>\\u003cb>" in figure


def test_a_page_begins_with_its_answer_and_so_does_the_index(made):
    report, out = made
    text = (report.folder / "05_compare.html").read_text()
    answer = '<p class="answer">v4 &lt;b&gt;wins&lt;/b&gt;</p>'
    assert answer in text.split("</h1>")[1].split("<p>")[0]
    assert ">lab<" not in text, "what JupyterLab shows instead stays out of pages"
    assert answer in (out / "index.html").read_text()
    assert Report.load(report.folder).answer == "v4 <b>wins</b>"


def test_a_verdict_is_a_card_whose_numbers_are_asked_for():
    found = Verdict("a < b", False, [("lead", "+0.1 <i>")], "More & more.")
    html = pages.answer_html(found.as_dict())
    assert '<p class="headline">a &lt; b</p>' in html
    assert "<dt>lead</dt><dd>+0.1 &lt;i&gt;</dd>" in html
    assert "<p>More &amp; more.</p></details>" in html
    clear = Verdict("a", True, [], "")
    html = pages.answer_html(clear.as_dict())
    assert "<b>a</b>" in html, "bold says that it is not chance"
    assert "<details>" not in html, "there are no more numbers"


def test_a_caption_belongs_to_its_figure(made):
    report, _ = made
    text = (report.folder / "05_compare.html").read_text()
    figure = text.split('<figure class="drawing">')[1].split("</figure>")[0]
    assert "plotly-figure" in figure
    assert "<figcaption>See &lt;b&gt;this&lt;/b&gt;</figcaption>" in figure


def test_plotly_is_stored_once_and_pages_need_no_network(made):
    report, out = made
    assert (out / "assets" / "plotly.min.js").stat().st_size > 1e6
    for page in report.folder.glob("*.html"):
        text = page.read_text()
        assert len(text) < 1e5, "something large was put into the page"
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text


def test_progress_bars_and_records_stay_out_of_pages(made):
    report, _ = made
    text = (report.folder / "03_train_v4_seed1.html").read_text()
    assert '<pre class="text">' not in text, "it shows neither bar nor record"
