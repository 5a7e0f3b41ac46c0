"""Sessions that can't leave their process, found from any worker.

    asgi-ipc serve demo.recipes.sessions:app --workers 4

For what can't be stored elsewhere: an open connection, a subprocess, a model's state; here, a generator. The
cookie says which worker has it and names it by a secret; every worker passes the request on to that one.

Guaranteed: a request reaches its session whichever worker got it, steps of one session run one after the
other, and no session is mistaken for another: a worker is named by its generation, which is never used twice
as a pid is, and the secret has 256 bits. Whoever makes up a cookie finds nothing.

Not guaranteed: that a session outlives its worker. When that was killed, restarted or scaled down, the answer
is 410 and the client begins anew; so it is after IDLE_S without a request, or when MAX_SESSIONS were used
later. While that worker stands still the answer is 503, and the step may be taken later all the same.
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

# Of this worker, by their secrets: when each was used, and what it is; who was used last at the end.
sessions: OrderedDict[str, tuple[float, Game]] = OrderedDict()

app = FastAPI(lifespan=ipc.lifespan)


def guessing() -> Game:
    """It lives where it was started: no generator can be pickled."""
    number = secrets.randbelow(100) + 1
    tries = 1
    guess = yield "I think of a number from 1 to 100"
    while guess != number:
        tries += 1
        guess = yield "more" if guess < number else "less"
    return f"yes, after {tries} tries"


@app.post("/games")
async def start(response: Response) -> dict[str, str]:
    """Begin a session, in the worker that this request has reached."""
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
    """In the session's worker: the next step; None if there is no such session."""
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
    """Go on with a session, wherever it is."""
    generation, _, secret = session.partition(".")
    says = None
    for owner in ipc.workers:
        if str(owner.generation) == generation:
            try:
                says = await ipc.request(owner, "sessions.guess", (secret, guess))
            except (UnknownWorkerError, WorkerGoneError):
                break  # and its sessions with it
            except (RequestTimeoutError, SendTimeoutError):
                raise HTTPException(503, "try again later", {"Retry-After": "5"}) from None
    if says is None:
        raise HTTPException(410, "this session is over; POST /games begins another one")
    return {"says": says}
