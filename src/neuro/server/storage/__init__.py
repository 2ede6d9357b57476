"""The platform's file tree (docs/reference/wire-protocol.md#storage)."""
