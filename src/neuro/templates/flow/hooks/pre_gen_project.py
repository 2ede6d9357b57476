"""Refuse names that the platform would refuse later. `neuro project init` has the same rules."""

import keyword
import re
import sys

SLUG = "{{ cookiecutter.project_slug }}"
CODE = "{{ cookiecutter.code_directory }}"
TAKEN = ("config", "data", "notebooks", "results")

if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", SLUG):
    sys.exit(f"project_slug {SLUG!r}: use lower-case letters, digits and single dashes.")
if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", CODE) or keyword.iskeyword(CODE):
    sys.exit(f"code_directory {CODE!r} cannot be the name of a Python module.")
if CODE.lower() in TAKEN:
    sys.exit(f"code_directory {CODE!r}: the project has this folder already.")
