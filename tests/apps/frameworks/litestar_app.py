import messages  # noqa: F401
from litestar import Litestar, get

from asgi_ipc import ipc


@get("/")
async def who() -> list[int]:
    return list(await ipc.gather("who"))


@get("/job")
async def job() -> tuple[int, ...]:
    return await ipc.broadcast("job", 1.5)


app = Litestar([who, job], lifespan=[ipc.lifespan])
