"""Grafana's dashboards from our lists of panels: `python -m deploy.grafana.generate` writes them, --check compares."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from deploy.grafana.panels import ENGINE, OVERVIEW, Kind, Panel
from events.generate import write_files

DASHBOARDS = Path(__file__).parent / "dashboards"
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")  # as in provisioning/datasources
TAG = "sla"
NOW = (Kind.FIGURE, Kind.NAMES, Kind.BARS)  # ask for one instant, all others for each step of the chosen time

Builder = stat.Panel | bargauge.Panel | timeseries.Panel | statetimeline.Panel


def render_files() -> dict[Path, str]:
    """Render the files that belong into deploy/grafana/dashboards, by path."""
    overview = _build_dashboard(
        "sla-overview", "SLA overview", "For those who lead support: what is promised, and is it kept?", OVERVIEW
    )
    overview.time("now-24h", "now")
    for label in ("objective", "service_level", "priority"):
        overview.with_variable(_build_variable(label))
    engine = _build_dashboard("sla-engine", "SLA engine health", "For those who run the engine: does it work?", ENGINE)
    engine.time("now-6h", "now")
    return {
        DASHBOARDS / f"{built.uid}.json": json.dumps(built, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"
        for built in (overview.build(), engine.build())
    }


def _build_dashboard(uid: str, title: str, description: str, rows: Sequence[str | Panel]) -> dashboard.Dashboard:
    built = dashboard.Dashboard(title).uid(uid).description(description).tags([TAG]).readonly()
    built.refresh("1m").tooltip(DashboardCursorSync.CROSSHAIR)
    built.link(dashboard.DashboardLink("SLA").type(DashboardLinkType.DASHBOARDS).tags([TAG]).keep_time(True))
    for number, row in enumerate(rows, 1):
        if isinstance(row, Panel):
            built.with_panel(_build_panel(row, number))
        else:
            built.with_row(dashboard.Row(row).id(number))
    return built


def _build_variable(label: str) -> dashboard.QueryVariable:
    """Build a choice among the values of a label; all of them at first."""
    values: dict[str, object] = {"qryType": 1, "query": f"label_values(sla_promises_at_risk, {label})", "refId": label}
    variable = dashboard.QueryVariable(label).label(label.replace("_", " ").capitalize()).datasource(PROMETHEUS)
    variable.query(values).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
    variable.multi(True).include_all(True).all_value(".*")
    return variable.current(VariableOption(selected=True, text="All", value="$__all"))


def _build_panel(panel: Panel, number: int) -> Builder:
    builder = _choose_builder(panel).id(number).title(panel.title).description(panel.description).span(panel.width)
    builder.unit(panel.unit).no_value(panel.empty).datasource(PROMETHEUS)
    _colour(builder, panel)
    for letter, (legend, expression) in zip(ascii_uppercase, panel.queries.items(), strict=False):
        query = prometheus.Dataquery().ref_id(letter).datasource(PROMETHEUS).expr(expression).legend_format(legend)
        builder.with_target(query.instant() if panel.kind in NOW else query.range())
    return builder


def _choose_builder(panel: Panel) -> Builder:
    match panel.kind:
        case Kind.FIGURE:
            figure = _build_stat(looks.BigValueTextMode.VALUE)
            if panel.unit == "percentunit":
                return figure.decimals(2)  # 99.97 %, not 100
            return figure.decimals(0) if panel.unit == "short" else figure  # increase() extrapolates
        case Kind.NAMES:
            return _build_stat(looks.BigValueTextMode.NAME)
        case Kind.BARS:
            bars = bargauge.Panel().height(8).min(0).reduce_options(_reduce_to_last())
            bars.display_mode(looks.BarGaugeDisplayMode.BASIC).orientation(looks.VizOrientation.HORIZONTAL)
            return bars.decimals(0) if panel.unit == "short" else bars
        case Kind.LINES:
            return _build_time_series(panel)
        case Kind.STACK:
            return _stack(_build_time_series(panel).fill_opacity(25))
        case Kind.COUNTS:
            counts = _build_time_series(panel).draw_style(looks.GraphDrawStyle.BARS).fill_opacity(80)
            return _stack(counts.interval("1m").decimals(0))
        case Kind.STATES:
            states = statetimeline.Panel().height(10).legend(_build_legend()).show_value(looks.VisibilityMode.NEVER)
            return states.fill_opacity(70).line_width(0)


def _build_stat(shown: looks.BigValueTextMode) -> stat.Panel:
    builder = stat.Panel().height(4).reduce_options(_reduce_to_last()).text_mode(shown)
    return builder.color_mode(looks.BigValueColorMode.VALUE).graph_mode(looks.BigValueGraphMode.NONE)


def _reduce_to_last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields("")


def _build_time_series(panel: Panel) -> timeseries.Panel:
    """Build a panel of lines; limits, if there are any, are dashed lines across."""
    mode = looks.GraphThresholdsStyleMode.DASHED if len(panel.limits) > 1 else looks.GraphThresholdsStyleMode.OFF
    limits = common.GraphThresholdsStyleConfig().mode(mode)
    tooltip = common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING)
    return timeseries.Panel().height(8).min(0).legend(_build_legend()).tooltip(tooltip).thresholds_style(limits)


def _build_legend() -> common.VizLegendOptions:
    legend = common.VizLegendOptions().show_legend(True).display_mode(looks.LegendDisplayMode.LIST)
    return legend.placement(looks.LegendPlacement.BOTTOM)


def _stack(builder: timeseries.Panel) -> timeseries.Panel:
    return builder.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL).group("A"))


def _colour(builder: Builder, panel: Panel) -> None:
    """Colour by the limits where one value is shown, else by the name of the series."""
    limits = [Threshold(value=value, color=colour) for value, colour in panel.limits]
    builder.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(limits))
    by_limit = panel.kind in (*NOW, Kind.STATES)
    mode = FieldColorModeId.THRESHOLDS if by_limit else FieldColorModeId.PALETTE_CLASSIC_BY_NAME
    builder.color_scheme(dashboard.FieldColor().mode(mode))
    for name, colour in panel.colours.items():
        builder.override_by_name(name, [DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})])
    words = {value: ValueMappingResult(text=text, color=colour) for value, (text, colour) in panel.words.items()}
    builder.mappings([ValueMap(options=words)] if words else [])


def main(arguments: list[str]) -> int:
    present = set(DASHBOARDS.glob("*.json"))
    return write_files(render_files(), "python -m deploy.grafana.generate", arguments == ["--check"], present)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
