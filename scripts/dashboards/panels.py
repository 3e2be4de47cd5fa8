"""Panels of Grafana's dashboards: what one says, the queries that most are made of, and how it is drawn."""

from dataclasses import dataclass
from typing import Final, Literal

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models.common import BigValueColorMode, GraphTresholdsStyleMode, StackingMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Kind = Literal["lines", "stack", "number", "bars", "table"]

GATEWAY: Final = "dermserve_gateway_"
"""Before the names of the gateway's metrics."""

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True)
class Panel:
    """One picture of a dashboard.

    Attributes:
        title: of it.
        says: what a reader takes from it.
        queries: legend -> PromQL.
        kind: how it is drawn.
        unit: Grafana's name of it.
        width: of the grid's 24 columns.
        limit: from which on it is red.
        good_from: from which on it is green, where more is better.
    """

    title: str
    says: str
    queries: dict[str, str]
    kind: Kind = "lines"
    unit: str = "short"
    width: int = 8
    limit: float | None = None
    good_from: float | None = None


Rows = dict[str, list[Panel]]
"""Of a dashboard: their titles, and what is in each."""


def rate(name: str, by: str, selector: str = "") -> str:
    """Occurrences a second, over all replicas."""
    return f"sum by ({by}) (rate({name}{{{selector}}}[$__rate_interval]))"


def quantile(share: float, name: str, by: str = "", selector: str = "") -> str:
    """Of a histogram, over all replicas."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(name + '_bucket', labels, selector)})"


def mean(name: str, by: str, selector: str = "") -> str:
    """Of a histogram; without anything to count there is none."""
    return f"{rate(name + '_sum', by, selector)} / ({rate(name + '_count', by, selector)} > 0)"


def colours(panel: Panel) -> dashboard.ThresholdsConfig:
    """Green and red, from the panel's mark on."""
    (low, high), mark = ("green", "red"), panel.limit
    if panel.good_from is not None:
        (low, high), mark = ("red", "green"), panel.good_from
    steps = [Threshold(color=low)] if mark is None else [Threshold(color=low), Threshold(value=mark, color=high)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def draw(panel: Panel, number: int) -> dashboard.Panel:
    """The builder of Grafana's panel."""
    builder: timeseries.Panel | stat.Panel | bargauge.Panel | table.Panel
    if panel.kind == "number":
        builder = stat.Panel().color_mode(BigValueColorMode.VALUE).decimals(0 if panel.unit == "short" else 2)
    elif panel.kind == "bars":
        builder = bargauge.Panel()
    elif panel.kind == "table":
        builder = table.Panel()
    else:
        builder = timeseries.Panel().axis_soft_min(0).fill_opacity(20 if panel.kind == "stack" else 0)
        builder = builder.legend(common.VizLegendOptions().show_legend(True))
        if panel.limit is not None:
            builder = builder.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.LINE))
        if panel.kind == "stack":
            builder = builder.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    builder = builder.id(number).title(panel.title).description(panel.says).datasource(SOURCE).unit(panel.unit)
    builder = builder.height(4 if panel.kind == "number" else 8).span(panel.width).thresholds(colours(panel))
    for place, (legend, expression) in enumerate(panel.queries.items()):
        query = prometheus.Dataquery().ref_id(chr(ord("A") + place)).expr(expression).legend_format(legend).datasource(SOURCE)
        if panel.kind in {"number", "bars", "table"}:
            query = query.instant()
            if panel.kind == "table":
                query = query.format(PromQueryFormat.TABLE)
        else:
            query = query.range()
        builder = builder.with_target(query)
    return builder
