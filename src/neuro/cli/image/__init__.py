"""``neuro image``: images of the platform's registry, and their way there and back."""
