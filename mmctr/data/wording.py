"""What rows, labels and rates are called, by where the negatives of a dataset come from.

A share of clicks is a click rate only where rows are what was shown: the words are here, so that
pages, cards and the terminal say it alike.
"""

from dataclasses import dataclass
from typing import Any

from mmctr.data.schema import NegativesFrom


@dataclass(frozen=True)
class Wording:
    """The words of one dataset.

    rows: what its rows are. rate: what the mean of their labels is, rate_in_full with what makes it
    so. clicked: what label 1 says. negatives: a sentence on where they come from. caveat: a
    sentence on what calibration and logloss are about, or "" where they mean what they seem to.
    """

    rows: str
    rate: str
    rate_in_full: str
    clicked: str
    negatives: str
    caveat: str = ""

    @property
    def axis(self) -> str:
        """The title of an axis of rates in percent."""
        return f"{self.rate.capitalize()} (%)"


def wording_of(source: NegativesFrom, per_click: int | None = None) -> Wording:
    """The words for negatives from `source`; per_click: how many were drawn for each click."""
    match source:
        case "shown":
            said = "Negatives: impressions that were not clicked."
            return Wording("impressions", "click rate", "click rate", "clicked", said)
        case "outcome":
            said = "Negatives: tried and not liked, so that a click stands for a like."
            return Wording("rows", "share liked", "share liked (of what was tried)", "liked", said)
        case "sampled":
            several = {None: "negatives were", 1: "1 negative was"}
            drawn = f"{several.get(per_click, f'{per_click} negatives were')} drawn for each click"
            return Wording(
                *("rows", "share of clicks", f"share of clicks ({drawn})", "clicked"),
                f"Negatives: sampled by the import ({drawn}), so that nobody need have seen them.",
                f"Calibration and logloss are about an artificial rate: {drawn}.",
            )
        case _:
            nobody = "where the negatives come from is not known"
            return Wording(
                *("rows", "share of clicks", f"share of clicks ({nobody})", "clicked"),
                "Negatives: it is not known where they come from.",
                f"Calibration and logloss are about these rows' share of clicks: {nobody}.",
            )


def kind_of(simulated: bool) -> str:
    """What a dataset proves, beside its name."""
    return "simulated, so this says nothing about real clicks" if simulated else "real"


def stated(data: dict[str, Any]) -> Wording:
    """The words for a dataset as runs and reports state it; those of older ones do not know."""
    source = data.get("negatives") or ("shown" if data.get("simulated") else "unknown")
    return wording_of(source, data.get("negatives_per_click"))
