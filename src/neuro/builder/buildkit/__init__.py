"""Builds by the BuildKit of a Docker daemon, in the place of our own steps.

The plan is made by us as for any build, and with it all that a build may take is checked: base
images by their registries, for whoever builds; the context and secrets by ``Sources``. The daemon
gets a Dockerfile whose images are named by digest (``rewriting``), and asks us for files, secrets
and passwords over a connection of its own (``session``). What it says of its work comes back in our
manner (``trace``). ``fitting`` knows which builds it is never given.
"""
