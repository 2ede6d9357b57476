"""Jobs: submitting them, scheduling them, moving reality to intent, and their live streams."""
