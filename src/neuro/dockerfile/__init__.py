"""Dockerfiles, read and planned: from a text to the steps that build an image, without any I/O.

``parser.parse`` makes a tree with positions, ``stages`` says which stages and images a target
needs, and ``plan.plan`` makes the steps, what each depends on, and the image's configuration.
The reference is BuildKit's stable syntax; the tests compare with its own code.
"""
