"""What people look at and what wakes them: the specification in `monitoring/`, as it was rendered for Azure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pulumi
from pulumi_azure_native import dashboard, monitor

from infra.components.observability import Observability
from infra.context import Context, component_type

RENDERED: Final = Path(__file__).resolve().parents[2] / "monitoring" / "azure"
WORKSPACE: Final = "@@workspace@@"
"""What a rendered dashboard has in the place of the workspace's id."""


class Monitoring(pulumi.ComponentResource):
    """Alerts on the workspace that reach the action group, and dashboards of the Grafana in Azure Monitor.

    Attributes:
        links: Dashboard -> its address in the portal.
    """

    links: dict[str, pulumi.Output[str]]

    def __init__(
        self, name: str, context: Context, observability: Observability, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(component_type("Monitoring"), name, None, opts)
        for alert in json.loads((RENDERED / "alerts.json").read_text(encoding="utf-8")):
            self._alert(alert, context, observability)
        paths = sorted((RENDERED / "dashboards").glob("*.json"))
        self.links = {path.stem: self._dashboard(path, context, observability) for path in paths}
        self.register_outputs({})

    def _alert(self, alert: dict[str, Any], context: Context, observability: Observability) -> None:
        """A query that returns one row for each breach in the rule's time range."""
        monitor.ScheduledQueryRule(
            f"alert-{alert['name']}",
            resource_group_name=context.group.name,
            location=context.config.location,
            rule_name=context.names.within_group(f"alert-{alert['name']}"),
            display_name=alert["summary"],
            description=alert["action"],
            kind="LogAlert",
            scopes=[observability.workspace.id],
            severity=alert["severity"],
            enabled=True,
            auto_mitigate=True,
            evaluation_frequency="PT5M",
            window_size=alert["span"],
            criteria=monitor.ScheduledQueryRuleCriteriaArgs(
                all_of=[
                    monitor.ConditionArgs(
                        query=alert["query"],
                        time_aggregation="Count",
                        operator="GreaterThan",
                        threshold=0,
                        failing_periods=monitor.ConditionFailingPeriodsArgs(
                            number_of_evaluation_periods=1, min_failing_periods_to_alert=1
                        ),
                    )
                ]
            ),
            actions=monitor.ActionsArgs(action_groups=[observability.action_group.id]),
            tags=context.tags,
            opts=context.within(self),
        )

    def _dashboard(self, path: Path, context: Context, observability: Observability) -> pulumi.Output[str]:
        text = path.read_text(encoding="utf-8")
        board = dashboard.Dashboard(
            f"dashboard-{path.stem}",
            resource_group_name=context.group.name,
            location=context.config.location,
            dashboard_name=context.names.within_group(f"tollgate-{path.stem}"),
            # Under which resources the portal lists it.
            tags={**context.tags, "GrafanaDashboardResourceType": "microsoft.insights/components"},
            opts=context.within(self),
        )
        dashboard.DashboardDefinition(
            f"dashboard-{path.stem}-definition",
            resource_group_name=context.group.name,
            dashboard_name=board.name,
            definition_name="default",
            properties=dashboard.DashboardDefinitionPropertiesArgs(
                serialized_data=observability.workspace.id.apply(lambda workspace: text.replace(WORKSPACE, workspace))
            ),
            opts=context.within(self),
        )
        return board.id.apply(
            lambda board_id: f"https://portal.azure.com/#@{context.config.tenant_id}/resource{board_id}"
        )
