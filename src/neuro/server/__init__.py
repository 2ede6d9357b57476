"""The control plane: one package per noun, put together in ``app``."""
