"""Arrays as files that people look at or listen to, each with its origin."""
