"""Jobs that build images: where they run, as what, and what their owners may choose of that."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from neuro.domain.errors import InvalidInput, NotAuthenticated
from neuro.domain.images import is_builder_image
from neuro.domain.jobs import ContainerRequest, JobRequest, RequestedResources, Volume
from neuro.domain.permissions import Action, Permission
from neuro.domain.resources import GIB, Amount, Preset
from neuro.domain.uris import ResourceURI, parse_uri
from neuro.engines.base import RunSpec
from neuro.server.access.grants import Grants
from neuro.server.access.identity import Identity, RegistryIdentity
from neuro.server.access.service import AccessService
from neuro.server.background import Background
from neuro.server.database.engine import Database
from neuro.server.jobs.builders import arguments_of, cache_key, check_places
from neuro.server.jobs.launch import Launcher
from neuro.server.jobs.passed_tokens import PassedTokens
from neuro.server.jobs.plan import Draft, Offer, Planned, Refused, plan
from neuro.server.jobs.specification import wire_container
from neuro.server.storage.service import StorageService
from tests.server.jobs import no_secret_values
from tests.server.test_tables import record

NOW = datetime(2026, 6, 1, tzinfo=UTC)
GPUS = Preset(name="gpus", cpu=32, memory=64 * GIB, gpu=4, gpu_model="x", engine="docker")
OFFER = Offer("default", [GPUS], "sandbox", "", lambda engine: "http://10.1.0.1:8085/api/v1")
HAS = {"sandbox": Amount(cpu=4, memory=8 * GIB), "docker": Amount(cpu=64, memory=128 * GIB, gpu=8)}
KANIKO = "gcr.io/kaniko-project/executor:v1.3.0-debug"
CONFIG = "/kaniko/.docker/config.json"


def planned(image: str = "neuro/builder", **more: Any) -> Planned | Refused:
    held = [
        Permission(ResourceURI(scheme, "default", ("anna",)), Action.MANAGE)
        for scheme in ("job", "storage")
    ]
    held.append(Permission(ResourceURI("cluster", "default"), Action.MANAGE))
    caller = Identity("anna", Grants.of(held), "t")
    more.setdefault("command", "--context=/kaniko_context --destination=lab:80/anna/x:v1")
    request = JobRequest(image=image, preset_name="gpus", **more)
    return plan(Draft(request, False, "job-1", NOW, "lab:80"), caller, OFFER, HAS)


async def spec_of(
    folder: Path,
    image: str = "neuro/builder",
    daemon: str = "",
    mirrors: tuple[str, ...] = (),
    **more: Any,
) -> RunSpec:
    accepted = planned(image, **more)
    assert isinstance(accepted, Planned), accepted
    launcher = Launcher(
        "default",
        StorageService(folder, "default"),
        lambda record: asyncio.sleep(0, "secret-token"),
        OFFER.api_url,
        "/opt/neuro/bin",
        image_token=lambda user, uri: "",
        registry="127.0.0.1:8085",
        secrets=no_secret_values,
        mirrors=mirrors,
        build_daemon=lambda: daemon,
    )
    return await launcher.make_spec(accepted.record)


@pytest.mark.parametrize(
    ("image", "builds"),
    [
        ("neuro/builder", True),
        ("neuro/builder:latest", True),
        (KANIKO, True),
        ("martizih/kaniko@sha256:" + "0" * 64, True),
        ("docker.io/martizih/kaniko:v1.25", True),
        ("gcr.io/kaniko-project/warmer", False),
        ("image://default/neuro/builder:latest", False),
        ("lab:80/neuro/builder", False),
        ("neuro/builders", False),
        ("neuro/executor", False),
    ],
)
def test_which_images_build(image: str, builds: bool) -> None:
    assert is_builder_image(image) is builds


@pytest.mark.parametrize("image", ["neuro/builder", KANIKO])
def test_a_builder_runs_on_the_embedded_engine_with_what_that_has_of_its_preset(
    image: str,
) -> None:
    accepted = planned(image)

    assert isinstance(accepted, Planned)
    assert accepted.record.engine == "sandbox"
    assert accepted.record.specification.preset_name == "gpus"
    assert accepted.record.specification.amount == HAS["sandbox"]
    assert accepted.record.specification.registry == "lab:80"


def test_what_no_host_can_be_called_is_not_kept_as_the_registry() -> None:
    caller = Identity(
        "anna", Grants.of([Permission(ResourceURI("job", "default"), Action.WRITE)]), "t"
    )
    draft = Draft(JobRequest(image="neuro/builder"), False, "job-1", NOW, "lab --no-push=x")

    accepted = plan(draft, caller, OFFER, HAS)

    assert isinstance(accepted, Planned)
    assert accepted.record.specification.registry == ""


async def test_its_run_is_the_platforms_program_whatever_was_asked(tmp_path: Path) -> None:
    spec = await spec_of(
        tmp_path,
        KANIKO,
        command="--build-arg A --build-arg=B --build-arg C=1 --build-arg D --context=/x",
        env={"A": "a b", "B": "b=c", "PYTHONPATH": "/evil", "LD_PRELOAD": "/evil.so"},
        working_dir="/tmp",
        entrypoint="/kaniko/executor",
    )

    assert spec.entrypoint == ("/opt/neuro/bin/python", "-I", "-m", "neuro.builder")
    assert spec.argv == (
        "--insecure-registry=10.1.0.1:8085",
        "--own-registry=10.1.0.1:8085/default/anna",
        "--whole-manifests",
        "--registry-map=lab:80=10.1.0.1:8085",
        "--build-arg=A=a b",
        "--build-arg=B=b=c",
        "--build-arg=C=1",
        "--build-arg=D",
        "--context=/x",
    )
    assert all(name.startswith("NEURO_JOB_") for name in spec.env)
    assert (spec.nesting, spec.control, spec.privileged, spec.gpus) == (True, False, False, ())
    assert spec.working_dir is None


async def test_it_is_told_of_the_mirrors(tmp_path: Path) -> None:
    spec = await spec_of(tmp_path, mirrors=("quay.io", "docker.io"))

    told = [word for word in spec.argv if word.startswith("--mirror=")]
    assert told == ["--mirror=docker.io", "--mirror=quay.io"]


async def test_it_is_given_a_login_for_the_registry_by_both_of_its_names(tmp_path: Path) -> None:
    spec = await spec_of(tmp_path)

    (file,) = spec.files
    assert (file.target, file.mode) == (CONFIG, 0o400)
    auths = json.loads(file.content)["auths"]
    assert list(auths) == ["lab:80", "10.1.0.1:8085"]
    assert base64.b64decode(auths["lab:80"]["auth"]) == b"token:secret-token"


@pytest.mark.parametrize("target", [CONFIG, "/kaniko/.docker", "/kaniko"])
async def test_a_configuration_of_its_own_stays(tmp_path: Path, target: str) -> None:
    (tmp_path / "anna" / "login").mkdir(parents=True)
    volume = Volume(src_storage_uri="storage://default/anna/login", dst_path=target, read_only=True)

    spec = await spec_of(tmp_path, volumes=[volume])

    assert spec.files == ()
    assert [it.target for it in spec.volumes] == [target]


async def test_each_owner_has_layers_of_their_own(tmp_path: Path) -> None:
    one, other = await spec_of(tmp_path), await spec_of(tmp_path, KANIKO)

    assert one.build_cache == other.build_cache
    assert one.build_cache.isalnum()
    assert cache_key("default", "boris") != one.build_cache


def test_layers_of_a_service_account_are_its_own_and_counted_with_its_persons() -> None:
    anna, account = cache_key("default", "anna"), cache_key("default", "anna--ci")

    assert account.partition("-")[0] == anna
    assert account != anna
    assert cache_key("default", "anna--cd") not in (anna, account)


async def test_no_other_job_may_make_sandboxes(tmp_path: Path) -> None:
    spec = await spec_of(tmp_path, "ubuntu", command="python -m neuro.builder")

    assert (spec.nesting, spec.build_cache, spec.files) == (False, "", ())


async def test_commands_see_the_volumes_that_are_not_the_builders_own(tmp_path: Path) -> None:
    (tmp_path / "anna" / "x").mkdir(parents=True)
    given = [
        Volume(src_storage_uri="storage://default/anna/x", dst_path=it, read_only=True)
        for it in ("/kaniko_context", "/kaniko/build", "/data/./raw")
    ]

    spec = await spec_of(tmp_path, volumes=given, env={"NEURO_BUILD_VOLUMES": "[evil]"})

    told = json.loads(spec.env["NEURO_BUILD_VOLUMES"])
    assert told == [{"path": "/data/raw", "read_only": True}]
    assert "NEURO_BUILD_VOLUMES" not in (await spec_of(tmp_path)).env


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"privileged": True}, "cannot be privileged"),
        ({"pass_config": True}, "leave --pass-config out"),
        ({"entrypoint": "bash"}, "leave the entrypoint out"),
    ],
)
def test_what_it_cannot_have(more: dict[str, Any], said: str) -> None:
    refused = planned(**more)

    assert isinstance(refused, Refused)
    assert said in str(refused.error())


def volumes(*targets: str) -> list[Volume]:
    return [Volume(src_storage_uri="storage:x", dst_path=it, read_only=True) for it in targets]


@pytest.mark.parametrize(
    "target",
    [
        *("/usr", "/usr/lib/python3/x", "/etc", "/lib64/./x", "/bin", "/cache", sys.prefix),
        *(str(Path(sys.prefix) / "lib"), str(Path(sys.prefix).parent)),
    ],
)
def test_no_volume_lies_over_a_program(target: str) -> None:
    with pytest.raises(InvalidInput, match="where programs of the machine are"):
        check_places(volumes("/kaniko_context", target))


def test_nor_behind_a_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/usr/lib")

    with pytest.raises(InvalidInput, match="where programs of the machine are"):
        check_places(volumes(f"{tmp_path}/link/python3"))


async def test_a_daemon_that_builds_is_given_to_builders_alone(tmp_path: Path) -> None:
    built = await spec_of(tmp_path, daemon="/run/docker.sock")
    other = await spec_of(tmp_path, image="ubuntu", command="true", daemon="/run/docker.sock")
    without = await spec_of(tmp_path)

    assert built.build_daemon == "/run/docker.sock"
    assert built.env["NEURO_BUILD_REGISTRY"] == "127.0.0.1:8085"
    assert built.env["NEURO_BUILD_KEY"] == built.build_cache
    assert (other.build_daemon, without.build_daemon) == ("", "")
    assert not any(name.startswith("NEURO_BUILD") for name in (*other.env, *without.env))


def test_nor_within_another_one_whose_links_could_lead_there() -> None:
    with pytest.raises(InvalidInput, match="a volume within another one"):
        check_places(volumes("/kaniko_context", "/kaniko_context/sub"))
    check_places(volumes("/kaniko_context", CONFIG, "/kaniko/build", "/data"))


async def test_such_a_volume_is_told_when_the_job_is_submitted(tmp_path: Path) -> None:
    launcher = Launcher(
        "default", StorageService(tmp_path, "default"), lambda record: asyncio.sleep(0, ""),
        str, "", image_token=lambda user, uri: "", registry="",
        secrets=no_secret_values,
    )  # fmt: skip
    container = ContainerRequest(image="neuro/builder", volumes=volumes("/usr/lib"))

    with pytest.raises(InvalidInput, match="where programs of the machine are"):
        await launcher.check_volumes("anna", container)


def test_the_last_word_may_be_an_option_without_a_value() -> None:
    container = ContainerRequest(image=KANIKO, command="--no-push --build-arg")
    wire = wire_container(container, Amount(cpu=1, memory=GIB), None)

    assert arguments_of(wire, "", "r:1", "lab", "anna") == (
        "--insecure-registry=r:1",
        "--own-registry=r:1/lab/anna",
        "--whole-manifests",
        "--no-push",
        "--build-arg",
    )


async def test_its_token_pulls_and_pushes_until_the_job_is_over(
    database: Database,
) -> None:
    access = AccessService(database, b"k" * 32, "default")
    await access.add_user("anna", is_admin=True)
    background = Background()
    tokens = PassedTokens(database, access, lambda job_id: True, background)
    accepted = planned()
    assert isinstance(accepted, Planned)

    token = await tokens.issue(accepted.record)
    identity = await access.authenticate(token)

    assert isinstance(identity, RegistryIdentity)
    assert identity.allows(parse_uri("image://default/anna/x"), Action.WRITE)
    assert not identity.allows(parse_uri("storage://default/anna/x"), Action.READ)
    assert not identity.allows(parse_uri("job://default/anna"), Action.READ)
    assert identity.expires_at - datetime.now(UTC) > timedelta(days=1)
    await access.end_tokens_of_jobs([accepted.record.id])
    with pytest.raises(NotAuthenticated):
        await access.authenticate(token)
    await tokens.close()


def test_the_end_of_a_builder_ends_its_token() -> None:
    assert record().specification.has_token is False
    accepted = planned()
    assert isinstance(accepted, Planned)
    assert accepted.record.specification.has_token


def test_explicit_resources_are_cut_down_too() -> None:
    request = JobRequest(
        image="neuro/builder", resources=RequestedResources(cpu=100, memory=GIB, gpu=1)
    )
    caller = Identity(
        "anna", Grants.of([Permission(ResourceURI("job", "default"), Action.WRITE)]), "t"
    )

    accepted = plan(Draft(request, False, "job-1", NOW), caller, OFFER, HAS)

    assert isinstance(accepted, Planned)
    assert accepted.record.specification.amount == Amount(cpu=4, memory=GIB)
