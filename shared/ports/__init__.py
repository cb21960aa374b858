"""What the use cases need from the outside, as protocols; adapters and fakes pass the same contract tests."""
