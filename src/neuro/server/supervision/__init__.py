"""The server's own work for bakes: restarts executors, gives turns, keeps schedules."""
