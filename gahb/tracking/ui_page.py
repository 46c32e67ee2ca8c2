"""The page of the MLflow UI that shows an experiment's runs, as the JSON in which a saved view holds it.

To MLflow 3.14 the UI takes the JSON as it is and fails where a key is absent, so all are here; later ones fill it in.
"""

import base64
import json
import zlib
from collections.abc import Collection, Sequence
from typing import Any

Section = dict[str, Any]
"""A part of the page with a heading."""

Card = dict[str, Any]
"""A chart."""


def page(
    columns: Sequence[str],
    order_by: str,
    *,
    ascending: bool = True,
    only: str = "",
    sections: Sequence[Section] = (),
    cards: Sequence[Card] = (),
    group_by: Sequence[str] = (),
    without: Collection[str] = (),
    without_images: Collection[str] = (),
) -> dict[str, Any]:
    """A page, with charts if there are cards and with a table alone if not.

    Args:
        columns: of the table, such as metrics.`psnr_gap`.
        order_by: one of them.
        ascending: the order of the rows.
        only: a filter of MLflow's search.
        sections: the parts, in order.
        cards: the charts in them.
        group_by: params; runs that have the same are averaged.
        without: metrics that get no card. Others that have none get one by themselves.
        without_images: the same of images.
    """
    hidden = list[Card]()
    if cards:
        shown = {key for card in cards for key in card.get("selectedMetricKeys", ())}
        hidden += [_card(sections[0], "BAR", metricKey=key, deleted=True) for key in sorted({*without} - shown)]
        hidden += [_card(sections[0], "IMAGE", imageKeys=[key], deleted=True) for key in without_images]
    groups = [{"mode": "param", "groupByData": key} for key in group_by]
    return {
        "searchFilter": only,
        "orderByKey": order_by,
        "orderByAsc": ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": list(columns),
        "columnOrder": ["duration", *columns],
        "columnWidths": dict.fromkeys(columns, 110),
        "groupBy": {"aggregateFunction": "average", "groupByKeys": groups} if groups else None,
        "compareRunSections": list(sections) or None,
        "compareRunCharts": [*cards, *hidden] or None,
        "isAccordionReordered": bool(cards),  # or else sections are in the order of their names
        "runsHiddenMode": "SHOW_ALL",  # rather than the first ten
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "hideEmptyCharts": True,
        "useGroupedValuesInCharts": True,
        "autoRefreshEnabled": True,
        "viewMaximized": False,
        "runListHidden": False,
        "groupsExpanded": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
    }


def packed(state: dict[str, Any]) -> str:
    """A page in the form in which a view holds it."""
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()


def section(key: str, heading: str, *, columns: int = 2, height: int = 420) -> Section:
    """A part of a page with so many charts beside each other, of so many pixels."""
    return {
        "uuid": key,
        "name": heading,
        "display": True,
        "isReordered": True,
        "columns": columns,
        "cardHeight": height,
    }


def line(where: Section, *metrics: str, log_y: bool = False) -> Card:
    """Metrics against their step, on a logarithmic axis."""
    return _card(
        where,
        "LINE",
        metricKey=metrics[0],
        selectedMetricKeys=list(metrics),
        xAxisKey="step",
        xAxisScaleType="log",
        scaleType="log" if log_y else "linear",
        useGlobalXaxisKey=False,
        useGlobalLineSmoothing=False,
        lineSmoothness=0,
        displayPoints=True,
    )


def images(where: Section, *keys: str, step: int = 0) -> Card:
    """The images of these names that were logged at a step, which a slider changes."""
    return _card(where, "IMAGE", imageKeys=list(keys), step=step, showRunParams=False)


def _card(where: Section, kind: str, *, deleted: bool = False, **more: Any) -> Card:
    own = "-".join(
        [where["uuid"], kind, *more.get("selectedMetricKeys", more.get("imageKeys", [more.get("metricKey")]))]
    )
    return {
        "uuid": own,
        "type": kind,
        "metricSectionId": where["uuid"],
        "deleted": deleted,
        "isGenerated": False,
        "runsCountToCompare": 100,
        **more,
    }
