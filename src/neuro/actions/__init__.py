"""The bundled actions: jobs that flow files call as ``neuro:NAME@v1``.

Each is a file of kind ``live`` in this folder. What one of them runs and no image has, as the small
file browser, is a package beside it, of the standard library alone.
"""
