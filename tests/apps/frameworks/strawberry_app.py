import messages  # noqa: F401
import strawberry
from strawberry.asgi import GraphQL

from asgi_ipc import ipc


@strawberry.type
class Query:
    @strawberry.field
    async def who(self) -> list[int]:
        return list(await ipc.gather("who"))

    @strawberry.field
    async def job(self) -> list[int]:
        return list(await ipc.broadcast("job", 1.5))


app = ipc.wrap(GraphQL(strawberry.Schema(Query)))
