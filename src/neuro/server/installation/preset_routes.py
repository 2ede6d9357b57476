"""Presets, for administrators.

See docs/reference/wire-protocol.md#presets.
"""

from __future__ import annotations

from msgspec.structs import replace

from neuro.domain.errors import InvalidInput, NotFound, NotPermitted
from neuro.domain.permissions import Action
from neuro.domain.resources import MIB, Preset
from neuro.domain.server_config import PresetMessage, PresetRequest
from neuro.domain.uris import ResourceURI
from neuro.server.access.routes import ADMINS_ONLY, require_person
from neuro.server.http.routes import Call, Need, Routes
from neuro.server.jobs.presets import Presets

PATH = "/api/v1/clusters/{cluster}/orchestrator/resource_presets"
ONE = PATH + "/{name}"
SECTION = "presets"


def preset_routes(presets: Presets, cluster: str) -> Routes:
    """The list of presets, and changes of it."""
    api = Routes("installation")

    async def ask(call: Call) -> None:
        call.identity.require(
            ResourceURI("cluster", cluster), Action.MANAGE, hidden=NotPermitted(ADMINS_ONLY)
        )
        if call.segment("cluster") != cluster:
            raise NotFound(f"There is no cluster '{call.segment('cluster')[:80]}' here.")

    need = Need("cluster://{cluster}", Action.MANAGE, ask)

    @api.add("GET", PATH, needs=need, section=SECTION)
    async def list_presets(call: Call) -> list[PresetMessage]:
        """The presets; the first one is the default (admins)."""
        return [preset_message(one) for one in presets.all()]

    @api.add("PUT", PATH, needs=need, section=SECTION)
    async def put_presets(call: Call, body: list[PresetRequest]) -> list[PresetMessage]:
        """Put a whole list in place of the present one (admins)."""
        require_person(call)

        def made(known: list[Preset]) -> list[Preset]:
            old = {one.name: one for one in known}
            return [_preset(one, old.get(one.name or ""), presets.usual_engine) for one in body]

        await presets.replace(made)
        return [preset_message(one) for one in presets.all()]

    @api.add("POST", PATH, needs=need, section=SECTION, status=201)
    async def add_preset(call: Call, body: PresetRequest) -> PresetMessage:
        """Add a preset at the end of the list (admins)."""
        require_person(call)
        made = _preset(body, None, presets.usual_engine)
        await presets.add(made)
        return preset_message(made)

    @api.add("PUT", ONE, needs=need, section=SECTION)
    async def change_preset(call: Call, body: PresetRequest) -> PresetMessage:
        """Change what is said of a preset; the rest of it stays (admins)."""
        require_person(call)
        name = call.segment("name")
        if body.name not in (None, name):
            raise InvalidInput(f"A preset keeps its name, which is '{name[:80]}'.")
        made: list[Preset] = []

        def change(old: Preset) -> Preset:
            made.append(_preset(body, old, presets.usual_engine))
            return made[-1]

        await presets.update(name, change)
        return preset_message(made[-1])

    @api.add("DELETE", ONE, needs=need, section=SECTION, status=204)
    async def remove_preset(call: Call) -> None:
        """Remove a preset; jobs that have it go on (admins)."""
        require_person(call)
        await presets.remove(call.segment("name"))

    return api


def preset_message(preset: Preset) -> PresetMessage:
    """A preset as clients of all times read it."""
    return PresetMessage(
        name=preset.name,
        credits_per_hour=preset.credits_per_hour,
        cpu=preset.cpu,
        memory=preset.memory,
        memory_mb=preset.memory // MIB,
        scheduler_enabled=preset.scheduler_enabled,
        preemptible_node=preset.preemptible_node,
        is_preemptible=preset.scheduler_enabled,
        is_preemptible_node_required=preset.preemptible_node,
        gpu=preset.gpu or None,
        gpu_model=preset.gpu_model,
        nvidia_gpu=preset.gpu or None,
        engine=preset.engine,
        disk=preset.disk,
    )


def _preset(request: PresetRequest, old: Preset | None, usual_engine: str) -> Preset:
    """What is asked for, over what there was. Raises InvalidInput for what is missing."""
    if request.tpu_type is not None or request.tpu_software_version is not None:
        raise InvalidInput("There are no TPUs here.")
    if request.amd_gpu or request.intel_gpu:
        raise InvalidInput("Of GPUs a preset counts those of NVIDIA alone: use gpu.")
    memory = request.memory
    if memory is None and request.memory_mb is not None:
        memory = request.memory_mb * MIB
    if old is None:
        if request.name is None or request.cpu is None or memory is None:
            raise InvalidInput("A preset needs a name, cpu and memory.")
        old = Preset(
            name=request.name, cpu=request.cpu, memory=memory, engine=usual_engine, disk=-1
        )
    said = {
        "cpu": request.cpu,
        "memory": memory,
        "gpu": _first(request.gpu, request.nvidia_gpu),
        "gpu_model": _first(request.gpu_model, request.nvidia_gpu_model),
        "credits_per_hour": request.credits_per_hour,
        "scheduler_enabled": _first(request.scheduler_enabled, request.is_preemptible),
        "preemptible_node": _first(request.preemptible_node, request.is_preemptible_node_required),
        "engine": request.engine,
        "disk": request.disk,
    }
    changed: Preset = replace(old, **{k: v for k, v in said.items() if v is not None})
    return changed if changed.gpu else replace(changed, gpu_model=None)


def _first(*values: object) -> object:
    return next((value for value in values if value is not None), None)
