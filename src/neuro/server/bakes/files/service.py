"""The rules of config files. Knows no HTTP."""

from __future__ import annotations

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from neuro.domain.bakes import ConfigFile, ConfigFileRequest, new_id
from neuro.domain.errors import TooLarge
from neuro.domain.permissions import Action
from neuro.server.access.identity import Identity
from neuro.server.bakes.checks import MAX_FILES_OF_A_BAKE, check_file
from neuro.server.bakes.files import tables
from neuro.server.bakes.guard import BakeGuard
from neuro.server.database.blobs import pack_large
from neuro.server.database.engine import Database
from neuro.server.database.transactions import Turns
from neuro.server.projects.guard import is_id, missing


class FileService:
    """The config files of one installation's bakes."""

    def __init__(self, database: Database, guard: BakeGuard, turns: Turns) -> None:
        self._database = database
        self._turns = turns
        self._guard = guard

    async def create(self, caller: Identity, request: ConfigFileRequest) -> ConfigFile:
        """Keep the content of a flow file of the caller's own bake."""
        check_file(request)
        file = ConfigFile(
            id=new_id("config-file"),
            bake_id=request.bake_id,
            filename=request.filename,
            content=request.content,
        )

        size = len(file.content)
        content = await pack_large(file.content, size)

        def add(connection: Connection) -> None:
            bake = self._guard.own_bake(connection, caller, request.bake_id)
            if tables.count_of_bake(connection, bake.id) >= MAX_FILES_OF_A_BAKE:
                raise TooLarge(f"A bake can have {MAX_FILES_OF_A_BAKE} flow files at most.")
            tables.add_file(connection, file, content)

        try:
            await self._turns.write(caller.user, size, add)
        except IntegrityError:
            raise missing("Bake", request.bake_id) from None
        return file

    async def file(self, caller: Identity, file_id: str) -> ConfigFile:
        """The config file of an id."""

        def find(connection: Connection) -> ConfigFile:
            hidden = missing("Config file", file_id)
            file = tables.get_file(connection, file_id) if is_id("config-file", file_id) else None
            if file is None:
                raise hidden
            self._guard.bake(connection, caller, file.bake_id, Action.READ, hidden)
            return file

        return await self._database.read(find)
