import messages  # noqa: F401
from blacksheep import Application, get

from asgi_ipc import ipc

app = Application()


@app.lifespan
async def membership():
    async with ipc.lifespan(app):
        yield


@get("/")
async def who() -> list[int]:
    return list(await ipc.gather("who"))


@get("/job")
async def job() -> list[int]:
    return list(await ipc.broadcast("job", 1.5))
