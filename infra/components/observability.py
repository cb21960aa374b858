"""Logs and who hears of them: workspace, Application Insights, action group, diagnostics, budget."""

from __future__ import annotations

import pulumi
from pulumi_azure_native import applicationinsights, consumption, monitor, operationalinsights

from infra.context import Context, component_type


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
        self.register_outputs({})


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
