"""Builds what sends notices; it connects for each round, a minute apart."""

from __future__ import annotations

import random
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.adapters.slack_channel import SlackChannel
from shared.adapters.smtp_channel import SmtpChannel, SmtpServer, SmtpTls
from shared.adapters.webhook_channel import WebhookChannel
from shared.domain.instants import US_PER_DAY
from shared.entrypoints.notice_timers import NoticeParts
from shared.ports.notifying import Channel, ClaimRules
from shared.services.notifying import ChannelRound, Links, Notifying
from shared.settings import DriftSettings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.adapters.postgres import PostgresConnection
    from shared.ports.clock import Clock
    from shared.services.timed_runs import TimedRuns


def channels(settings: DriftSettings, clock: Clock) -> tuple[Channel, ...]:
    """The channels that are on.

    Raises:
        SettingsError: An address is none; the text names the settings, and quotes no secret.
    """
    found: list[Channel] = []
    problems: list[str] = []
    try:
        if settings.notify_smtp_host:
            server = SmtpServer(
                settings.notify_smtp_host,
                settings.notify_smtp_port,
                SmtpTls(settings.notify_smtp_tls),
                settings.notify_smtp_user,
                settings.notify_smtp_password.get_secret_value(),
            )
            found.append(SmtpChannel(server, settings.notify_mail_from, settings.mail_recipients))
    except ValueError as error:
        problems.append(f"NOTIFY_MAIL_FROM or NOTIFY_MAIL_TO: {error}")
    try:
        if slack := settings.notify_slack_url.get_secret_value():
            found.append(SlackChannel(slack, clock))
    except ValueError as error:
        problems.append(f"NOTIFY_SLACK_URL: {error}")
    try:
        if address := settings.notify_webhook_url.get_secret_value():
            found.append(WebhookChannel(address, settings.notify_webhook_secret.get_secret_value(), clock))
    except ValueError as error:
        problems.append(f"NOTIFY_WEBHOOK_URL: {error}")
    if problems:
        raise SettingsError(problems)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Rounds:
    """Sends what waits, over a connection that is closed in the end."""

    where: PostgresConnection
    settings: DriftSettings
    channels: tuple[Channel, ...]
    clock: Clock

    def send(self) -> Mapping[str, ChannelRound]:
        """One round; raises as `Notifying.send_waiting`."""
        from shared.adapters.postgres_notices import PostgresNotices  # noqa: PLC0415 - paid by those who connect
        from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

        rules = ClaimRules(
            per_hour=self.settings.notify_per_hour, give_up_us=self.settings.notify_give_up_days * US_PER_DAY
        )
        with closing(PostgresSession(self.where, "drift-notices")) as session:
            links = Links(self.settings.notify_link_base)
            return Notifying(
                PostgresNotices(session), self.channels, self.clock, random.random, rules=rules, links=links
            ).send_waiting()


def notice_parts(where: PostgresConnection, settings: DriftSettings, clock: Clock, runs: TimedRuns) -> NoticeParts:
    """What the timer needs; raises as `channels`."""
    return NoticeParts(Rounds(where, settings, channels(settings, clock), clock).send, runs)
