"""Timer triggers: schedules, their status in storage, the lock that lets one instance fire."""
