"""How flow files are written: YAML with positions, value types, the typed tree."""
