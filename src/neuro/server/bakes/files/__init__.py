"""Config files: the flow files as they were when a bake was submitted."""
