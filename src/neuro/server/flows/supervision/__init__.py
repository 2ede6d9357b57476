"""What the server does for bakes by itself: executors restarted, turns, schedules."""
