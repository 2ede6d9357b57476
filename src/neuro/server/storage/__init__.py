"""The platform's file tree (wire protocol, section 10)."""
