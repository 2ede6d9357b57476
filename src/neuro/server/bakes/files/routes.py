"""Config files over HTTP."""

from __future__ import annotations

from neuro.domain.bakes import ConfigFile, ConfigFileRequest
from neuro.server.bakes.checks import MAX_BODY
from neuro.server.bakes.files.service import FileService
from neuro.server.http.routes import Call, Routes

FILES = "/api/v1/flow/config_files"


def add_files(api: Routes, files: FileService) -> None:
    """Declare the routes of config files."""

    @api.add("POST", FILES, status=201, section="flows", max_body=MAX_BODY)
    async def create_config_file(call: Call, body: ConfigFileRequest) -> ConfigFile:
        """Keep the content of a flow file, up to 4 MiB."""
        return await files.create(call.identity, body)

    @api.add("GET", FILES + "/{file}", section="flows")
    async def get_config_file(call: Call) -> ConfigFile:
        """A config file by its id."""
        return await files.file(call.identity, call.segment("file"))
