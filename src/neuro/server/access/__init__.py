"""Users, tokens and permissions."""
