"""Today's tables, made at once for a new database, are what the migrations build."""

from __future__ import annotations

from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from msgspec.structs import replace
from sqlalchemy import inspect, text

from neuro.domain.errors import Conflict
from neuro.server.database.engine import Database
from neuro.server.database.migrate import HEAD, migrate
from neuro.server.database.schema import metadata
from neuro.server.jobs.phases import Phase
from neuro.server.jobs.tables import get_job, insert_job
from tests.server.test_tables import record


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "neuro.server.database:migrations")
    return config


def _differences(database: Database) -> list[Any]:
    import neuro.server.database.all_tables  # noqa: F401

    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))


def test_the_newest_migration_is_the_one_that_the_server_knows() -> None:
    assert ScriptDirectory.from_config(_config()).get_current_head() == HEAD


def test_migrations_build_what_the_code_declares(database_url: str) -> None:
    database = Database(database_url)
    config = _config()

    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    assert _differences(database) == []
    database.close()


def test_a_developer_can_go_back_to_the_first_migration_and_forth(database_url: str) -> None:
    database = Database(database_url)
    config = _config()

    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        command.downgrade(config, "0001")
        command.upgrade(config, "head")

    assert _differences(database) == []
    database.close()


def test_a_job_may_have_any_number_of_gpus(database_url: str) -> None:
    database = Database(database_url)
    config = _config()
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0012")
    migrate(database)
    gpus = tuple(f"GPU-00000000-0000-0000-0000-{number:012}" for number in range(64))
    job = replace(record(over=False), gpus=gpus, phase=Phase.STARTING)

    database.write_now(lambda connection: insert_job(connection, job))

    kept = database.write_now(lambda connection: get_job(connection, job.id))
    assert kept is not None
    assert kept.gpus == gpus
    database.close()


def test_a_new_database_has_what_the_code_declares(database_url: str) -> None:
    database = Database(database_url)

    migrate(database)
    migrate(database)

    assert _differences(database) == []
    database.close()


def test_a_database_of_the_first_version_is_brought_to_this_one(database_url: str) -> None:
    database = Database(database_url)
    config = _config()
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text("INSERT INTO users (name, is_admin, created_at) VALUES ('alice', false, 0)")
        )

    migrate(database)

    assert _differences(database) == []
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT name FROM users")).scalars().all() == ["alice"]
        constraints = inspect(connection).get_unique_constraints("flow_projects")
    assert constraints[0]["column_names"] == ["cluster", "owner", "name"]
    database.close()


def test_what_users_may_do_they_may_afterwards(database_url: str) -> None:
    database = Database(database_url)
    config = _config()
    kept = [
        ("alice", "storage://default/alice", "manage"),
        ("alice", "user://alice", "read"),
        ("boris", "cluster://default", "manage"),
        ("boris", "job://default", "manage"),
        ("boris", "flow://default/alice/p", "write"),
    ]
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0008")
        for name in ("alice", "boris"):
            connection.execute(
                text("INSERT INTO users (name, is_admin, created_at) VALUES (:name, false, 7)"),
                {"name": name},
            )
        for user, uri, action in kept:
            connection.execute(
                text('INSERT INTO permissions ("user", uri, action) VALUES (:user, :uri, :action)'),
                {"user": user, "uri": uri, "action": action},
            )

    migrate(database)

    with database.engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT subject, uri, action, owner, granted_by, granted_at, expires_at FROM grants"
            )
        )
        found = {tuple(row)[:3]: tuple(row)[3:] for row in rows}
    assert set(found) == set(kept)
    assert {key[1]: owner for key, (owner, *_) in found.items()} == {
        "storage://default/alice": "alice",
        "user://alice": "alice",
        "cluster://default": "",
        "job://default": "",
        "flow://default/alice/p": "alice",
    }
    assert {tuple(rest) for _, *rest in found.values()} == {(None, 7, None)}
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0008")
        again = connection.execute(text('SELECT "user", uri, action FROM permissions')).all()
    assert sorted(map(tuple, again)) == sorted(kept)
    database.close()


def test_bakes_that_have_ended_count_as_ended_when_they_were_last_begun(database_url: str) -> None:
    database = Database(database_url)
    config = _config()
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        blob = "CAST('x' AS BYTEA)" if connection.dialect.name == "postgresql" else "x'78'"
        for statement in (
            "INSERT INTO flow_projects (id, cluster, owner, name) VALUES ('p', 'c', 'o', 'n')",
            *(
                "INSERT INTO flow_bakes"
                " (id, project_id, batch, status, created_at, graphs, details)"
                f" VALUES ('{status}', 'p', 'b', '{status}', 5, {blob}, {blob})"
                for status in ("succeeded", "cancelled", "running")
            ),
            *(
                "INSERT INTO flow_attempts (id, bake_id, number, created_at, result, configs)"
                f" VALUES ('{bake}{number}', '{bake}', {number}, {10 * number}, 'failed', {blob})"
                for bake in ("succeeded", "running")
                for number in (1, 2)
            ),
        ):
            connection.execute(text(statement))

    migrate(database)

    with database.engine.connect() as connection:
        ends = connection.execute(text("SELECT id, finished_at FROM flow_bakes")).all()
    assert dict(map(tuple, ends)) == {"succeeded": 20, "cancelled": 5, "running": None}
    database.close()


def test_a_bake_is_its_first_main_jobs_owners_or_else_its_projects(database_url: str) -> None:
    database = Database(database_url)
    config = _config()
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0006")
        blob = "CAST('x' AS BYTEA)" if connection.dialect.name == "postgresql" else "x'78'"
        for statement in (
            "INSERT INTO flow_projects (id, cluster, owner, name) VALUES ('p', 'c', 'anna', 'n')",
            *(
                "INSERT INTO jobs (id, owner, cluster, engine, status, priority, created_at, run,"
                " placed, run_started, logs_removed, log_bytes, specification, transitions) VALUES"
                f" ('job-{owner}', '{owner}', 'c', 'e', 'failed', 1, 0, 0, true, true, false, 0,"
                f" {blob}, {blob})"
                for owner in ("boris", "root")
            ),
            *(
                "INSERT INTO flow_bakes"
                " (id, project_id, batch, status, created_at, graphs, details)"
                f" VALUES ('{bake}', 'p', 'b', 'failed', 5, {blob}, {blob})"
                for bake in ("driven", "local")
            ),
            *(
                "INSERT INTO flow_attempts"
                " (id, bake_id, number, created_at, result, executor_id, configs)"
                f" VALUES ('{number}', 'driven', {number}, 0, 'failed', 'job-{owner}', {blob})"
                for number, owner in ((1, "boris"), (2, "root"))
            ),
        ):
            connection.execute(text(statement))

    migrate(database)

    with database.engine.connect() as connection:
        owners = connection.execute(text("SELECT id, owner FROM flow_bakes")).all()
    assert dict(map(tuple, owners)) == {"driven": "boris", "local": "anna"}
    database.close()


def test_tokens_that_jobs_were_given_are_known_by_their_labels(database_url: str) -> None:
    job = "job-00000000-0000-0000-0000-000000000001"
    database = Database(database_url)
    config = _config()
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
        blob = "CAST('x' AS BYTEA)" if connection.dialect.name == "postgresql" else "x'78'"
        for statement in (
            "INSERT INTO users (name, is_admin, created_at) VALUES ('anna', false, 0)",
            "INSERT INTO users (name, is_admin, created_at) VALUES ('boris', false, 0)",
            "INSERT INTO jobs (id, owner, cluster, engine, status, priority, created_at, run,"
            " placed, run_started, logs_removed, log_bytes, specification, transitions) VALUES"
            f" ('{job}', 'anna', 'c', 'e', 'running', 1, 0, 0, true, true, false, 0,"
            f" {blob}, {blob})",
            *(
                'INSERT INTO tokens (id, "user", digest, label, created_at, expires_at)'
                f" VALUES ('{number}', '{user}', 'd', '{label}', 0, 0)"
                for number, user, label in (
                    (1, "anna", f"job {job}"),
                    (2, "boris", f"job {job}"),
                    (3, "anna", "job job-of-mine"),
                    (4, "anna", "laptop"),
                )
            ),
        ):
            connection.execute(text(statement))

    migrate(database)

    with database.engine.connect() as connection:
        jobs = connection.execute(text("SELECT id, job FROM tokens")).all()
    assert dict(map(tuple, jobs)) == {"1": job, "2": None, "3": None, "4": None}
    database.close()


def test_images_are_as_large_as_what_they_have(database_url: str) -> None:
    database = Database(database_url)
    config = _config()
    image, index = (f"application/vnd.oci.image.{kind}.v1+json" for kind in ("manifest", "index"))
    kinds = {"small": image, "large": image, "both": index, "nested": index}
    named = {
        "small": ["a", "elsewhere"],
        "large": ["a", "b"],
        "both": ["small", "large", "away"],
        "nested": ["both", "small"],
    }
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0017")
        blob = "CAST('x' AS BYTEA)" if connection.dialect.name == "postgresql" else "x'78'"
        for statement in (
            "INSERT INTO registry_repositories (id, owner, path) VALUES (1, 'o', 'o/n')",
            "INSERT INTO registry_repositories (id, owner, path) VALUES (2, 'o', 'o/other')",
            "INSERT INTO registry_blobs (digest, size) VALUES ('a', 1), ('b', 2), ('elsewhere', 4)",
            "INSERT INTO registry_links (repository_id, digest, touched_at)"
            " VALUES (1, 'a', 0), (1, 'b', 0), (2, 'elsewhere', 0)",
            *(
                "INSERT INTO registry_manifests (repository_id, digest, media_type, content,"
                " listed, pushed_at, touched_at)"
                f" VALUES (1, '{name}', '{kind}', {blob}, {blob}, 0, 0)"
                for name, kind in kinds.items()
            ),
            *(
                "INSERT INTO registry_references (repository_id, manifest, digest)"
                f" VALUES (1, '{name}', '{digest}')"
                for name, digests in named.items()
                for digest in digests
            ),
        ):
            connection.execute(text(statement))

    migrate(database)

    with database.engine.connect() as connection:
        sizes = connection.execute(text("SELECT digest, size FROM registry_manifests")).all()
    assert dict(map(tuple, sizes)) == {"small": 1, "large": 3, "both": 4, "nested": 1}
    database.close()


def test_a_database_of_a_newer_version_is_left_alone(database_url: str) -> None:
    database = Database(database_url)
    migrate(database)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(Conflict, match="newer version"):
        migrate(database)

    database.close()
