import messages  # noqa: F401
from fastmcp import FastMCP

from asgi_ipc import ipc

mcp = FastMCP("workers")


@mcp.tool
async def who() -> list[int]:
    return list(await ipc.gather("who"))


@mcp.tool
async def job() -> list[int]:
    return list(await ipc.broadcast("job", 1.5))


app = ipc.wrap(mcp.http_app(stateless_http=True, json_response=True))
