"""Presets that administrators add, change and remove while the servers run.

Those of ``server.toml`` hold until the first such change. It writes the whole list into the
database, and from then on that is the only one, for all servers of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from decimal import Decimal, InvalidOperation

from msgspec.structs import replace
from sqlalchemy import Connection

from neuro.domain.errors import AlreadyExists, InvalidInput, NotFound
from neuro.domain.ranges import PRESET_CPU, PRESET_GPU
from neuro.domain.resources import MIB, Preset
from neuro.domain.sizes import check_size
from neuro.server.database.engine import Database
from neuro.server.fleet.changes import Changes, Topic, record
from neuro.server.jobs.offers import Offers
from neuro.server.jobs.preset_tables import keep_presets, kept_presets, lock_presets

MOST = 1000
Edit = Callable[[list[Preset]], list[Preset]]


class Presets:
    """Changes the presets of all servers. ``usual_engine`` and ``disk`` (bytes) are those of
    one that says nothing of them.

    Every change raises InvalidInput for what no preset can be, and Unavailable.
    """

    def __init__(
        self,
        database: Database,
        changes: Changes,
        offers: Offers,
        usual_engine: str,
        disk: int,
    ) -> None:
        self.usual_engine = usual_engine
        self._disk = disk
        self._database = database
        self._changes = changes
        self._offers = offers

    def all(self) -> list[Preset]:
        """Those that jobs may have now; the first one is the default."""
        return list(self._offers.presets)

    async def add(self, preset: Preset) -> None:
        """Add one at the end. Raises AlreadyExists."""

        def added(known: list[Preset]) -> list[Preset]:
            if any(one.name == preset.name for one in known):
                raise AlreadyExists(
                    f"There is a preset '{preset.name}' already: change it with `neuro admin"
                    " update-resource-preset`."
                )
            return [*known, preset]

        await self._change(added)

    async def update(self, name: str, change: Callable[[Preset], Preset]) -> None:
        """Change one where it stands. Raises NotFound."""

        def updated(known: list[Preset]) -> list[Preset]:
            _check_known(name, known)
            return [change(one) if one.name == name else one for one in known]

        await self._change(updated)

    async def remove(self, name: str) -> None:
        """Remove one; jobs that have it go on. Raises NotFound."""

        def rest(known: list[Preset]) -> list[Preset]:
            _check_known(name, known)
            return [one for one in known if one.name != name]

        await self._change(rest)

    async def replace(self, presets: Callable[[list[Preset]], list[Preset]]) -> None:
        """Put the whole list that is made of the old one in place of it."""
        await self._change(presets)

    def _complete(self, preset: Preset) -> Preset:
        """With the limit of private files that one has of which nothing is said."""
        return replace(preset, disk=self._disk) if preset.disk < 0 else preset

    async def _change(self, edit: Edit) -> None:
        engines = set(self._offers.engines)

        def change(connection: Connection) -> list[Preset]:
            lock_presets(connection, is_sqlite=self._database.is_sqlite)
            known = kept_presets(connection) or self.all()
            new = [self._complete(one) for one in edit(known)]
            check_presets(new, known, engines)
            keep_presets(connection, new)
            record(connection, Topic.PRESETS, ["*"])
            return new

        self._offers.administered(await self._database.write(change))
        self._changes.ring()


def check_presets(
    presets: Sequence[Preset], known: Sequence[Preset], engines: Collection[str]
) -> None:
    """Raise InvalidInput with the first thing that cannot be.

    What is ``known`` stays as it is: one whose engine is gone keeps nobody from changing others.
    """
    if not presets:
        raise InvalidInput("The last preset cannot be removed: add another one before.")
    if len(presets) > MOST:
        raise InvalidInput(f"There may be {MOST} presets.")
    names: set[str] = set()
    for preset in presets:
        if preset not in known:
            _check_preset(preset, engines)
        if preset.name in names:
            raise InvalidInput(f"Two presets are called '{preset.name}': give each its own name.")
        names.add(preset.name)


def _check_preset(preset: Preset, engines: Collection[str]) -> None:
    name = preset.name
    if not 1 <= len(name) <= 64 or not name.isprintable() or "/" in name:
        raise InvalidInput(
            f"{name[:80]!r} cannot be a preset's name: use 1 to 64 characters, without slashes and"
            " control characters."
        )
    about = f"Preset '{name}'"
    for key, value, allowed in (
        ("cpu", preset.cpu, PRESET_CPU),
        ("gpu", preset.gpu, PRESET_GPU),
    ):
        if not allowed.least <= value <= allowed.most:  # this is so for what is no number, too
            raise InvalidInput(f"{about}: {key} is {value}: give {allowed}.")
    check_size(f"{about}: memory", preset.memory, MIB)
    check_size(f"{about}: disk", preset.disk, MIB, or_zero=True)
    try:
        price = Decimal(preset.credits_per_hour)
    except InvalidOperation:
        price = Decimal("nan")
    if not price.is_finite() or price < 0 or len(preset.credits_per_hour) > 40:
        raise InvalidInput(f"{about}: credits_per_hour must be a number, such as 0.5.")
    if preset.gpu_model is not None and len(preset.gpu_model) > 255:
        raise InvalidInput(f"{about}: gpu_model is longer than 255 characters.")
    if preset.engine not in engines:
        raise InvalidInput(
            f"{about}: there is no engine '{preset.engine}': it must be"
            f" {' or '.join(sorted(engines))}."
        )
    if preset.scheduler_enabled:
        raise InvalidInput(f"{about}: jobs are not suspended to take turns here (scheduler).")


def _check_known(name: str, known: Sequence[Preset]) -> None:
    if not any(one.name == name for one in known):
        names = ", ".join(one.name for one in known)
        raise NotFound(f"There is no preset '{name[:80]}'; known are: {names}.")
