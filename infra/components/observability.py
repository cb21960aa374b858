"""Logs and who hears of them: workspace, Application Insights, action group, diagnostics, alerts, budget."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pulumi
from pulumi_azure_native import applicationinsights, consumption, monitor, operationalinsights

from infra.context import Context, component_type

QUERIES: Final = Path(__file__).resolve().parents[1] / "queries"


class Observability(pulumi.ComponentResource):
    """Where everything writes its logs. Both stores take Entra tokens only.

    Attributes:
        workspace: The Log Analytics workspace.
        insights: Application Insights on top of it.
        action_group: Whom alerts reach.
    """

    workspace: operationalinsights.Workspace
    insights: applicationinsights.Component
    action_group: monitor.ActionGroup

    def __init__(self, name: str, context: Context, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(component_type("Observability"), name, None, opts)
        config, names, within = context.config, context.names, context.within(self)
        self.workspace = operationalinsights.Workspace(
            "workspace",
            resource_group_name=context.group.name,
            location=config.location,
            workspace_name=names.in_azure("log"),
            sku=operationalinsights.WorkspaceSkuArgs(name=operationalinsights.WorkspaceSkuNameEnum.PER_GB2018),
            retention_in_days=config.log_retention_days,
            workspace_capping=operationalinsights.WorkspaceCappingArgs(daily_quota_gb=config.log_daily_gb),
            features=operationalinsights.WorkspaceFeaturesArgs(
                disable_local_auth=True, enable_log_access_using_only_resource_permissions=True
            ),
            tags=context.tags,
            opts=within,
        )
        self.insights = applicationinsights.Component(
            "insights",
            resource_group_name=context.group.name,
            location=config.location,
            resource_name_=names.within_group("appi"),
            kind="web",
            application_type=applicationinsights.ApplicationType.WEB,
            ingestion_mode=applicationinsights.IngestionMode.LOG_ANALYTICS,
            disable_local_auth=True,
            workspace_resource_id=self.workspace.id,
            tags=context.tags,
            opts=within,
        )
        self.action_group = monitor.ActionGroup(
            "action-group",
            resource_group_name=context.group.name,
            location="Global",
            action_group_name=names.within_group("ag"),
            group_short_name="tollgate",
            enabled=True,
            email_receivers=[
                monitor.MicrosoftCommonEmailReceiverArgs(
                    name="operators", email_address=config.alert_email, use_common_alert_schema=True
                )
            ],
            tags=context.tags,
            opts=within,
        )
        for alert, (severity, summary) in PLATFORM_ALERTS.items():
            self._alert(alert, severity, summary, context)
        self.register_outputs({})

    def _alert(self, alert: str, severity: int, summary: str, context: Context) -> None:
        """A query in `infra/queries` that returns one row per breach."""
        monitor.ScheduledQueryRule(
            f"alert-{alert}",
            resource_group_name=context.group.name,
            location=context.config.location,
            rule_name=context.names.within_group(f"alert-{alert}"),
            display_name=summary,
            description=summary,
            kind="LogAlert",
            scopes=[self.workspace.id],
            severity=severity,
            enabled=True,
            auto_mitigate=True,
            evaluation_frequency="PT5M",
            window_size="PT15M",
            criteria=monitor.ScheduledQueryRuleCriteriaArgs(
                all_of=[
                    monitor.ConditionArgs(
                        query=read_query(alert),
                        time_aggregation="Count",
                        operator="GreaterThan",
                        threshold=0,
                        failing_periods=monitor.ConditionFailingPeriodsArgs(
                            number_of_evaluation_periods=1, min_failing_periods_to_alert=1
                        ),
                    )
                ]
            ),
            actions=monitor.ActionsArgs(action_groups=[self.action_group.id]),
            tags=context.tags,
            opts=context.within(self),
        )


PLATFORM_ALERTS: Final[dict[str, tuple[int, str]]] = {
    "failed-requests": (1, "More than 5 % of the requests to an app failed"),
    "slow-requests": (2, "The 99th percentile of an app's answers is over 500 ms"),
}
"""Alerts that need no telemetry of ours. What the product itself measures is specified in `monitoring/`."""


def read_query(name: str) -> str:
    """Return a Kusto query of `infra/queries`, without its comment lines."""
    lines = (QUERIES / f"{name}.kql").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("//"))


def diagnose(
    name: str,
    resource: pulumi.Resource,
    resource_uri: pulumi.Input[str],
    observability: Observability,
    *,
    categories: tuple[str, ...] = (),
) -> monitor.DiagnosticSetting:
    """Send a resource's platform logs and metrics to the workspace; without `categories`, all of its logs."""
    if categories:
        logs = [monitor.DiagnosticsLogSettingsArgs(category=category, enabled=True) for category in categories]
    else:
        logs = [monitor.DiagnosticsLogSettingsArgs(category_group="allLogs", enabled=True)]
    return monitor.DiagnosticSetting(
        f"diagnostics-{name}",
        name="to-workspace",
        resource_uri=resource_uri,
        workspace_id=observability.workspace.id,
        logs=logs,
        metrics=[monitor.DiagnosticsMetricSettingsArgs(category="AllMetrics", enabled=True)],
        opts=pulumi.ResourceOptions(parent=resource),
    )


class Budget(pulumi.ComponentResource):
    """A monthly budget of the resource group: 80 % spent and 100 % forecast are reported. It stops nothing."""

    def __init__(
        self,
        name: str,
        context: Context,
        observability: Observability,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(component_type("Budget"), name, None, opts)
        config = context.config

        def notification(threshold: float, kind: consumption.ThresholdType) -> consumption.NotificationArgs:
            return consumption.NotificationArgs(
                enabled=True,
                operator=consumption.OperatorType.GREATER_THAN_OR_EQUAL_TO,
                threshold=threshold,
                threshold_type=kind,
                contact_emails=[config.alert_email],
                contact_groups=[observability.action_group.id],
            )

        consumption.Budget(
            "budget",
            budget_name=context.names.within_group("budget"),
            scope=context.group.id,
            category=consumption.CategoryType.COST,
            amount=config.budget_usd,
            time_grain=consumption.TimeGrainType.MONTHLY,
            time_period=consumption.BudgetTimePeriodArgs(start_date=f"{config.budget_start.isoformat()}T00:00:00Z"),
            notifications={
                "spent80": notification(80, consumption.ThresholdType.ACTUAL),
                "forecast100": notification(100, consumption.ThresholdType.FORECASTED),
            },
            opts=context.within(self),
        )
        self.register_outputs({})
