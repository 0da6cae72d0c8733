"""Reports: papermill runs the notebooks, nbconvert makes pages, an index ties them.

A report is a folder below reports/: a page and an executed notebook for each step, its own
index.html, and report.json with everything that the index says. reports/index.html shows the
latest report beside the earlier ones. plotly.js is stored once, in reports/assets/.

A notebook is executed once for the same inputs: its source, its parameters, the dataset, the
library and the runs that it reads. A report that was killed, or is asked for again, goes on in its
folder; a new one takes over the pages whose inputs are those of an earlier one.
"""

import re
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from mmctr.content.fusion import available_strategies, check_strategy
from mmctr.data.dataset import Dataset
from mmctr.data.erroneous import errors_hash, excluding
from mmctr.errors import ConfigError, MMCTRError, RunError
from mmctr.evaluation.ablation import SHARED
from mmctr.evaluation.study import TRIALS, find_studies
from mmctr.files import NOTEBOOKS, alone, home
from mmctr.report import execution
from mmctr.report.figures.style import assign_colors
from mmctr.report.index import overview, publish
from mmctr.report.pages import article, write_assets, write_page
from mmctr.report.reports import MANIFEST, Page, Report, all_reports
from mmctr.runs.provenance import describe, provenance
from mmctr.runs.run import Run
from mmctr.training.config import configs

OF_RUNS = ("05_compare", "09_new_items")  # notebooks that read all runs of their report
READING_RUNS = ("04_attention", *OF_RUNS)  # 04_attention reads the best


def make_report(
    data: Path,
    strategies: list[str],
    seeds: list[int],
    out: Path,
    *,
    notebooks: Path = NOTEBOOKS,
    parameters: dict[str, Any] | None = None,
    ablation: bool = False,
    challenge: bool = False,
    exclude: str | None = None,
) -> Report:
    """Run all notebooks on a dataset and write their pages and the index below `out`.

    parameters: of 03_train, for every strategy and seed. ablation: 06_ablation too, which trains
    about thirty models for each seed. challenge: 08_challenge too, which trains the challenge's
    systems, large ones among them. exclude: kinds of errors.parquet that 03_train leaves out, by
    comma. Notebooks that ran before on the same inputs are not run
    again. A notebook that fails leaves the others' pages as they are; the index names the cell and
    the reason. Raises DataError, ConfigError before anything runs if data, a strategy, a seed or a
    parameter cannot be used, or if the same report is being made; RunError, that says how to go on,
    after an interruption from the keyboard.
    """
    dataset = Dataset.load(data)
    excluding(dataset, exclude)
    # A strategy or seed named twice would be two pages in one file.
    strategies, seeds = list(dict.fromkeys(strategies)), list(dict.fromkeys(seeds))
    for strategy in strategies:
        check_strategy(dataset.catalog, strategy)
    parameters = parameters or {}
    for seed in seeds:
        configs(**parameters | {"seed": seed})
    assign_colors(available_strategies(dataset.catalog))
    chosen = _as_injected(parameters, notebooks) | ({"exclude": exclude} if exclude else {})
    pages = _plan(dataset, strategies, seeds, chosen)
    chosen = {"data": str(dataset.folder), "seeds": ",".join(map(str, seeds))}
    chosen |= {name: parameters.get(name) for name in SHARED}
    if ablation:
        pages.append(Page("06_ablation", "06_ablation", dict(chosen)))
    pages += _studies(dataset)
    if challenge:
        pages.append(Page("08_challenge", "08_challenge", dict(chosen)))
    pages.append(Page("09_new_items", "09_new_items", {"data": str(dataset.folder)}))
    facts = describe(dataset) | {"errors_sha256": errors_hash(dataset.folder)}
    planned = Report(out, facts, strategies, seeds, pages, provenance=provenance())
    report = _begin(planned, out, notebooks)
    with alone(report.folder, "being made by"):
        write_assets(out)
        if not (report.folder / MANIFEST).exists():
            publish(report, out)
        try:
            _make_pages(report, out, notebooks)
        except KeyboardInterrupt:
            finished = sum(page.status == "ok" for page in report.pages)
            raise RunError(
                f"The report was stopped and {report.folder} keeps what is finished, {finished} of "
                f"{len(report.pages)} pages: go on with the same command."
            ) from None
    return report


def make_page(notebook: str, dataset: Dataset, parameters: dict[str, Any], folder: Path) -> Path:
    """Run one notebook outside a report and write its page into a folder, over an older one.

    Raises MMCTRError if the notebook fails; the page then says where.
    """
    page = Page(notebook, notebook, parameters)
    report = Report(folder, describe(dataset), [], [], [page], provenance=provenance())
    folder.mkdir(parents=True, exist_ok=True)
    write_assets(folder.parent)
    _make_page(page, report, folder.parent, NOTEBOOKS)
    path = folder / page.file
    if page.status == "failed":
        raise MMCTRError(f"{path} failed: {page.error}")
    shutil.copyfile(path, report.index)  # the page's own links lead there
    return path


def write_single_file(report: Report) -> Path:
    """All pages of a report as one HTML file that needs no other: for e-mail, read offline."""
    from plotly.offline import get_plotlyjs

    url = "#{0.name}".format
    parts = [overview(report, url)]
    for page in report.pages:
        if report.executed(page).exists():
            part = article(report.executed(page), page, report, url)
            # Pages of the same notebook have the same headings: their anchors would be doubles.
            part["html"] = re.sub(r'<(h\d) id="[^"]*"', r"<\1", part["html"])
            parts.append(part)
    path = report.folder / f"{report.folder.name}.html"
    write_page(path, parts, report, plotly=get_plotlyjs())
    return path


def _plan(
    dataset: Dataset, strategies: list[str], seeds: list[int], parameters: dict[str, Any]
) -> list[Page]:
    data = {"data": str(dataset.folder)}
    pages = [Page(name, name, dict(data)) for name in ("01_explore", "02_embeddings")]
    for strategy in strategies:
        for seed in seeds:
            chosen = data | parameters | {"strategy": strategy, "seed": seed}
            pages.append(Page(f"03_train_{_as_name(strategy)}_seed{seed}", "03_train", chosen))
    return pages + [Page(name, name, dict(data)) for name in ("04_attention", "05_compare")]


def _as_injected(parameters: dict[str, Any], notebooks: Path) -> dict[str, Any]:
    """Parameters as 03_train takes them: those without a name in its cell go into `more`."""
    first = next(s for s in execution.source_of(notebooks / "03_train.ipynb") if "\nseed = " in s)
    own = set(re.findall(r"^(\w+) = ", first, flags=re.MULTILINE))
    named = {name: value for name, value in parameters.items() if name in own}
    more = {name: value for name, value in parameters.items() if name not in own}
    return named | ({"more": more} if more else {})


def _contents(data: dict[str, Any]) -> list[str | None]:
    """What the pages on a dataset depend on, wherever it lies: numbers, and what they stand for."""
    names = ("fingerprint", "item_ids_sha256", "tag_names_sha256", "errors_sha256")
    return [data.get(name) for name in names]


def _studies(dataset: Dataset) -> list[Page]:
    """A page of the latest search on a dataset, if there was one."""
    folders = find_studies(home() / "runs", dataset.fingerprint)[-1:]
    return [Page("07_search", "07_search", {"study": str(folder)}) for folder in folders]


def _begin(report: Report, out: Path, notebooks: Path) -> Report:
    """A planned report, or the earlier one of its inputs: not finished, or asked for again."""
    names = {page.notebook for page in report.pages}
    sources = [path for path in sorted(notebooks.glob("*.ipynb")) if path.stem in names]
    report.inputs = execution.hash_of(
        execution.library_hash(),
        *map(execution.source_of, sources),
        {name: fact for name, fact in report.dataset.items() if name != "folder"},
        [report.provenance["versions"], report.strategies, report.seeds],
        [(page.name, execution.without_places(page.parameters)) for page in report.pages],
    )
    for earlier in all_reports(out):
        if earlier.inputs == report.inputs:
            # Data and runs may have been moved since.
            earlier.dataset = report.dataset
            for page, planned in zip(earlier.pages, report.pages, strict=True):
                page.parameters = planned.parameters
            return earlier
    date = datetime.fromisoformat(report.date)
    report.folder = _new_folder(out, f"{_as_name(report.dataset['name'])}-{date:%Y%m%d-%H%M%S}")
    return report


def _make_pages(report: Report, out: Path, notebooks: Path) -> None:
    """Make all pages, some side by side; those that read runs come when the others are there."""
    from mmctr.report.kernel import OwnKernel, at_once

    report.runs, done = [], set()
    with tqdm(total=len(report.pages), unit="page") as bar:
        for reading in (False, True):
            pages = [page for page in report.pages if (page.notebook in READING_RUNS) == reading]
            with ThreadPoolExecutor(at_once()) as pool:
                made = {pool.submit(_make_page, p, report, out, notebooks): p for p in pages}
                try:
                    bar.set_description(pages[0].name)
                    for future in as_completed(made):
                        page, reused = made[future], future.result()
                        done.add(page.name)
                        report.runs = [p.run for p in report.pages if p.run and p.name in done]
                        if reused:
                            told = f"{page.name}: reused, its inputs are unchanged"
                            bar.write(told, file=sys.stderr)
                        bar.set_description(", ".join(made[f].name for f in made if f.running()))
                        bar.update()
                        publish(report, out)
                finally:
                    # Interrupted: what runs is ended, and nothing else begun.
                    pool.shutdown(wait=False, cancel_futures=True)
                    while not all(future.done() for future in made):
                        OwnKernel.kill_all()
                        time.sleep(0.1)
                    for page in made.values():
                        if page.name not in done and page.status == "failed":
                            (report.folder / page.file).unlink(missing_ok=True)


def _make_page(page: Page, report: Report, out: Path, notebooks: Path) -> bool:
    """Execute a page's notebook, whatever happens in it, or reuse it; whether it was reused."""
    executed = report.executed(page)
    executed.parent.mkdir(exist_ok=True)
    started = time.perf_counter()
    reused = False
    try:
        if page.notebook in READING_RUNS:
            best = str(_best_run(report).folder)
            of_one = page.notebook == "04_attention"
            read = {"run": best} if of_one else {"report": str(report.folder)}
            page.parameters = page.parameters | read
        compared = report.runs if page.notebook in OF_RUNS else []
        study = page.parameters.get("study")  # it grows without any change of parameters
        inputs = execution.hash_of(
            execution.library_hash(),
            execution.source_of(notebooks / f"{page.notebook}.ipynb"),
            execution.without_places(page.parameters),
            [_contents(report.dataset), report.provenance["versions"]],
            [Path(run).name for run in compared],
            *([(Path(study) / TRIALS).read_bytes().hex()] if study else []),
        )
        reused = execution.reuse(page, inputs, report, out)
        if not reused:
            page.status, page.error, page.answer, page.ledger = "pending", "", "", ""
            page.inputs, page.run = inputs, ""
            execution.execute(page, executed, notebooks)
            if page.notebook == "03_train":
                page.run = report.relative(execution.recorded_run(executed))
        page.status = "ok"
    except MMCTRError as error:
        page.status, page.error = "failed", str(error)
    except Exception as error:  # a dead kernel, a full disk: the other pages must go on
        page.status, page.error = "failed", execution.reason_of(error, executed)
    if not reused:
        page.seconds = round(time.perf_counter() - started, 1)
    try:
        if executed.exists():
            part = article(executed, page, report, lambda other: other.file)
            write_page(report.folder / page.file, [part], report, page=page)
    except Exception as error:  # nor may an output that cannot be shown stop the other pages
        page.status = "failed"
        page.error = page.error or f"No page could be made: {type(error).__name__}: {error}"
    return reused


def _best_run(report: Report) -> Run:
    """The run of the best valid AUC; RunError if no training finished."""
    runs = report.load_runs()
    if not runs:
        raise RunError("No training finished, so there is no run to look at: see 03_train's pages.")
    return max(runs, key=lambda run: run.summary["metrics"]["auc"])


def _as_name(text: str) -> str:
    """A text as part of a file name that needs no quoting in links."""
    return re.sub(r"[^\w.-]+", "-", text)


def _new_folder(out: Path, name: str) -> Path:
    """A folder of this name, or of this name and a number where others took it."""
    for number in count(1):
        folder = out / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder.resolve()
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(
                f"{folder} cannot be made ({error.strerror}): choose a folder you may write to."
            ) from error
