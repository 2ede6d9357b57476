"""``neuro server``, ``neuro up``, ``neuro down``: the server on this machine, as a process."""
