"""Sessions that can't leave their process, found from any worker.

    asgi-ipc serve demo.recipes.sessions:app --workers 4

For state that can't be stored elsewhere: an open connection, a subprocess, a model's state; here, a
generator. The cookie names the worker that has the session, and the session by a secret; every worker passes
a request on to that worker.

Guaranteed: a request reaches its session whichever worker got it, steps of one session run one after the
other, and no session is mistaken for another: the cookie names a worker by its generation, which unlike a pid
is never reused, and the secret has 256 bits. A made-up cookie finds no session.

Not guaranteed: a session does not outlive its worker. When the worker was killed, restarted or scaled down,
the answer is 410 and the client begins again. The same holds after IDLE_S without a request, or when
MAX_SESSIONS other sessions were used later. While the worker stands still the answer is 503, and the step may
happen later all the same.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Generator
from typing import Annotated, Any, Final, TypeAlias

from fastapi import Cookie, FastAPI, HTTPException, Path, Response

from asgi_ipc import RequestTimeoutError, SendTimeoutError, UnknownWorkerError, WorkerGoneError, ipc

IDLE_S: Final = 900.0
MAX_SESSIONS: Final = 10_000

Game: TypeAlias = Generator[str, int, str]

# This worker's sessions by their secrets: the time of the last use, and the game; the one used last at the
# end.
sessions: OrderedDict[str, tuple[float, Game]] = OrderedDict()

app = FastAPI(lifespan=ipc.lifespan)


def guessing() -> Game:
    """A game stays in its process: a generator can't be pickled."""
    number = secrets.randbelow(100) + 1
    tries = 1
    guess = yield "I think of a number from 1 to 100"
    while guess != number:
        tries += 1
        guess = yield "more" if guess < number else "less"
    return f"yes, after {tries} tries"


@app.post("/games")
async def start(response: Response) -> dict[str, str]:
    """Begin a session in the worker of this request."""
    game = guessing()
    says = next(game)
    secret = secrets.token_urlsafe(32)
    sessions[secret] = (time.monotonic(), game)
    if len(sessions) > MAX_SESSIONS:
        sessions.popitem(last=False)
    # With TLS, add secure=True.
    response.set_cookie("session", f"{ipc.worker.generation}.{secret}", httponly=True, samesite="lax")
    return {"says": says}


@ipc.receive("sessions.guess")
def play(data: tuple[str, int]) -> str | None:
    """Take the next step, in the session's worker; None if there is no such session."""
    secret, guess = data
    used_at, game = sessions.pop(secret, (0.0, None))
    now = time.monotonic()
    if game is None or now - used_at > IDLE_S:
        return None
    try:
        says = game.send(guess)
    except StopIteration as end:
        return str(end.value)
    sessions[secret] = (now, game)
    return says


@app.post("/games/{guess}")
async def go_on(
    guess: Annotated[int, Path(ge=1, le=100)], session: Annotated[str, Cookie()] = ""
) -> dict[str, Any]:
    """Go on with a session in any worker."""
    generation, _, secret = session.partition(".")
    says = None
    for owner in ipc.workers:
        if str(owner.generation) == generation:
            try:
                says = await ipc.request(owner, "sessions.guess", (secret, guess))
            except (UnknownWorkerError, WorkerGoneError):
                break  # Its sessions are gone, too.
            except (RequestTimeoutError, SendTimeoutError):
                raise HTTPException(503, "try again later", {"Retry-After": "5"}) from None
    if says is None:
        raise HTTPException(410, "this session is over; POST /games begins another one")
    return {"says": says}
