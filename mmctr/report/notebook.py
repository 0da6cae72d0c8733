"""What the notebooks share: opening data and runs, plain error sentences, covers as HTML."""

import json
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from IPython import get_ipython
from IPython.display import HTML, Markdown, display
from pandas.api.types import is_numeric_dtype
from pandas.io.formats.style import Styler

from mmctr.content.fusion import available_strategies
from mmctr.data.catalog import Catalog
from mmctr.data.dataset import Dataset
from mmctr.data.demo import find_data
from mmctr.data.erroneous import excluding
from mmctr.data.wording import stated
from mmctr.errors import ConfigError, MMCTRError, RunError
from mmctr.evaluation.backtest import FACTS, Backtest
from mmctr.evaluation.compare import listed
from mmctr.evaluation.ledger import Ledger
from mmctr.evaluation.listing import require_comparable
from mmctr.evaluation.study import Study, find_studies
from mmctr.evaluation.verdict import Verdict
from mmctr.files import DEMO, find, home
from mmctr.report import export
from mmctr.report.figures.style import assign_colors, in_words
from mmctr.report.pages import ANSWER, CAPTION, FIGURE, LEDGER, LIBRARY, RECORD, answer_html
from mmctr.report.reports import Report, latest_report
from mmctr.report.widgets import panel
from mmctr.runs.card import commit
from mmctr.runs.provenance import describe, find_dataset, require_same
from mmctr.runs.run import Run, find_run, readable_runs
from mmctr.runs.train import train
from mmctr.training.config import NOTHING, configs

# A text as it is given to a notebook: papermill and YAML make a number of the name 20241231,
# a boolean of no, and None of null.
Given = str | float | None


def start() -> None:
    """Prepare a notebook: errors as one sentence, figures as data that a page draws itself."""
    shell = get_ipython()
    if shell is not None:
        shell.set_custom_exc((MMCTRError,), _show_sentence)
        # plotly's default renderer leaves nbconvert's pages without figures (plotly 6 and later),
        # and its renderers take seconds to import.
        shell.display_formatter.ipython_display_formatter.for_type(go.Figure, _show_figure)
        display({LIBRARY: {"packed": True}, "text/html": export.library_html()}, raw=True)


def text(given: Given) -> str:
    """What a parameter says as text; empty for nothing."""
    return "" if given in NOTHING or given is False else str(given)


def by_comma(given: Given | list[Given]) -> list[str]:
    """The words of a parameter that names several by comma, or as a list of YAML."""
    words = map(text, given) if isinstance(given, list) else text(given).split(",")
    return [word.strip() for word in words if word.strip()]


def seeds_of(given: Given | list[Given]) -> list[int]:
    """The seeds that a parameter names by comma; ConfigError unless there are some."""
    try:
        seeds = [int(word) for word in by_comma(given)]
    except ValueError:
        seeds = []
    if not seeds:
        raise ConfigError(f"Seeds are {given!r}, expected whole numbers such as 1,2.")
    return seeds


def row_of(given: Given, dataset: Dataset) -> int | None:
    """The row of valid that a parameter names by its place; None for nothing.

    Raises ConfigError for what is none.
    """
    name, rows = text(given), len(dataset.valid)
    if name and not (name.isdecimal() and int(name) < rows):
        raise ConfigError(
            f"Row is {given!r}, expected a number from 0 to {rows - 1}, a row of valid: those of "
            "the error atlas of 03_train have theirs below them."
        )
    return int(name) if name else None


def open_dataset(data: Given, exclude: Given | list[Given] = None) -> Dataset:
    """Load a dataset; the demo is made first if it, or None, is asked for and not there yet.

    exclude: kinds of errors.parquet that are left out, by comma or as a list.
    """
    dataset = Dataset.load(find_data(DEMO if data in NOTHING else str(data), say))
    dataset = excluding(dataset, ",".join(by_comma(exclude)))
    if dataset.exclusion is not None:
        say(f"Left out as erroneous: {dataset.exclusion.in_words()}.")
    assign_colors(available_strategies(dataset.catalog))
    _say_data(describe(dataset))
    return dataset


def open_run(run: Given, dataset: Dataset) -> Run:
    """A run by its folder; without one the latest on these data, or else a quick new one."""
    if name := text(run):
        found = Run.load(find(name))
        found.require_fit(dataset)
    else:
        there = readable_runs((home() / "runs").glob("*"))
        fitting = [found for found in there if _trained_on(found, dataset)]
        fitting.sort(key=lambda found: found.summary.get("date", ""))
        found = fitting[-1] if fitting else _quick_run(dataset, "v4", seed=1)
    say(f"Run: {found.name}, strategy {found.strategy}, seed {found.seed}.")
    say(first_look(found))
    return found


def data_of(runs: Given | list[Given]) -> str | None:
    """The dataset's folder of the first of some named runs; None if none is named."""
    names = by_comma(runs)
    first = find_run(names[0]) if names else None
    return str(find_dataset(first.summary["dataset"], first.folder)) if first else None


def open_runs(report: Given, dataset: Dataset, runs: Given | list[Given] = None) -> list[Run]:
    """The named runs, by comma, or those of a report folder.

    Without either those of the latest report on these data; if there is none, every strategy is
    trained quickly with two seeds. Raises RunError for named runs that are not comparable.
    """
    if names := by_comma(runs):
        found = list({run.address: run for run in map(find_run, names)}.values())
        require_comparable(found)
        require_same(found[0].summary["dataset"], dataset, found[0].folder)
        say(f"Runs: {listed([run.address for run in found])}.")
        _say_first_looks(found)
        return found
    name = text(report)
    folder = find(name) if name else latest_report(home() / "reports")
    if folder is not None:
        found = Report.load(folder).load_runs()
        if found and all(_trained_on(run, dataset) for run in found):
            say(f"Report: {folder.name}, {len(found)} runs.")
            _say_first_looks(found)
            return found
        if name:
            raise ConfigError(
                f"Report {folder} has no runs on {dataset.folder}: choose another report or data."
            )
    strategies = [name for name in available_strategies(dataset.catalog) if ":" not in name]
    return [_quick_run(dataset, name, seed) for name in strategies for seed in (1, 2)]


def open_study(study: Given) -> Study:
    """A study by its folder; without one the latest below runs."""
    name = text(study)
    folders = [find(name)] if name else find_studies(home() / "runs")
    if not folders:
        raise RunError("There is no study yet: run mmctr search first.")
    found = Study.load(folders[-1])
    strategy = found.facts["strategy"]
    say(f"Study: {found.folder.name}, {found.done} trials of strategy {strategy}.")
    _say_data(found.facts["dataset"])
    return found


def open_backtest(backtest: Given) -> Backtest:
    """A backtest by its folder; without one the latest below runs."""
    name = text(backtest)
    there = sorted((home() / "runs").glob(f"*/{FACTS}"), key=lambda path: path.stat().st_mtime)
    folders = [find(name)] if name else [path.parent for path in there]
    if not folders:
        raise RunError("There is no backtest yet: run mmctr backtest first.")
    tested = Backtest.load(folders[-1])
    facts, done = tested.facts, len(tested.windows)
    say(
        f"Backtest: {tested.folder.name}, {done} of {facts['windows']} windows, strategy "
        f"{facts['strategy']}, seed {facts['parameters']['seed']}."
    )
    _say_data(facts["dataset"])
    return tested


def record(**values: object) -> None:
    """Keep values in the executed notebook, where the report and tests read them."""
    words = "Recorded: " + ", ".join(f"{name} = {value}" for name, value in values.items())
    display({RECORD: values, "text/plain": words}, raw=True)


def say(words: str) -> None:
    """Show a sentence, if there is one."""
    if words:
        display(HTML(f"<p>{escape(words)}</p>"))


def section(words: str) -> None:
    """Begin a section that not all data have, by its heading and words in Markdown."""
    display(Markdown(words))


def answer(found: str | Verdict) -> None:
    """Show what the notebook found, a paragraph or a card; a report puts it below the title."""
    kept = found if isinstance(found, str) else found.as_dict()
    display({ANSWER: kept, "text/html": answer_html(kept)}, raw=True)


def ledger(dataset: Dataset, runs: list[Run], differences: pd.DataFrame | None = None) -> None:
    """Show where negatives come from, popularity beside the runs, and what valid can show.

    differences: as of Ledger.of. A report's index shows it too.
    """
    words = Ledger.of(runs, differences).words
    shown = escape(f"{dataset.wording.negatives} {words}")
    display({LEDGER: words, "text/html": f"<p>{shown}</p>"}, raw=True)


def show(content: object, caption: str) -> None:
    """Show a figure, a table or covers with a caption that says what to see, and ways to save it.

    Of a figure the caption goes on with what its lines and marks mean.

    A report's page has its own.
    """
    saving = ""
    if isinstance(content, go.Figure):
        caption = f"{caption} {in_words(content)}".strip()
        saving = export.figure_buttons(caption)
    elif isinstance(content, Styler):
        saving = export.table_link(content.data, caption)
    display(content)
    display({CAPTION: caption, "text/html": f"<p><i>{escape(caption)}</i> {saving}</p>"}, raw=True)


def table(frame: pd.DataFrame, **formats: object) -> Styler:
    """A table without its index, its texts shown as text; formats as of pandas' Styler.format.

    Words start at the left, which JupyterLab would put at the right as it does numbers.
    """
    words = [
        {"selector": f".col{place}", "props": "text-align: left"}
        for place, (_, column) in enumerate(frame.items())
        if not is_numeric_dtype(column) and column.astype(str).str.contains(r"[^\W\d_]").any()
    ]
    styled = frame.style.hide().set_table_styles(words)
    return styled.format(**formats, escape="html").format_index(escape="html", axis=1)


def origin(run: Run) -> Styler:
    """A table of what a run's numbers come from: data, parameters, software, machine, time."""
    summary, model, training = run.summary, run.config["model"], run.config["training"]
    hardware, seconds = (summary.get(name) or {} for name in ("hardware", "seconds"))
    facts = {
        "run": run.name,
        "date": summary.get("date"),
        "fusion and training (seconds)": f"{seconds['fusion']:.1f} and {seconds['training']:.1f}",
        "data's fingerprint": summary["dataset"]["fingerprint"],
        "strategy": run.strategy,
        "SHA-256 of its item embedding": summary.get("item_embedding_sha256"),
        "weights that are trained": f"{summary['parameters']:,}",
        "best epoch": str(summary.get("best_epoch")),
        "parameters of the model": _listed(model),
        "parameters of training": _listed(training),
        **_left_out(run),
        **({"learned from": run.first_look} if run.first_look else {}),
        "versions": _listed(summary.get("versions", {})),
        "git commit": commit(summary),
        "machine": _listed({"device": summary.get("device")} | hardware),
    }
    return table(pd.DataFrame(facts.items(), columns=["fact", "value"]))


def first_look(run: Run) -> str:
    """A sentence of warning for a run that learned from a part of train; empty for others."""
    look = run.first_look
    return f"Learned from {look}. With all of train its numbers would be others." if look else ""


def in_force(run: Run, names: list[str]) -> str:
    """What some parameters of a run are, whether they were given or the preset's, in words."""
    values = run.config["model"] | run.config["training"]
    return f"In force: {', '.join(f'{name} {values[name]}' for name in names if name in values)}."


def covers(catalog: Catalog, items: np.ndarray, notes: list[str] | None = None) -> HTML:
    """Items as a strip of covers with titles, and a note below each if given."""
    pairs = zip(items, notes or [""] * len(items), strict=True)
    tiles = [panel.tile_html(catalog, int(item), note=note) for item, note in pairs]
    return panel.static_page(panel.strip_html(tiles))


def _say_data(data: dict[str, Any]) -> None:
    kind = "simulated: it proves nothing about real clicks" if data["simulated"] else "real"
    facts = f"Data: {data['name']} ({kind}), fingerprint {data['fingerprint']}."
    say(f"{facts} {stated(data).negatives}")


def _say_first_looks(runs: list[Run]) -> None:
    for words in dict.fromkeys(map(first_look, runs)):
        say(words)


def _left_out(run: Run) -> dict[str, str]:
    """What a run was trained without, in words; empty if nothing was left out."""
    return {} if run.exclusion is None else {"left out as erroneous": run.exclusion.in_words()}


def _listed(values: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _show_figure(figure: go.Figure) -> None:
    found = json.loads(figure.to_json())
    html = export.figure_html(found)
    display({FIGURE: found, "text/html": html, "text/plain": "(a plotly figure)"}, raw=True)


def _show_sentence(shell, kind, error, traceback, tb_offset=None) -> None:
    shell._showtraceback(kind, error, [f"{kind.__name__}: {error}"])


def _quick_run(dataset: Dataset, strategy: str, seed: int) -> Run:
    say(f"No finished run on these data: training {strategy}, seed {seed}, for one epoch.")
    return train(dataset, strategy, *configs(seed=seed, epochs=1), home() / "runs")


def _trained_on(run: Run, dataset: Dataset) -> bool:
    same = run.summary["dataset"]["fingerprint"] == dataset.fingerprint
    return same and not run.has_other_ids(dataset.catalog)
