"""Jobs as containers of a Docker daemon.

- ``engine`` implements the Engine protocol inside the server;
- ``forker`` is a small process that forks one ``keeper`` per run and dies with the server;
- a keeper has the run's container made (``making``), keeps its output, and writes the exit record.
  It depends on nobody: the server may be killed and come back as often as it likes;
- the container's first process is a program of one page (``launcher_program``). It asks the keeper
  for the command's streams through a ``door``, so no daemon stands between the two.
"""
