"""A report's folder: its pages, its runs, and where they come from."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from mmctr.errors import RunError
from mmctr.files import write_json
from mmctr.runs.run import Run

MANIFEST = "report.json"
QUESTIONS = {
    "01_explore": "What is in the data, and what is wrong with it?",
    "02_embeddings": "What do the strategies keep, and which items do they call similar?",
    "03_train": "How well does the model predict, and for whom?",
    "04_attention": "What does the model look at, and does it matter?",
    "05_compare": "Which strategy is best, by how much, could it be chance, what does it cost?",
    "06_ablation": "What is each part of the model worth?",
    "07_search": "Which parameters are best, and which of them matter?",
    "08_challenge": "How good are the challenge's systems on these data, and what do they cost?",
    "09_new_items": "How well are items ranked that nobody has clicked yet?",
    "10_backtest": "What does a warm start cost and save, and how quickly does a model grow old?",
}


@dataclass
class Page:
    """One notebook of a report and what became of it."""

    name: str
    notebook: str
    parameters: dict[str, Any]
    status: str = "pending"  # then "ok" or "failed"
    seconds: float = 0.0
    error: str = ""
    answer: str | dict[str, Any] = ""  # the notebook's: a paragraph, or a verdict
    inputs: str = ""  # hash of everything that decided what the page says
    run: str = ""  # that 03_train trained, relative to the report's folder
    ledger: str = ""  # what its rows can show of the runs, in a sentence or two

    @property
    def file(self) -> str:
        """The page's file in the report's folder."""
        return f"{self.name}.html"

    @property
    def question(self) -> str:
        """What the page answers."""
        return QUESTIONS[self.notebook]


@dataclass
class Report:
    """A report's folder and everything that its index says."""

    folder: Path
    dataset: dict[str, Any]
    strategies: list[str]
    seeds: list[int]
    pages: list[Page]
    date: str = field(default_factory=lambda: datetime.now().astimezone().isoformat("T", "seconds"))
    runs: list[str] = field(default_factory=list)  # relative to the folder
    provenance: dict[str, Any] = field(default_factory=dict)
    inputs: str = ""  # hash of everything that decided what the report says

    @classmethod
    def load(cls, folder: Path) -> "Report":
        """Read a report's folder; RunError if it has no readable manifest."""
        try:
            values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            pages = [Page(**page) for page in values.pop("pages")]
            return cls(folder=folder, pages=pages, **values)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(
                f"{folder} is not a report, its {MANIFEST} is missing or damaged "
                f"({error}): choose a folder that mmctr report has written."
            ) from error

    def save(self) -> None:
        """Write the manifest, atomically."""
        values = {name: value for name, value in vars(self).items() if name != "folder"}
        write_json(self.folder / MANIFEST, values | {"pages": [asdict(p) for p in self.pages]})

    @property
    def index(self) -> Path:
        """The report's own index."""
        return self.folder / "index.html"

    @property
    def failed(self) -> list[Page]:
        """The pages that failed."""
        return [page for page in self.pages if page.status == "failed"]

    @property
    def answer(self) -> str | dict[str, Any]:
        """What the report says, as a page's answer; empty until 05_compare is done."""
        return next((page.answer for page in self.pages if page.notebook == "05_compare"), "")

    @property
    def ledger(self) -> str:
        """Popularity beside the best system, and what valid can show: of all runs, else of one."""
        said = {page.notebook: page.ledger for page in self.pages if page.ledger}
        return said.get("05_compare", said.get("03_train", ""))

    def executed(self, page: Page) -> Path:
        """Where a page's executed notebook is."""
        return self.folder / "notebooks" / f"{page.name}.ipynb"

    def relative(self, run: Run) -> str:
        """A run as the report names it, wherever both are moved together."""
        return os.path.relpath(run.folder, self.folder)

    @property
    def run_folders(self) -> list[Path]:
        """Where the report's runs are, unless they were deleted since."""
        return [(self.folder / run).resolve() for run in self.runs]

    def load_runs(self) -> list[Run]:
        """The report's runs; RunError if one is missing or damaged."""
        return list(map(Run.load, self.run_folders))


def latest_report(out: Path) -> Path | None:
    """The folder of the latest report below `out`, if there is one."""
    reports = all_reports(out)
    return reports[0].folder if reports else None


def all_reports(out: Path) -> list[Report]:
    """All readable reports below `out`, the latest first."""
    reports = []
    for manifest in out.glob(f"*/{MANIFEST}"):
        with suppress(RunError):
            reports.append(Report.load(manifest.parent))
    return sorted(reports, key=lambda report: (report.date, report.folder.name), reverse=True)
