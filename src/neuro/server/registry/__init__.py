"""The registry of images: an OCI distribution server, and the store behind it."""
