"""``neuro storage``: one module per command (docs/guide/storage.md)."""
