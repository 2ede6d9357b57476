"""``python -m neuro.server.doctor``: what this machine has for jobs, as JSON on standard output."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from neuro.domain.errors import PlatformError
from neuro.engines.base import EngineFault
from neuro.engines.registry import EngineSettings, kind_of
from neuro.engines.sandbox.kind import Table, settings_of
from neuro.engines.sandbox.layout import remove_tree
from neuro.engines.sandbox.survey import Finding, survey
from neuro.server.engine_settings import DEFAULT_ENGINE, engine_settings, kind_name, site_of
from neuro.server.settings import load_settings, storage_folder
from neuro.server.storage.folder import storage_of


def main() -> int:
    """Look at the machine; exit code 0 whatever was found."""
    parser = argparse.ArgumentParser(prog="neuro doctor")
    parser.add_argument("--data-dir", type=Path, required=True)
    findings = examine(parser.parse_args().data_dir)
    ready = all(finding.state != "failed" for finding in findings)
    json.dump({"ready": ready, "findings": [asdict(one) for one in findings]}, sys.stdout)
    return 0


def examine(data_dir: Path) -> list[Finding]:
    """The findings for a server on ``data_dir``, which may be missing and stays as it is."""
    try:
        with suppress(FileNotFoundError):
            # That it is another user's is said before what cannot be read in it.
            list(data_dir.iterdir())
        settings = load_settings(data_dir / "server.toml")
        if settings.storage.folder:  # The one in the data folder is made at the first start.
            storage_of(settings, data_dir, make=False)
        storage = _nearest(storage_folder(settings, data_dir))
        # On the file system of the data folder: what that can do decides.
        folder = os.path.realpath(tempfile.mkdtemp(prefix=".neuro-doctor-", dir=_nearest(data_dir)))
    except PlatformError as error:
        return [Finding("settings", "failed", str(error))]
    except OSError as error:
        text = (
            f"{error.filename or data_dir}: {error.strerror}. Run this as the user who starts the"
            " server, or name their data folder with --data-dir."
        )
        return [Finding("data folder", "failed", text)]
    try:
        tables = engine_settings(settings)
        table = tables[DEFAULT_ENGINE]
        assert isinstance(table, Table)
        site = site_of(DEFAULT_ENGINE, data_dir.resolve(), port=0)
        found = survey(folder, settings_of(site, table), str(storage))
        found = [replace(one, text=one.text.replace(folder, str(data_dir))) for one in found]
        checks = {name: kind_of(kind_name(name, one)).check for name, one in tables.items()}
        others = (_look_at(name, check, tables[name]) for name, check in checks.items() if check)
        return [*found, *others]
    finally:
        remove_tree(folder)


def _look_at(name: str, check: Callable[[Any], None], settings: EngineSettings) -> Finding:
    """An engine beside the embedded one: without it the jobs of the others go on."""
    try:
        check(settings)
    except EngineFault as error:
        text = f"It is away, and its jobs wait: {error}."
        return Finding(f"engine {name}", "warning", text)
    return Finding(f"engine {name}", "ok", "It can be reached.")


def _nearest(folder: Path) -> Path:
    """The folder, or the one that it will be made in."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


if __name__ == "__main__":
    sys.exit(main())
