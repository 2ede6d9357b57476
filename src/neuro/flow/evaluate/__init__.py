"""From the typed tree to jobs: contexts, mixins, actions, functions with effects."""
