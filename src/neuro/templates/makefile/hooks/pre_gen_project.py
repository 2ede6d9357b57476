"""Refuse names that the platform would refuse later. `neuro project init` has the same rules."""

import re
import sys

SLUG = "{{ cookiecutter.project_slug }}"
LONGEST = 28  # A job's name has 40 characters at most, and "tensorboard-" goes before it.

if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", SLUG):
    sys.exit(f"project_slug {SLUG!r}: use lower-case letters, digits and single dashes.")
if len(SLUG) > LONGEST:
    sys.exit(f"project_slug {SLUG!r} is longer than {LONGEST} characters.")
