"""A user's program on the reference SDK 22.7.1; runs in that client's environment.

What it learns goes to standard output as JSON. Unlike the command line, the SDK submits jobs with
resources of their own instead of a preset (docs/reference/wire-protocol.md#submitting) and reads
parts of files.
"""

import asyncio
import json

import neuro_sdk


async def main() -> dict[str, object]:
    async with neuro_sdk.get() as client:
        container = neuro_sdk.Container(
            image=client.parse.remote_image("ubuntu"),
            command="sh -c 'echo from the sdk; exit 3'",
            resources=neuro_sdk.Resources(memory=64 << 20, cpu=0.1, shm=False),
        )
        job = await client.jobs.run(container, tags=["sdk"])
        log = b"".join([chunk async for chunk in client.jobs.monitor(job.id)])
        job = await client.jobs.status(job.id)

        uri = client.parse.str_to_uri("storage:from-the-sdk")
        await client.storage.create(uri, b"0123456789")
        part = b"".join([chunk async for chunk in client.storage.open(uri, 3, 4)])
        listed = [status.name async for status in client.storage.list(uri.parent)]

        return {
            "log": log.decode(),
            "status": job.status.value,
            "exit_code": job.history.exit_code,
            "memory": job.container.resources.memory,
            "cpu": job.container.resources.cpu,
            "listed": [found.id async for found in client.jobs.list(tags=["sdk"])] == [job.id],
            "capacity": sorted(await client.jobs.get_capacity()),
            "part": part.decode(),
            "is_listed": "from-the-sdk" in listed,
        }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main())))
