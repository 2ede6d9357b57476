"""Images: from a reference to folders of layers that overlayfs can mount.

``references`` and ``manifests`` read what registries and people write, ``pulling`` fetches,
``unpacking`` makes a folder of a layer in a process that sees nothing else, and ``store`` keeps
such folders for everybody on this machine who runs the image.

A tar can hold anything, and a registry can be anybody's: nothing here believes either.
"""
