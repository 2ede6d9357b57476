"""A small file browser for the web, of the standard library alone.

``python3 -m neuro.actions.filebrowser --root DIR`` shows one folder and nothing outside of it:
lists, uploads, downloads, moves and deletes. It has no accounts: who reaches its port may do all
of that. So it listens on the loopback where it is not told otherwise, and answers no page of
another site that made its own name lead here (DNS rebinding).
"""
