"""The configuration: `configuration` checks and completes it, `messages` says what is wrong, `pages` describes it."""
