"""What tests do with jobs."""

from __future__ import annotations

import msgspec

from neuro.client import Client
from neuro.domain.jobs import Job, JobRequest
from neuro.server.jobs.job_secrets import SecretValues
from neuro.server.jobs.record import JobRecord


async def output_of(client: Client, job: Job) -> bytes:
    """All that a job prints; returns when it is over."""
    return b"".join([chunk async for chunk in client.jobs.logs(job.id)])


async def submit(client: Client, command: str, **options: object) -> Job:
    """A job in any image."""
    request = msgspec.convert({"image": "ubuntu:latest", "command": command, **options}, JobRequest)
    return (await client.jobs.submit(request)).job


async def finished(client: Client, job: Job) -> Job:
    """The job once it is over: the end of its log is its end."""
    await output_of(client, job)
    return await client.jobs.get(job.id)


async def running(client: Client, command: str, **options: object) -> Job:
    """A job that has printed its first line, "up"."""
    job = await submit(client, f"sh -c 'echo up; {command}'", **options)
    async for _ in client.jobs.logs(job.id):
        break
    return await client.jobs.get(job.id)


async def no_secret_values(record: JobRecord) -> SecretValues:
    """What a launcher gives a job that uses no secrets."""
    return SecretValues()
