"""Builds images of Dockerfiles: the program of a builder job (``python -m neuro.builder``).

``neuro.dockerfile`` says what is to be done; here it is done: base images are pulled, files
copied, commands run in the job's own fence (``stepping``), layers kept by what they were made of
(``cache``), and the image is pushed. It knows nothing of the server: its arguments are those of
kaniko, which published clients start builds with.
"""
