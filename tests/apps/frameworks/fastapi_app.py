import messages  # noqa: F401
from fastapi import FastAPI

from asgi_ipc import ipc

app = FastAPI(lifespan=ipc.lifespan)


@app.get("/")
def who():  # in a thread
    return list(ipc.blocking.gather("who"))


@app.get("/job")
async def job():
    return await ipc.broadcast("job", 1.5)
