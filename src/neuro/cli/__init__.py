"""The ``neuro`` command line. Thin: parse, call the client, render.

``main`` holds the table of commands; a command's module is imported when that command is called.
"""
