"""A self-hosted ML development platform: jobs, storage, images, projects and workflows."""

__version__ = "0.1.0"
