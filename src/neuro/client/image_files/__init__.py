"""Images between files of this machine and the platform's registry, without a container engine."""
