"""Batch workflows: from what their files say to graphs of nodes, and to resolved tasks."""
