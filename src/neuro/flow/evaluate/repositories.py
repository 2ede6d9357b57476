"""Actions from repositories: cloned once per version, then read from the cache.

A version is a tag or a branch; it is fetched once and kept: delete its folder below the cache to
have it fetched again.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

BASE_VARIABLE = "NEURO_FLOW_GITHUB"
DEFAULT_BASE = "https://github.com/"
CLONE_SECONDS = 300

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(?:/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")

# What points git at another repository: set in hooks, and no business of a clone.
_FOREIGN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")


def fetch(spec: str, cache_dir: Path) -> Path:
    """Return the folder of `OWNER/REPO@VERSION`, cloned if it is not in the cache yet.

    Raises ValueError with what went wrong.
    """
    folder = cached(spec, cache_dir)
    if not folder.is_dir():
        owner, repo, version = _parse(spec)
        _clone(_url(_base(), owner, repo), version, folder)
    return folder


def cached(spec: str, cache_dir: Path) -> Path:
    """Return where `OWNER/REPO@VERSION` is kept once it has been fetched."""
    owner, repo, version = _parse(spec)
    host = _host_folder(_base())
    return cache_dir / "actions" / host / owner / f"{repo}@{_escape(version)}"


def _base() -> str:
    return os.environ.get(BASE_VARIABLE) or DEFAULT_BASE


def _parse(spec: str) -> tuple[str, str, str]:
    place, at, version = spec.partition("@")
    owner, slash, repo = place.partition("/")
    if not (at and slash and owner and repo and version):
        raise ValueError(f"'{spec}' should have {{OWNER}}/{{REPO}}@{{VERSION}} format.")
    for text, pattern, what in (
        (owner, _NAME, "an owner"),
        (repo, _NAME, "a repository"),
        (version, _VERSION, "a version (a tag or a branch)"),
    ):
        if not pattern.fullmatch(text) or ".." in text:
            raise ValueError(f"'{text}' cannot be the name of {what}.")
    return owner, repo, version


def _escape(version: str) -> str:
    return version.replace("+", "+p").replace("/", "+s")


def _host_folder(base: str) -> str:
    """Keep what comes from a mirror apart from the original."""
    if base.rstrip("/") == DEFAULT_BASE.rstrip("/"):
        return "github"
    from hashlib import sha256

    return f"mirror-{sha256(base.encode()).hexdigest()[:12]}"


def _url(base: str, owner: str, repo: str) -> str:
    if "://" not in base and not re.match(r"[^/]+:", base):
        # A plain path would be copied whole; as a URL it is cloned shallowly.
        base = Path(base).expanduser().absolute().as_uri()
    return f"{base}{'' if base.endswith(('/', ':')) else '/'}{owner}/{repo}"


def _clone(url: str, version: str, folder: Path) -> None:
    import shutil
    import tempfile

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".clone-", dir=folder.parent) as temporary:
        target = Path(temporary) / "repository"
        _run_git(
            ["clone", "--quiet", "--depth=1", f"--branch={version}", "--", url, str(target)],
            f"Cannot get the action from {url}, version {version}",
        )
        shutil.rmtree(target / ".git", ignore_errors=True)
        try:
            target.rename(folder)
        except OSError:
            # Another process has just put the same version there.
            if not folder.is_dir():
                raise


def _run_git(command: list[str], failure: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
    environment["GIT_TERMINAL_PROMPT"] = "0"
    environment.setdefault("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
    try:
        done = subprocess.run(
            ["git", "-c", "advice.detachedHead=false", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CLONE_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise ValueError(f"{failure}: the program `git` is not installed.") from None
    except subprocess.TimeoutExpired:
        raise ValueError(f"{failure}: no answer within {CLONE_SECONDS} seconds.") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1].removeprefix("fatal: ") if lines else f"git ended with {done.returncode}"
        raise ValueError(
            f"{failure}: {reason.rstrip('.')}. If the repository is private or mirrored, set "
            f"{BASE_VARIABLE} to its base address (git@github.com: for SSH)."
        )
